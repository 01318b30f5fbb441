"""Files that appear complete or not at all, whichever processes write the same one."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """A path of the writer's own to write to; at the end of the block it becomes `path`.

    It is a file, not a folder, and its name is short: what a killed process leaves is easy to
    remove, and `path` may have the longest name that the file system takes.

    The processes of a run on several devices fill one cache: two that write the same entry at
    once each write their own file, and the later one's replaces the earlier one's.
    """
    partial = path.with_name(f".dub-{secrets.token_hex(4)}.part")
    try:
        yield partial
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def save_arrays(path: Path, **arrays: Any) -> None:
    """Write an .npz by `whole_file`."""
    with whole_file(path) as partial, partial.open("wb") as file:
        np.savez(file, **arrays)
