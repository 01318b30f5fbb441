"""Stored pictures and upright pictures: the display matrix and quarter turns.

Phones store a portrait clip lying down and add a display matrix. `rotation` is everywhere the
number of degrees, 0, 90, 180 or 270, by which the *stored* picture is turned **clockwise** to
stand upright. A mirror in the matrix is not undone (a mirrored face is still a face); the whole
matrix travels to the output, so the result is shown exactly like the source.
"""

from __future__ import annotations

import math
from typing import Any

import av
import numpy as np
import numpy.typing as npt

DisplayMatrix = tuple[int, int, int, int, int, int, int, int, int]
"""Nine 16.16 (third column 2.30) fixed-point numbers, as libavutil/display.h defines them."""


def display_matrix(frame: av.VideoFrame) -> DisplayMatrix | None:
    """The display matrix that the decoder attached to `frame`, None where there is none."""
    attached: Any = frame.side_data
    for item in attached:
        if item.type.name == "DISPLAYMATRIX":
            values = np.frombuffer(bytes(item), dtype=np.int32)
            if values.size == 9:
                a, b, u, c, d, v, x, y, w = (int(value) for value in values)
                return (a, b, u, c, d, v, x, y, w)
    return None


def rotation_of(matrix: DisplayMatrix | None) -> int:
    """Degrees (0, 90, 180, 270) to turn the stored picture clockwise, mirrors left aside.

    A matrix that turns by another angle is rounded to the nearest quarter.
    """
    if matrix is None:
        return 0
    a, b, c, d = matrix[0], matrix[1], matrix[3], matrix[4]
    if a * d - b * c < 0:  # mirrored: take the horizontal mirror out first
        a, c = -a, -c
    return round(math.degrees(math.atan2(b, a)) / 90) * 90 % 360


def rotate_region(region: npt.NDArray[Any], rotation: int) -> npt.NDArray[Any]:
    """Turn an array [H,W] or [H,W,C] clockwise by `rotation` degrees (a multiple of 90).

    `rotate_region(stored, rotation)` stands upright; `rotate_region(upright, -rotation)` is the
    stored orientation again. The result may be a view.
    """
    if rotation % 90:
        raise ValueError(f"rotation must be a multiple of 90, got {rotation}")
    return np.rot90(region, k=-(rotation // 90) % 4)


def upright_size(width: int, height: int, rotation: int) -> tuple[int, int]:
    """(width, height) of a stored picture of that size after standing it upright."""
    return (height, width) if rotation % 180 else (width, height)


def upright_to_stored_rect(
    x: int, y: int, width: int, height: int, rotation: int, stored_width: int, stored_height: int
) -> tuple[int, int, int, int]:
    """A rectangle (x, y, width, height) of the upright picture, in stored coordinates, pixels."""
    turn = rotation % 360
    if turn == 0:
        return x, y, width, height
    if turn == 90:
        return y, stored_height - x - width, height, width
    if turn == 180:
        return stored_width - x - width, stored_height - y - height, width, height
    if turn == 270:
        return stored_width - y - height, x, height, width
    raise ValueError(f"rotation must be a multiple of 90, got {rotation}")


def stored_to_upright_rect(
    x: int, y: int, width: int, height: int, rotation: int, stored_width: int, stored_height: int
) -> tuple[int, int, int, int]:
    """The inverse of `upright_to_stored_rect`."""
    upright_width, upright_height = upright_size(stored_width, stored_height, rotation)
    return upright_to_stored_rect(
        x, y, width, height, -rotation % 360, upright_width, upright_height
    )
