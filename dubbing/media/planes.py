"""Compositing in the frame's own planes.

The picture is never sent through RGB and back: only the rendered region is converted, with the
frame's matrix and range, and blended where alpha says so. Every sample with alpha 0 is equal to
the source's bit by bit (for chroma: where the whole subsampling block has alpha 0).
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import av
import cv2
import numpy as np
import numpy.typing as npt

from dubbing.media.converter import reformat
from dubbing.media.pixels import (
    FULL,
    LIMITED,
    PixelLayout,
    has_alpha,
    is_full_range,
    is_rgb,
    layout_of,
    matrix_code,
    native_format,
    rgb_from_yuv,
    swscale_colorspace,
    yuv_from_rgb,
)
from dubbing.media.rotation import (
    rotate_region,
    stored_to_upright_rect,
    upright_size,
    upright_to_stored_rect,
)

__all__ = [
    "convert_format",
    "copy_frame",
    "frame_rgb",
    "paste_region",
    "paste_upright",
    "plane_view",
    "rgb_region",
    "rgb_region_upright",
    "rotate_region",
    "stored_to_upright_rect",
    "to_native",
    "upright_size",
    "upright_to_stored_rect",
]

FloatArray = npt.NDArray[np.float32]


def paste_region(
    frame: av.VideoFrame,
    rgb: npt.NDArray[np.float32] | npt.NDArray[np.uint8],
    alpha: npt.NDArray[np.float32],
    x: int,
    y: int,
) -> av.VideoFrame:
    """A new frame with `rgb` blended over the region at (x, y); `frame` is left as it is.

    Args:
        frame: decoded frame, any pixel format. Formats that are not native (see
            `pixels.layout_of`) are converted once to `pixels.native_format`, which is then the
            format of the result.
        rgb: [h,w,3] RGB 0..255, float32 or uint8, in the *stored* orientation.
        alpha: [h,w] float32 0..1; 0 keeps the source's samples exactly.
        x, y: column and row of the region's corner in the stored picture; parts of the region
            outside the picture are left out.

    Returns:
        A frame of the same size, PTS, time base and colour tags.

    Raises:
        ValueError: shapes do not agree, or a value is not finite.
    """
    rgb_f, alpha_f = _checked(rgb, alpha)
    source = to_native(frame)
    layout = _layout(source)
    out = copy_frame(source)
    left, top = max(0, -x), max(0, -y)
    right = min(rgb_f.shape[1], source.width - x)
    bottom = min(rgb_f.shape[0], source.height - y)
    if left >= right or top >= bottom:
        return out
    rgb_f, alpha_f = rgb_f[top:bottom, left:right], alpha_f[top:bottom, left:right]
    x, y = x + left, y + top
    if layout.kind == "rgb_packed":
        view = plane_view(out, 0)[y : y + rgb_f.shape[0], x : x + rgb_f.shape[1]]
        for channel, byte in enumerate(layout.channels):
            _blend(view[..., byte], rgb_f[..., channel], alpha_f, layout)
    elif layout.kind == "rgb_planar":
        for plane, channel in enumerate((1, 2, 0)):
            view = plane_view(out, plane)[y : y + rgb_f.shape[0], x : x + rgb_f.shape[1]]
            _blend(view, rgb_f[..., channel] * (layout.peak / 255.0), alpha_f, layout)
    else:
        _paste_yuv(out, layout, np.ascontiguousarray(rgb_f), alpha_f, x, y)
    return out


def rgb_region(
    frame: av.VideoFrame, x: int, y: int, width: int, height: int
) -> npt.NDArray[np.uint8]:
    """The region as uint8 [height,width,3] RGB, by the same colour arithmetic as `paste_region`.

    Stored orientation. Chroma is repeated over its block, the exact counterpart of the block
    average in `paste_region`, so that pasting a region back changes nothing but rounding.

    Raises:
        ValueError: the region is empty or reaches out of the picture.
    """
    if width < 1 or height < 1 or x < 0 or y < 0:
        raise ValueError(f"bad region {width}x{height} at ({x}, {y})")
    if x + width > frame.width or y + height > frame.height:
        raise ValueError(
            f"region {width}x{height} at ({x}, {y}) reaches out of {frame.width}x{frame.height}"
        )
    source = to_native(frame)
    layout = _layout(source)
    rows, columns = slice(y, y + height), slice(x, x + width)
    if layout.kind == "rgb_packed":
        packed = plane_view(source, 0)[rows, columns]
        return np.ascontiguousarray(packed[..., list(layout.channels)])
    if layout.kind == "rgb_planar":
        planes = [plane_view(source, plane)[rows, columns] for plane in (2, 0, 1)]
        return _to_uint8(np.stack(planes, axis=-1) * np.float32(255.0 / layout.peak))
    luma = (plane_view(source, 0)[rows, columns] >> layout.shift).astype(np.float32)
    matrix = rgb_from_yuv(*_matrix_key(source, layout))
    if layout.kind == "gray":
        gray = luma * matrix[1, 0] + np.float32(matrix[1, 3] + matrix[1, 1:3].sum() * _mid(layout))
        return _to_uint8(np.repeat(gray[..., None], 3, axis=-1))
    chroma = [_upsampled(plane, layout, x, y, width, height) for plane in _chroma(source, layout)]
    return _to_uint8(np.asarray(cv2.transform(cv2.merge([luma, *chroma]), matrix), np.float32))


def paste_upright(
    frame: av.VideoFrame,
    rgb: npt.NDArray[np.float32] | npt.NDArray[np.uint8],
    alpha: npt.NDArray[np.float32],
    x: int,
    y: int,
    rotation: int,
) -> av.VideoFrame:
    """`paste_region` with `rgb`, `alpha`, `x`, `y` in the upright picture's orientation."""
    height, width = rgb.shape[:2]
    stored_x, stored_y, _, _ = upright_to_stored_rect(
        x, y, width, height, rotation, frame.width, frame.height
    )
    return paste_region(
        frame, rotate_region(rgb, -rotation), rotate_region(alpha, -rotation), stored_x, stored_y
    )


def rgb_region_upright(
    frame: av.VideoFrame, x: int, y: int, width: int, height: int, rotation: int
) -> npt.NDArray[np.uint8]:
    """`rgb_region` of a rectangle of the upright picture, uint8 [height,width,3] RGB upright."""
    rect = upright_to_stored_rect(x, y, width, height, rotation, frame.width, frame.height)
    return np.ascontiguousarray(rotate_region(rgb_region(frame, *rect), rotation))


def frame_rgb(
    frame: av.VideoFrame, rotation: int = 0, size: tuple[int, int] | None = None
) -> npt.NDArray[np.uint8]:
    """The whole picture as uint8 [H,W,3] RGB, turned clockwise by `rotation` degrees.

    Uses swscale with the frame's matrix and range (same rules as `rgb_region`, at most a few
    code values apart from it, because it is made for speed).

    Args:
        size: (width, height) of the upright result; None keeps the stored size.
    """
    layout = layout_of(frame.format.name)
    if layout and layout.kind == "gray":  # swscale takes gray for full range, whatever its tag
        gray = rotate_region(rgb_region(frame, 0, 0, frame.width, frame.height), rotation)
        gray = np.ascontiguousarray(gray)
        return np.asarray(cv2.resize(gray, size, interpolation=cv2.INTER_AREA) if size else gray)
    code = matrix_code(int(frame.colorspace), frame.height)
    full = is_full_range(layout, int(frame.color_range)) if layout else frame.color_range == FULL
    width, height = upright_size(*size, rotation) if size else (frame.width, frame.height)
    converted = reformat(
        frame,
        width=width,
        height=height,
        format="rgb24",
        src_colorspace=swscale_colorspace(code),
        src_color_range=FULL if full else LIMITED,
        interpolation="AREA" if size else "BILINEAR",
    )
    array = plane_view(converted, 0)
    return np.ascontiguousarray(rotate_region(array, rotation))


def to_native(frame: av.VideoFrame) -> av.VideoFrame:
    """`frame` itself where its format is composited natively, else converted to the nearest."""
    return convert_format(frame, native_format(frame.format.name))


def convert_format(frame: av.VideoFrame, wanted: str, limited: bool = False) -> av.VideoFrame:
    """The same picture in the pixel format `wanted`; `frame` itself if it has it already.

    Matrix and range stay what they are. yuvj formats and their plain twins differ in name only:
    their samples are copied. RGB becomes limited YUV with the matrix of `matrix_code`.

    Args:
        limited: bring full-range YUV to limited range, for encoders that know no other.
    """
    name = frame.format.name
    source, target = layout_of(name), layout_of(wanted)
    full = is_full_range(source, int(frame.color_range)) if source else frame.color_range == FULL
    narrows = limited and full and not is_rgb(wanted)
    if wanted == name and not narrows:
        return frame
    same_range = (full or not target.always_full) if target else False
    if source and target and same_range and not narrows and _twins(source, target):
        return copy_frame(frame, wanted)
    dst_full = bool(target and target.always_full) or (full and not is_rgb(name))
    dst_full = dst_full and not narrows
    space = swscale_colorspace(matrix_code(int(frame.colorspace), frame.height))
    # swscale takes gray for full range, whatever its tag: told so, it leaves the samples alone
    untouched = source is not None and source.kind == "gray" and full == dst_full
    converted = reformat(
        frame,
        format=wanted,
        src_colorspace=space,
        dst_colorspace=space,
        src_color_range=FULL if full or untouched else LIMITED,
        dst_color_range=FULL if dst_full or untouched else LIMITED,
    )
    _copy_tags(frame, converted)
    if full != dst_full:
        converted.color_range = FULL if dst_full else LIMITED
    return converted


def _twins(a: PixelLayout, b: PixelLayout) -> bool:
    """Whether two formats differ in name and nominal range only."""
    if has_alpha(a.name) != has_alpha(b.name):
        return False
    return replace(a, name="", always_full=False) == replace(b, name="", always_full=False)


def copy_frame(frame: av.VideoFrame, name: str | None = None) -> av.VideoFrame:
    """A new frame with the same samples, PTS, time base, duration and colour tags.

    `name` labels the copy with another pixel format of the same memory layout. The picture type is
    not copied: an encoder decides for itself where key frames go.
    """
    out = av.VideoFrame(frame.width, frame.height, name or frame.format.name)
    for source, target in zip(frame.planes, out.planes, strict=True):
        lines, copy = _lines(source), _lines(target)
        if lines.shape == copy.shape:
            copy[...] = lines
        else:
            width = min(lines.shape[1], copy.shape[1])
            copy[:, :width] = lines[: copy.shape[0], :width]
    _copy_tags(frame, out)
    return out


def plane_view(frame: av.VideoFrame, plane: int) -> npt.NDArray[Any]:
    """The samples of one plane without padding, a view that writes through.

    [rows,columns] of uint8 or little-endian uint16; packed RGB gives [H,W,step], the chroma
    plane of a semi-planar format [rows,columns,2].

    Raises:
        ValueError: the pixel format is not native.
    """
    layout = _layout(frame)
    raw: Any = frame.planes[plane]
    width, height = frame.width, frame.height
    if plane in (1, 2) and layout.kind in ("yuv", "semi"):
        width, height = -(-width >> layout.sub_x), -(-height >> layout.sub_y)
    inner = 2 if layout.kind == "semi" and plane == 1 else layout.step
    lines: npt.NDArray[Any] = np.frombuffer(raw, layout.dtype).reshape(
        -1, raw.line_size // layout.dtype.itemsize
    )
    view = lines[:height, : width * inner]
    return view if inner == 1 else view.reshape(height, width, inner)


def _lines(plane: Any) -> npt.NDArray[np.uint8]:
    """The bytes of a plane as [rows, line size], padding included."""
    return np.frombuffer(plane, np.uint8).reshape(-1, plane.line_size)


def _layout(frame: av.VideoFrame) -> PixelLayout:
    layout = layout_of(frame.format.name)
    if layout is None:
        raise ValueError(f"pixel format {frame.format.name} is not composited natively")
    return layout


def _copy_tags(source: av.VideoFrame, target: av.VideoFrame) -> None:
    target.pts = source.pts
    if source.time_base is not None:
        target.time_base = source.time_base
    target.duration = source.duration
    target.colorspace = source.colorspace
    target.color_range = source.color_range
    target.color_primaries = source.color_primaries
    target.color_trc = source.color_trc


def _checked(rgb: npt.NDArray[Any], alpha: npt.NDArray[Any]) -> tuple[FloatArray, FloatArray]:
    if rgb.ndim != 3 or rgb.shape[2] != 3 or alpha.shape != rgb.shape[:2]:
        raise ValueError(f"rgb {rgb.shape} and alpha {alpha.shape} are not [h,w,3] and [h,w]")
    rgb_f = np.clip(rgb, 0, 255, dtype=np.float32)
    alpha_f = np.clip(alpha, 0, 1, dtype=np.float32)
    if not np.isfinite(rgb_f).all() or not np.isfinite(alpha_f).all():
        raise ValueError("rgb or alpha holds values that are not finite")
    return rgb_f, alpha_f


def _matrix_key(frame: av.VideoFrame, layout: PixelLayout) -> tuple[int, bool, int]:
    code = matrix_code(int(frame.colorspace), frame.height)
    return code, is_full_range(layout, int(frame.color_range)), layout.depth


def _mid(layout: PixelLayout) -> float:
    """The sample value of neutral chroma."""
    return float(1 << (layout.depth - 1))


def _chroma(frame: av.VideoFrame, layout: PixelLayout) -> list[npt.NDArray[Any]]:
    """Writable views of the Cb and the Cr samples."""
    if layout.kind == "yuv":
        return [plane_view(frame, 1), plane_view(frame, 2)]
    both = plane_view(frame, 1)
    first, second = both[..., 0], both[..., 1]
    return [second, first] if layout.swapped else [first, second]


def _upsampled(
    plane: npt.NDArray[Any], layout: PixelLayout, x: int, y: int, width: int, height: int
) -> FloatArray:
    rows = slice(y >> layout.sub_y, ((y + height - 1) >> layout.sub_y) + 1)
    columns = slice(x >> layout.sub_x, ((x + width - 1) >> layout.sub_x) + 1)
    part = (plane[rows, columns] >> layout.shift).astype(np.float32)
    if layout.sub_y:
        part = np.repeat(part, 1 << layout.sub_y, axis=0)
    if layout.sub_x:
        part = np.repeat(part, 1 << layout.sub_x, axis=1)
    top, left = y - (rows.start << layout.sub_y), x - (columns.start << layout.sub_x)
    return np.ascontiguousarray(part[top : top + height, left : left + width])


def _paste_yuv(
    out: av.VideoFrame, layout: PixelLayout, rgb: FloatArray, alpha: FloatArray, x: int, y: int
) -> None:
    height, width = alpha.shape
    yuv: FloatArray = np.asarray(
        cv2.transform(rgb, yuv_from_rgb(*_matrix_key(out, layout))), np.float32
    )
    luma = plane_view(out, 0)[y : y + height, x : x + width]
    _blend(luma, yuv[..., 0], alpha, layout)
    if layout.kind == "gray":
        return
    block_x, block_y = 1 << layout.sub_x, 1 << layout.sub_y
    left, top = x % block_x, y % block_y
    right, bottom = -(x + width) % block_x, -(y + height) % block_y
    if left or top or right or bottom:
        # beyond the region alpha is 0; beyond the picture the last samples stand for the block
        edge_x = x + width == out.width
        edge_y = y + height == out.height
        alpha = _padded(alpha, (top, bottom, left, right), edge_x, edge_y)
        yuv = _padded(yuv, (top, bottom, left, right), edge_x, edge_y)
    size = (alpha.shape[1] // block_x, alpha.shape[0] // block_y)
    weight = _block_mean(alpha, size)
    rows = slice(y >> layout.sub_y, (y >> layout.sub_y) + size[1])
    columns = slice(x >> layout.sub_x, (x >> layout.sub_x) + size[0])
    for channel, plane in enumerate(_chroma(out, layout), start=1):
        colour = _block_mean(yuv[..., channel] * alpha, size)
        _mix(plane[rows, columns], colour, weight, layout)


def _padded(
    array: FloatArray, border: tuple[int, int, int, int], edge_x: bool, edge_y: bool
) -> FloatArray:
    top, bottom, left, right = border
    rows = (0, bottom if edge_y else 0, 0, right if edge_x else 0)
    wide = cv2.copyMakeBorder(array, *rows, cv2.BORDER_REPLICATE)
    zeros = (top, 0 if edge_y else bottom, left, 0 if edge_x else right)
    return np.asarray(cv2.copyMakeBorder(wide, *zeros, cv2.BORDER_CONSTANT, value=0.0), np.float32)


def _block_mean(array: FloatArray, size: tuple[int, int]) -> FloatArray:
    if (array.shape[1], array.shape[0]) == size:
        return array
    return np.asarray(cv2.resize(array, size, interpolation=cv2.INTER_AREA), np.float32)


def _blend(
    target: npt.NDArray[Any], value: FloatArray, alpha: FloatArray, layout: PixelLayout
) -> None:
    """target = (1 - alpha) target + alpha value, in place, exact where alpha is 0."""
    _mix(target, value * alpha, alpha, layout)


def _mix(
    target: npt.NDArray[Any], weighted: FloatArray, weight: FloatArray, layout: PixelLayout
) -> None:
    """target = (1 - weight) target + weighted, in place, exact where weight is 0."""
    samples = (target >> layout.shift) if layout.shift else target
    mixed = samples * (1.0 - weight) + weighted
    np.rint(mixed, out=mixed)
    np.clip(mixed, 0, layout.peak, out=mixed)
    if layout.shift:
        moved = mixed.astype(layout.dtype) << layout.shift
        np.copyto(target, moved, where=weight > 0)  # spare low bits stay as they were elsewhere
    else:
        target[...] = mixed


def _to_uint8(values: FloatArray) -> npt.NDArray[np.uint8]:
    """Round and clip; `values` is used up."""
    np.clip(values, 0, 255, out=values)
    values += 0.5
    return values.astype(np.uint8)
