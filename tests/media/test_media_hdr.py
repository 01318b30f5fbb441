"""HDR10 metadata as texts, as what a decoder attaches, and as what is said to be lost.

Files that carry it: `dubbing/evaluation/cases/hdr.py`.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any

import pytest

from dubbing.evaluation.cases.hdr import LIGHT
from dubbing.media import ffmpeg
from dubbing.media.encoders import tag_losses
from dubbing.media.hdr import HdrMetadata, hdr_metadata, merged_options
from dubbing.media.probe import VideoStreamInfo

DISPLAY = "G(13250,34500)B(7500,3000)R(34000,16000)WP(15635,16450)L(10000000,50)"


@dataclass(frozen=True)
class Kind:
    name: str


@dataclass(frozen=True)
class Attached:
    """What PyAV gives: a type, and bytes."""

    type: Kind
    data: bytes

    def __bytes__(self) -> bytes:
        return self.data


@dataclass(frozen=True)
class Frame:
    side_data: list[Attached]


def frame(**attached: bytes) -> Any:
    return Frame([Attached(Kind(name), data) for name, data in attached.items()])


def screen(flags: tuple[int, int] = (1, 1), below: int = 50_000) -> bytes:
    """libavutil's struct of `LIGHT`'s display."""
    places = [34000, 16000, 13250, 34500, 7500, 3000, 15635, 16450]
    numbers = [part for value in places for part in (value, below)]
    return struct.pack("=22i", *numbers, 50, 10_000, 1000, 1, *flags)


def test_what_a_decoder_attaches_is_read() -> None:
    light = struct.pack("=2I", 1000, 400)
    found = hdr_metadata(
        frame(MASTERING_DISPLAY_METADATA=screen(), CONTENT_LIGHT_LEVEL=light, A53_CC=b"x")
    )
    assert found == LIGHT
    assert hdr_metadata(frame()) is None
    assert hdr_metadata(frame(A53_CC=b"x")) is None


@pytest.mark.parametrize("broken", [screen((1, 0)), screen((0, 1)), screen(below=0)])
def test_a_display_that_is_not_complete_is_left_out(broken: bytes) -> None:
    nothing = struct.pack("=2I", 0, 0)
    attached = frame(MASTERING_DISPLAY_METADATA=broken, CONTENT_LIGHT_LEVEL=nothing)
    assert hdr_metadata(attached) is None


def test_the_spelling_of_every_encoder() -> None:
    assert LIGHT.muxer_options() == {
        "mastering_display:v:0": DISPLAY, "content_light:v:0": "1000,400"
    }  # fmt: skip
    assert LIGHT.encoder_options("libx264") == {
        "x264-params": f"mastering-display={DISPLAY}:cll=1000,400"
    }
    assert LIGHT.encoder_options("libx265") == {
        "x265-params": f"master-display={DISPLAY}:max-cll=1000,400"
    }
    (text,) = LIGHT.encoder_options("libsvtav1").values()
    assert "WP(0.31270,0.32900)L(1000.0000,0.0050)" in text
    assert LIGHT.encoder_options("ffv1") == {}
    only_light = replace(LIGHT, display=None)
    assert only_light.encoder_options("libx265") == {"x265-params": "max-cll=1000,400"}
    assert only_light.muxer_options() == {"content_light:v:0": "1000,400"}


def test_parameter_lists_are_joined() -> None:
    first = {"x265-params": "log-level=error", "crf": "3"}
    assert merged_options(first, {"x265-params": "max-cll=1,1", "crf": "4"}) == {
        "x265-params": "log-level=error:max-cll=1,1", "crf": "4"
    }  # fmt: skip


def test_what_is_lost_is_said() -> None:
    assert LIGHT.losses("prores_ks", boxed=True) == []
    assert LIGHT.losses("libx264", boxed=False) == []
    (said,) = LIGHT.losses("prores_ks", boxed=False)
    assert "HDR10 metadata" in said and "libx265" in said
    plus = hdr_metadata(frame(DYNAMIC_HDR_PLUS=b"", DOVI_METADATA=b"", DOVI_RPU_BUFFER=b""))
    assert plus == HdrMetadata(dynamic=("HDR10+", "Dolby Vision"))
    assert [words.split()[0] for words in plus.losses("libx265", True)] == ["HDR10+", "Dolby"]
    assert not plus.static


def test_colour_tags_that_a_container_drops_are_said() -> None:
    wide = VideoStreamInfo(
        0, "hevc", 64, 48, "yuv420p10le", 10, Fraction(1, 25), 0, None, None,
        color_space=9, color_primaries=9, color_trc=16,
    )  # fmt: skip
    assert tag_losses(wide, wide) == []
    (said,) = tag_losses(wide, replace(wide, codec="dnxhd", color_space=1, color_trc=2))
    assert "matrix 9 is read as 1, transfer 16 is read as 2" in said
    assert tag_losses(replace(wide, color_space=2), replace(wide, color_space=1)) == []
    assert tag_losses(replace(wide, pix_fmt="gbrp"), replace(wide, color_space=1)) == []


def test_options_of_the_program_are_known() -> None:
    assert ffmpeg.knows_option("itsoffset")
    assert not ffmpeg.knows_option("mastering")
    assert not ffmpeg.knows_option("no_such_option")
