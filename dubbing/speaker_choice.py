"""What `--speaker` says: which of the faces of a video is meant."""

from __future__ import annotations

import re
from dataclasses import dataclass

from dubbing.errors import OptionInvalid

LARGEST, ACTIVE = "largest", "active"
_NUMBER = r"\d+(?:\.\d+)?"
_PLACE = re.compile(rf"({_NUMBER}),({_NUMBER})@({_NUMBER})")


@dataclass(frozen=True)
class SpeakerChoice:
    """A parsed choice. All fields None is the largest face.

    Attributes:
        active: the face whose lips move with the video's own sound.
        track: number of a face track.
        place: x, y in pixels of the upright picture, and seconds since the first frame.
    """

    active: bool = False
    track: int | None = None
    place: tuple[float, float, float] | None = None

    @classmethod
    def parse(cls, text: str) -> SpeakerChoice:
        """Read "largest", "active", a track's number, or "x,y@t".

        Raises:
            OptionInvalid: none of these.
        """
        if text == LARGEST:
            return cls()
        if text == ACTIVE:
            return cls(active=True)
        if text.isascii() and text.isdecimal():
            return cls(track=int(text))
        if found := _PLACE.fullmatch(text):
            x, y, t = (float(v) for v in found.groups())
            return cls(place=(x, y, t))
        raise OptionInvalid(
            f"speaker is {text!r}; it has to be 'largest', 'active', a face track's number, "
            "or a place x,y@t",
            hint="'dub inspect VIDEO' lists the face tracks with their numbers; 640,360@12.5 is "
            "the face at that pixel 12.5 s after the first frame",
        )
