"""The stabilised square around a face, in which the renderer works."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter1d

from dubbing.geometry.topology import FACE_OVAL

SIDE_SCALE = 1.5  # crop side / longer side of the face: room for the jaw to drop and for the neck
CENTRE_SIGMA = 2.0  # frames
SIDE_SIGMA = 10.0  # frames


def crop_boxes(landmarks: NDArray[np.float32]) -> NDArray[np.float32]:
    """Crop squares for consecutive frames of one track.

    Args:
        landmarks: [T, >=468, >=2] pixels.

    Returns:
        [T, 3] float32: left, top and side of the square in (sub-)pixels, smoothed over time so
        that the picture in the crop does not shake with landmark noise.
    """
    oval = landmarks[:, FACE_OVAL, :2].astype(np.float64)
    low, high = oval.min(1), oval.max(1)
    side = (high - low).max(1) * SIDE_SCALE
    centre = (low + high) / 2
    if len(landmarks) > 1:
        side = gaussian_filter1d(side, SIDE_SIGMA, mode="nearest")
        centre = gaussian_filter1d(centre, CENTRE_SIGMA, axis=0, mode="nearest")
    return np.concatenate([centre - side[:, None] / 2, side[:, None]], 1).astype(np.float32)


def cut_crop(rgb: NDArray[np.uint8], box: NDArray[np.float32], size: int) -> NDArray[np.uint8]:
    """The square `box` (left, top, side) of `rgb` [H, W, 3], resampled to [size, size, 3].

    Large squares are averaged down, small ones interpolated; outside the frame the border repeats.
    """
    left, top, side = (float(v) for v in box)
    scale_x = scale_y = size / side
    if scale_x < 0.75:
        rgb, shrink_x, shrink_y, x0, y0 = _area_reduced(rgb, left, top, side, size)
        left, top = (left - x0) * shrink_x, (top - y0) * shrink_y
        scale_x, scale_y = scale_x / shrink_x, scale_y / shrink_y
    # pixel centres: u + 0.5 = scale * (x + 0.5 - left)
    shift_x, shift_y = scale_x * (0.5 - left) - 0.5, scale_y * (0.5 - top) - 0.5
    matrix = np.array([[scale_x, 0, shift_x], [0, scale_y, shift_y]], np.float64)
    crop = cv2.warpAffine(
        rgb, matrix, (size, size), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
    )
    return crop.astype(np.uint8)


def _area_reduced(
    rgb: NDArray[np.uint8], left: float, top: float, side: float, size: int
) -> tuple[NDArray[np.uint8], float, float, int, int]:
    """The square's surroundings averaged down, its factors across and down, and where it began."""
    height, width = rgb.shape[:2]
    margin = 4 * side / size
    x0, y0 = max(int(left - margin), 0), max(int(top - margin), 0)
    x1 = min(int(left + side + margin) + 1, width)
    y1 = min(int(top + side + margin) + 1, height)
    part = rgb[y0:y1, x0:x1]
    target = (
        max(round(part.shape[1] * size / side), 1),
        max(round(part.shape[0] * size / side), 1),
    )
    scale_x, scale_y = target[0] / part.shape[1], target[1] / part.shape[0]
    small = cv2.resize(part, target, interpolation=cv2.INTER_AREA).astype(np.uint8)
    return small, scale_x, scale_y, x0, y0


def to_crop(points: NDArray[np.float32], boxes: NDArray[np.float32]) -> NDArray[np.float32]:
    """Points [T, V, >=2] from frame pixels to 0..1 of their crops [T, 3]; z scales along."""
    side = boxes[:, None, 2:3]
    out = points.astype(np.float32) / side
    out[..., :2] -= boxes[:, None, :2] / side
    return out
