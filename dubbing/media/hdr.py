"""HDR10's static metadata: the screen a film was graded on, and how bright it gets.

It has two places. H.264, HEVC and AV1 carry it in the coded pictures, if their encoder is told;
every container of ours has a box for it, which ffmpeg fills, if the program is told. Metadata that
changes from scene to scene (HDR10+, Dolby Vision) is not carried over.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import av

Point = tuple[Fraction, Fraction]
"""x, y in the CIE 1931 diagram."""

_DYNAMIC = {
    "DYNAMIC_HDR_PLUS": "HDR10+",
    "DYNAMIC_HDR_VIVID": "HDR Vivid",
    "DOVI_METADATA": "Dolby Vision",
    "DOVI_RPU_BUFFER": "Dolby Vision",
}
_CODED = ("libx264", "libx265", "libsvtav1")
"""Encoders that can write it into the coded pictures."""

CHROMA_UNIT = Fraction(1, 50_000)
"""Of a coordinate, in HEVC's message and in the texts made of it."""

LUMINANCE_UNIT = Fraction(1, 10_000)
"""cd/m2, likewise."""


@dataclass(frozen=True)
class MasteringDisplay:
    """The screen (SMPTE ST 2086).

    Attributes:
        red, green, blue, white: its primaries and white point.
        darkest, brightest: cd/m2.
    """

    red: Point
    green: Point
    blue: Point
    white: Point
    darkest: Fraction
    brightest: Fraction

    def text(self) -> str:
        """In whole units, as x264, x265 and ffmpeg spell it."""
        return self._spelt(
            lambda value: str(round(value / CHROMA_UNIT)),
            lambda value: str(round(value / LUMINANCE_UNIT)),
        )

    def decimal_text(self) -> str:
        """In decimal numbers, as SVT-AV1 spells it."""
        return self._spelt(lambda value: f"{float(value):.5f}", lambda value: f"{float(value):.4f}")

    def _spelt(self, chroma: Any, luminance: Any) -> str:
        points = (("G", self.green), ("B", self.blue), ("R", self.red), ("WP", self.white))
        places = "".join(f"{name}({chroma(x)},{chroma(y)})" for name, (x, y) in points)
        return f"{places}L({luminance(self.brightest)},{luminance(self.darkest)})"


@dataclass(frozen=True)
class HdrMetadata:
    """What the source says of its light.

    Attributes:
        display: None where it does not say.
        light: greatest light of a pixel and greatest mean of a frame, cd/m2; None likewise.
        dynamic: names of what changes from scene to scene.
    """

    display: MasteringDisplay | None = None
    light: tuple[int, int] | None = None
    dynamic: tuple[str, ...] = ()

    @property
    def static(self) -> bool:
        """Whether there is anything that can be carried over."""
        return self.display is not None or self.light is not None

    def encoder_options(self, codec: str) -> dict[str, str]:
        """Options with which that encoder writes it into its pictures; {} where it can't."""
        display = self.display.text() if self.display else ""
        light = f"{self.light[0]},{self.light[1]}" if self.light else ""
        if codec == "libx264":
            return _params("x264-params", {"mastering-display": display, "cll": light})
        if codec == "libx265":
            return _params("x265-params", {"master-display": display, "max-cll": light})
        if codec == "libsvtav1":
            screen = self.display.decimal_text() if self.display else ""
            names = {"mastering-display": screen, "content-light": light}
            return _params("svtav1-params", names)
        return {}

    def muxer_options(self) -> dict[str, str]:
        """Options of ffmpeg's input whose first picture stream it is said of."""
        found = {}
        if self.display is not None:
            found["mastering_display:v:0"] = self.display.text()
        if self.light is not None:
            found["content_light:v:0"] = f"{self.light[0]},{self.light[1]}"
        return found

    def losses(self, codec: str, boxed: bool) -> list[str]:
        """What of it a result does not have, in words for the user.

        Args:
            codec: the encoder.
            boxed: whether the ffmpeg program fills the container's box.
        """
        lost = [f"{name} metadata is not kept: it changes from scene to scene"
                for name in self.dynamic]  # fmt: skip
        if self.static and not boxed and codec not in _CODED:
            lost.append(
                "HDR10 metadata (mastering display, content light level) is not kept: this ffmpeg "
                f"program can't write it beside {codec} pictures; a newer one can, and "
                f"{', '.join(_CODED)} need not"
            )
        return lost


def _params(option: str, values: dict[str, str]) -> dict[str, str]:
    text = ":".join(f"{name}={value}" for name, value in values.items() if value)
    return {option: text} if text else {}


def merged_options(first: dict[str, str], second: dict[str, str]) -> dict[str, str]:
    """Encoder options of both; parameter lists ("x265-params") that both have are joined."""
    joined = {
        name: f"{first[name]}:{value}"
        for name, value in second.items()
        if name in first and name.endswith("-params")
    }
    return first | second | joined


def hdr_metadata(frame: av.VideoFrame) -> HdrMetadata | None:
    """What the decoder has attached to a frame; None where there is nothing of the kind.

    A mastering display that is not complete is left out: encoders take it as a whole.
    """
    attached: Any = frame.side_data
    display = light = None
    dynamic = []
    for item in attached:
        name = item.type.name
        if name == "MASTERING_DISPLAY_METADATA":
            display = _display(bytes(item))
        elif name == "CONTENT_LIGHT_LEVEL":
            most, mean = struct.unpack_from("=2I", bytes(item))
            light = (most, mean) if most or mean else None
        elif name in _DYNAMIC:
            dynamic.append(_DYNAMIC[name])
    found = HdrMetadata(display, light, tuple(dict.fromkeys(dynamic)))
    return found if found != HdrMetadata() else None


def _display(data: bytes) -> MasteringDisplay | None:
    """From libavutil's AVMasteringDisplayMetadata: ten fractions and two flags."""
    *numbers, primaries, luminance = struct.unpack_from("=22i", data)
    pairs = list(zip(numbers[::2], numbers[1::2], strict=True))
    if not (primaries and luminance) or any(below <= 0 for _, below in pairs):
        return None
    value = [Fraction(above, below) for above, below in pairs]
    red, green, blue, white = ((value[k], value[k + 1]) for k in range(0, 8, 2))
    return MasteringDisplay(red, green, blue, white, value[8], value[9])
