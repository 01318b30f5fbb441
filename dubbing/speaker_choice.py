"""What `--speaker` says: which of the faces of a video is meant."""

from __future__ import annotations

import re
from collections.abc import Iterable
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


def mapped(items: Iterable[str]) -> dict[str, str]:
    """{speaker: speech} of values of `--map`, "SPEAKER=AUDIO" each.

    Raises:
        OptionInvalid: one is not of that form, names nobody, or a speaker twice.
    """
    found: dict[str, str] = {}
    for item in items:
        who, sign, path = item.partition("=")
        if not sign or not path:
            raise OptionInvalid(f"--map {item}: it has to be SPEAKER=AUDIO")
        SpeakerChoice.parse(who)
        if who in found:
            raise OptionInvalid(f"--map names speaker {who} twice")
        found[who] = path
    return found
