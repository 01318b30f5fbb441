"""Pictures cut from frames: native regions for copying, resampled windows for the encoders."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from dubbing.render.scene import WINDOW


def window_rect(
    window: NDArray[np.float32], size: tuple[int, int], margin: float = 2.0
) -> tuple[int, int, int, int]:
    """Whole-pixel rectangle (x, y, width, height) of a frame of `size` (width, height) that
    holds the window (left, top, scale); width and height are 0 where they don't meet."""
    left, top, scale = (float(v) for v in window)
    x0 = max(int(np.floor(left - margin)), 0)
    y0 = max(int(np.floor(top - margin)), 0)
    x1 = min(int(np.ceil(left + WINDOW[1] * scale + margin)), size[0])
    y1 = min(int(np.ceil(top + WINDOW[0] * scale + margin)), size[1])
    return x0, y0, max(x1 - x0, 0), max(y1 - y0, 0)


def cut_window(
    region: NDArray[np.uint8], origin: tuple[int, int], window: NDArray[np.float32]
) -> NDArray[np.uint8]:
    """The window [144, 192, 3] of a region that starts at `origin` (x, y) of its frame.

    Large faces are averaged down, small ones interpolated; outside the region its border repeats.
    """
    left, top, scale = (float(v) for v in window)
    left, top = left - origin[0], top - origin[1]
    shrink_x = shrink_y = 1.0
    if scale > 1.3:
        height, width = region.shape[:2]
        size = (max(round(width / scale), 1), max(round(height / scale), 1))
        region = cv2.resize(region, size, interpolation=cv2.INTER_AREA).astype(np.uint8)
        shrink_x, shrink_y = size[0] / width, size[1] / height
    zoom_x, zoom_y = 1 / (scale * shrink_x), 1 / (scale * shrink_y)
    shift_x = (0.5 - left * shrink_x) * zoom_x - 0.5
    shift_y = (0.5 - top * shrink_y) * zoom_y - 0.5
    matrix = np.array([[zoom_x, 0, shift_x], [0, zoom_y, shift_y]], np.float64)
    out = cv2.warpAffine(
        region, matrix, (WINDOW[1], WINDOW[0]),
        flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE,
    )  # fmt: skip
    return out.astype(np.uint8)
