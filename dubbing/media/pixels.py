"""Pixel formats that are composited natively, and the colour matrices between YUV and RGB."""

from __future__ import annotations

import logging
import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

import av
import numpy as np
import numpy.typing as npt

log = logging.getLogger(__name__)

LIMITED, FULL = 1, 2
"""`color_range` code points of ffmpeg."""

UNSPECIFIED = 2
"""H.273 code point of an unspecified matrix, primaries or transfer."""

HD_HEIGHT = 720
"""Pictures without a matrix tag count as BT.601 below this height and as BT.709 from it on."""

Kind = Literal["yuv", "semi", "gray", "rgb_planar", "rgb_packed"]

_PLANAR = re.compile(r"yuv(?P<full>j)?a?(?P<sub>4\d\d)p(?P<depth>\d+)?(le)?")
_SEMI = re.compile(r"p(?P<sub>[024])(?P<depth>10|12|16)(le)?")
_GRAY = re.compile(r"gray(?P<depth>\d+)?(le)?")
_RGB_PLANAR = re.compile(r"gbra?p(?P<depth>\d+)?(le)?")
_SUBSAMPLING = {"420": (1, 1), "422": (1, 0), "444": (0, 0), "440": (0, 1), "411": (2, 0)}
_SUBSAMPLING["410"] = (2, 2)
_SEMI_8BIT = {"nv12": ((1, 1), False), "nv21": ((1, 1), True), "nv16": ((1, 0), False)}
_SEMI_8BIT |= {"nv24": ((0, 0), False), "nv42": ((0, 0), True)}
_PACKED = {
    "rgb24": (3, (0, 1, 2)),
    "bgr24": (3, (2, 1, 0)),
    "rgba": (4, (0, 1, 2)),
    "rgb0": (4, (0, 1, 2)),
    "bgra": (4, (2, 1, 0)),
    "bgr0": (4, (2, 1, 0)),
    "argb": (4, (1, 2, 3)),
    "abgr": (4, (3, 2, 1)),
}
_KR_KB = {
    1: (0.2126, 0.0722),
    4: (0.30, 0.11),
    5: (0.299, 0.114),
    6: (0.299, 0.114),
    7: (0.212, 0.087),
    9: (0.2627, 0.0593),
    10: (0.2627, 0.0593),
}
"""Luma weights of red and blue per H.273 matrix code point."""


@dataclass(frozen=True)
class PixelLayout:
    """Where the samples of one pixel format lie.

    `depth` is bits per sample, `shift` how far a sample is moved up inside its 16-bit word
    (p010), `sub_x`/`sub_y` the log2 of the chroma subsampling, `step` and `channels` the bytes
    per pixel and the byte of R, G, B for packed RGB.
    """

    name: str
    kind: Kind
    depth: int
    shift: int = 0
    sub_x: int = 0
    sub_y: int = 0
    swapped: bool = False
    step: int = 1
    channels: tuple[int, int, int] = (0, 1, 2)
    always_full: bool = False

    @property
    def dtype(self) -> np.dtype[Any]:
        return np.dtype(np.uint8) if self.depth <= 8 else np.dtype("<u2")

    @property
    def peak(self) -> int:
        """Largest sample value."""
        return (1 << self.depth) - 1


@lru_cache(maxsize=128)
def layout_of(name: str) -> PixelLayout | None:
    """The layout of a pixel format (ffmpeg's name), None where it is not composited natively.

    Native: planar YUV (with or without alpha) of 8 to 16 bit little endian at any subsampling,
    nv12/nv21/nv16/nv24/nv42, p010 to p416, gray, planar GBR, packed 8-bit RGB.
    """
    if name in _PACKED:
        step, channels = _PACKED[name]
        return PixelLayout(name, "rgb_packed", 8, step=step, channels=channels)
    if name in _SEMI_8BIT:
        (sub_x, sub_y), swapped = _SEMI_8BIT[name]
        return PixelLayout(name, "semi", 8, sub_x=sub_x, sub_y=sub_y, swapped=swapped)
    if match := _SEMI.fullmatch(name):
        depth = int(match["depth"])
        sub_x, sub_y = {"0": (1, 1), "2": (1, 0), "4": (0, 0)}[match["sub"]]
        return PixelLayout(name, "semi", depth, shift=16 - depth, sub_x=sub_x, sub_y=sub_y)
    if match := _PLANAR.fullmatch(name):
        if match["sub"] not in _SUBSAMPLING:
            return None
        sub_x, sub_y = _SUBSAMPLING[match["sub"]]
        full = bool(match["full"])
        depth = int(match["depth"] or 8)
        return PixelLayout(name, "yuv", depth, sub_x=sub_x, sub_y=sub_y, always_full=full)
    if match := _GRAY.fullmatch(name):
        return PixelLayout(name, "gray", int(match["depth"] or 8))
    if match := _RGB_PLANAR.fullmatch(name):
        return PixelLayout(name, "rgb_planar", int(match["depth"] or 8))
    return None


@lru_cache(maxsize=128)
def native_format(name: str) -> str:
    """`name` itself where it is composited natively, else the nearest format that is.

    Nearest keeps the colour family, the chroma subsampling and at least the bit depth, so the
    one conversion into it loses nothing (palettes and packed YUV) or next to nothing.
    """
    if layout_of(name) is not None:
        return name
    fmt = av.VideoFormat(name, 64, 64)
    depth = max((c.bits for c in fmt.components), default=8)
    depth = next((d for d in (8, 10, 12, 14, 16) if d >= depth), 16)
    suffix = "" if depth == 8 else f"{depth}le"
    alpha = has_alpha(name)
    if fmt.is_rgb or fmt.has_palette or fmt.is_bayer:
        if depth == 8:
            return "rgba" if alpha else "rgb24"
        return f"gbrap{suffix}" if alpha else f"gbrp{suffix}"
    if alpha:
        return "yuva444p" if depth == 8 else f"yuva444p{max(depth, 16)}le"
    chroma = [c for c in fmt.components if c.is_chroma]
    if not chroma:
        return f"gray{suffix}"
    ratio = {(32, 32): "420", (32, 64): "422", (64, 32): "440"}
    sub = ratio.get((chroma[0].width, chroma[0].height), "444")
    return "yuv444p" + suffix if sub == "440" and depth > 8 else f"yuv{sub}p{suffix}"


def is_rgb(name: str) -> bool:
    """Whether the pixel format holds RGB (palettes included)."""
    fmt = av.VideoFormat(name, 16, 16)
    return bool(fmt.is_rgb or fmt.has_palette)


@lru_cache(maxsize=128)
def has_alpha(name: str) -> bool:
    """Whether the pixel format has an alpha channel (a palette's transparency is none)."""
    fmt = av.VideoFormat(name, 16, 16)
    return not fmt.has_palette and any(component.is_alpha for component in fmt.components)


def matrix_code(color_space: int, height: int) -> int:
    """The H.273 matrix that is used for a picture: the tagged one where its weights are known.

    Unspecified, and matrices that are no luma-chroma weighting (YCgCo, ICtCp), count as BT.601
    below 720 rows (stored height) and as BT.709 from there on.
    """
    if color_space in _KR_KB:
        return color_space
    return 6 if height < HD_HEIGHT else 1


def is_full_range(layout: PixelLayout, color_range: int) -> bool:
    """Whether samples span the whole code range. Unspecified YUV and gray count as limited."""
    return layout.always_full or layout.kind.startswith("rgb") or color_range == FULL


@lru_cache(maxsize=64)
def yuv_from_rgb(code: int, full: bool, depth: int) -> npt.NDArray[np.float32]:
    """[3,4] affine matrix from RGB 0..255 to Y, Cb, Cr sample values of `depth` bits."""
    kr, kb = _KR_KB[code]
    luma = np.array([kr, 1 - kr - kb, kb])
    rows = np.stack(
        [
            luma,
            (np.array([0, 0, 1]) - luma) / (2 * (1 - kb)),
            (np.array([1, 0, 0]) - luma) / (2 * (1 - kr)),
        ]
    )
    if full:
        scale = np.full(3, float((1 << depth) - 1))
        offset = np.array([0.0, 1 << (depth - 1), 1 << (depth - 1)])
    else:
        scale = np.array([219.0, 224.0, 224.0]) * 2 ** (depth - 8)
        offset = np.array([16.0, 128.0, 128.0]) * 2 ** (depth - 8)
    affine = np.concatenate([rows * scale[:, None] / 255.0, offset[:, None]], axis=1)
    return affine.astype(np.float32)


@lru_cache(maxsize=64)
def rgb_from_yuv(code: int, full: bool, depth: int) -> npt.NDArray[np.float32]:
    """[3,4] affine matrix from Y, Cb, Cr sample values of `depth` bits to RGB 0..255."""
    forward = yuv_from_rgb(code, full, depth).astype(np.float64)
    inverse = np.linalg.inv(forward[:, :3])
    return np.concatenate([inverse, -inverse @ forward[:, 3:]], axis=1).astype(np.float32)


def swscale_colorspace(code: int) -> int:
    """swscale's own number (SWS_CS_*) of an H.273 matrix."""
    return {1: 1, 4: 4, 5: 5, 6: 5, 7: 7, 9: 9, 10: 9}[code]
