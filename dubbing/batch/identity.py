"""Whether an input is still the file that a result was made from."""

from __future__ import annotations

from pathlib import Path

from dubbing.batch import storage
from dubbing.persona import fingerprint


def input_identity(location: str) -> str:
    """A string that changes when the input does; "" where it is not there."""
    if storage.is_url(location):
        return storage.token(location)
    return fingerprint(location) if Path(location).is_file() else ""
