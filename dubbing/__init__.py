"""Persona Dub: audio-driven visual dubbing that keeps the speaker's persona.

    from dubbing import Dubber
    report = Dubber.from_pretrained(device="auto").dub("speaker.mp4", "speech.wav", "out.mp4")

Names are imported when they are first used: the command line's help needs no network library.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from dubbing.errors import DubbingError

if TYPE_CHECKING:
    from dubbing.dubber import Dubber
    from dubbing.options import DubOptions
    from dubbing.persona import Persona
    from dubbing.progress import ProgressEvent
    from dubbing.report import DubReport

__all__ = ["DubOptions", "DubReport", "Dubber", "DubbingError", "Persona", "ProgressEvent"]

_PLACES = {
    "Dubber": "dubbing.dubber",
    "DubOptions": "dubbing.options",
    "DubReport": "dubbing.report",
    "Persona": "dubbing.persona",
    "ProgressEvent": "dubbing.progress",
}


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module 'dubbing' has no attribute {name!r}")
    return getattr(import_module(_PLACES[name]), name)
