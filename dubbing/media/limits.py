"""How large an input may be: what a file's header promises is checked before memory is taken."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

from dubbing.errors import InputTooLarge

MAX_PIXELS = 8192 * 8192
"""Pixels of one picture: 8K has half of them."""

MAX_SECONDS = 6 * 3600
"""Six hours: speech takes 64 kB of memory per second, motion 80."""


@dataclass(frozen=True)
class Limits:
    """What is accepted as input: `pixels` per picture, `seconds` of picture or sound."""

    pixels: int = MAX_PIXELS
    seconds: float = MAX_SECONDS

    def check_size(self, width: int, height: int, path: str | Path) -> None:
        """
        Raises:
            InputTooLarge: the picture has more than `pixels` pixels.
        """
        if width * height > self.pixels:
            raise InputTooLarge(
                f"pictures of {width} x {height} are over the limit of {self.pixels} pixels",
                path=path,
                hint="--max-pixels raises it",
            )

    def check_time(self, seconds: Fraction | float, path: str | Path) -> None:
        """
        Raises:
            InputTooLarge: more than `seconds`.
        """
        if seconds > self.seconds:
            raise InputTooLarge(
                f"{float(seconds):.0f} s are over the limit of {self.seconds:.0f} s",
                path=path,
                hint="--max-duration raises it",
            )


DEFAULT_LIMITS = Limits()
