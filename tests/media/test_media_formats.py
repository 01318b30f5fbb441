"""Pixel formats: what is chosen for an encode, and what is said to be lost."""

from __future__ import annotations

import numpy as np
import pytest
from media_samples import noise_frame, planes_of

from dubbing.media.encoders import (
    choose_pix_fmt,
    encoding_losses,
    profile_options,
    quality_options,
)
from dubbing.media.pixels import has_alpha, native_format
from dubbing.media.planes import convert_format, plane_view


@pytest.mark.parametrize(
    ("name", "alpha"),
    [("yuv420p", False), ("yuva420p", True), ("rgba", True), ("gbrap10le", True), ("gray", False),
     ("pal8", False), ("ya8", True)],
)  # fmt: skip
def test_alpha_is_known(name: str, alpha: bool) -> None:
    assert has_alpha(name) == alpha


@pytest.mark.parametrize("name", ["rgba64le", "ayuv64le", "ya8", "vuya", "gbrap16le"])
def test_foreign_formats_with_alpha_keep_it(name: str) -> None:
    assert has_alpha(native_format(name))


@pytest.mark.parametrize(
    ("source", "codec", "target"),
    [
        ("yuva444p12le", "ffv1", "yuva444p12le"),
        ("yuva444p12le", "prores_ks", "yuva444p10le"),
        ("yuva444p12le", "libvpx-vp9", "yuva420p"),
        ("yuva420p", "libx264", "yuv420p"),
        ("yuva420p", "libx265", "yuv420p"),
        ("yuv422p10le", "prores_ks", "yuv422p10le"),
        ("yuv422p", "dnxhd", "yuv422p"),
        ("yuv420p10le", "dnxhd", "yuv422p10le"),
    ],
)
def test_the_nearest_format_is_chosen(source: str, codec: str, target: str) -> None:
    assert choose_pix_fmt(source, codec, 256, 128) == target


@pytest.mark.parametrize(
    ("source", "codec", "suffix", "said"),
    [
        ("yuv420p", "libx264", ".mp4", []),
        ("yuva420p", "libx264", ".mp4", ["alpha"]),
        ("yuva420p", "libvpx-vp9", ".webm", []),
        ("yuva420p", "libvpx-vp9", ".mp4", ["alpha"]),
        ("yuv444p16le", "libx264", ".mp4", ["10 of 16 bits"]),
        ("yuv422p", "libsvtav1", ".mp4", ["chroma"]),
        ("gbrp", "libx264", ".mkv", ["RGB"]),
        ("yuva444p12le", "ffv1", ".mkv", []),
    ],
)
def test_losses_are_said(source: str, codec: str, suffix: str, said: list[str]) -> None:
    losses = encoding_losses(source, codec, 256, 128, suffix)
    assert len(losses) == len(said)
    for words, loss in zip(said, losses, strict=True):
        assert words in loss


def test_profiles_follow_from_the_format() -> None:
    assert profile_options("prores_ks", "yuv422p10le")["profile"] == "hq"
    assert profile_options("prores_ks", "yuva444p10le")["profile"] == "4444"
    assert profile_options("dnxhd", "yuv422p") == {"profile": "dnxhr_hq"}
    assert profile_options("dnxhd", "yuv422p10le") == {"profile": "dnxhr_hqx"}
    assert profile_options("dnxhd", "yuv444p10le") == {"profile": "dnxhr_444"}
    assert profile_options("libx264", "yuv420p") == {}


def test_quality_0_is_lossless() -> None:
    exact = quality_options("libx264", 0, None)
    assert exact["qp"] == "0" and "crf" not in exact
    assert "lossless=1" in quality_options("libx265", 0, None)["x265-params"]
    assert quality_options("libvpx-vp9", 0, None)["lossless"] == "1"
    assert "qp" not in quality_options("libx264", 1, None)


@pytest.mark.parametrize("color_range", [1, 2])
@pytest.mark.parametrize("wanted", ["yuv420p", "yuv444p", "yuv444p10le"])
def test_grey_keeps_its_samples_in_colour(wanted: str, color_range: int) -> None:
    frame = noise_frame("gray")
    frame.color_range = color_range
    luma = plane_view(convert_format(frame, wanted), 0).astype(float)
    scale = 4 if "10" in wanted else 1
    assert np.abs(luma / scale - plane_view(frame, 0)).max() <= 1
    assert int(convert_format(frame, wanted).color_range) == color_range


@pytest.mark.parametrize("fmt", ["yuv422p10le", "yuvj420p", "gray"])
def test_full_range_is_brought_to_limited(fmt: str) -> None:
    frame = noise_frame(fmt)
    frame.color_range = 2
    plane_view(frame, 0)[:8], plane_view(frame, 0)[8:16] = 0, 1023 if "10" in fmt else 255
    out = convert_format(frame, "yuv422p10le", limited=True)
    luma = plane_view(out, 0)
    assert abs(int(luma[2, 2]) - 64) <= 4 and abs(int(luma[12, 2]) - 940) <= 4
    assert int(out.color_range) == 1
    assert convert_format(out, "yuv422p10le", limited=True) is out


def test_alpha_is_dropped_without_touching_the_rest() -> None:
    frame = noise_frame("yuva420p")
    for a, b in zip(planes_of(frame), planes_of(convert_format(frame, "yuv420p")), strict=False):
        assert np.abs(a.astype(int) - b).max() <= 1
