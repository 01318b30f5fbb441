"""The rasteriser's loop for the CPU, triangle by triangle; see `raster.rasterize`."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from dubbing.compiled import compiled

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]
Integers = NDArray[np.int64]

NOTHING = np.iinfo(np.int64).max
SLACK = 1e-7  # an edge through a pixel centre belongs to both its triangles


@compiled
def fill(
    vertices: Doubles, triangles: Integers, one_sided: NDArray[np.bool_], height: int, width: int,
    levels: int,
) -> tuple[Integers, Floats, Integers]:  # fmt: skip
    """Triangle [B, H, W], weights [B, H, W, 3] and corners [B, H, W, 3], see `raster.Raster`.

    Args:
        vertices: [B, V, 3]; triangles: [F, 3]; one_sided: [F] or empty.
        levels: of the depth.
    """
    batch, count = len(vertices), len(triangles)
    best = np.full((batch, height, width), NOTHING, np.int64)
    owner = np.full((batch, height, width), -1, np.int64)
    weights = np.zeros((batch, height, width, 3), np.float32)
    corners = np.zeros((batch, height, width, 3), np.int64)
    near, far = math.inf, -math.inf
    for frame in range(batch):
        for face in range(count):
            for k in range(3):
                z = vertices[frame, triangles[face, k], 2]
                near, far = min(near, z), max(far, z)
    depth = max(far - near, 1e-9)
    plane = np.empty((4, 3), np.float64)
    flat = np.empty((4, 3), np.float32)
    for frame in range(batch):
        for face in range(count):
            a, b, c = triangles[face]
            ax, ay = vertices[frame, a, 0], vertices[frame, a, 1]
            bx, by = vertices[frame, b, 0], vertices[frame, b, 1]
            cx, cy = vertices[frame, c, 0], vertices[frame, c, 1]
            area = (bx - ax) * (cy - ay) - (by - ay) * (cx - ax)
            if not abs(area) > 1e-9 or (len(one_sided) and one_sided[face] and area <= 0):
                continue
            scale = 1 / area
            edges = ((bx, by, cx, cy), (cx, cy, ax, ay), (ax, ay, bx, by))
            for k in range(3):
                px, py, qx, qy = edges[k]
                dx, dy = py - qy, qx - px
                plane[k, 0] = dx * scale
                plane[k, 1] = dy * scale
                plane[k, 2] = -(dx * px + dy * py) * scale
            z0 = (vertices[frame, a, 2] - near) / depth
            z1 = (vertices[frame, b, 2] - near) / depth
            z2 = (vertices[frame, c, 2] - near) / depth
            for m in range(3):
                plane[3, m] = plane[0, m] * z0 + plane[1, m] * z1 + plane[2, m] * z2
            for k in range(4):
                for m in range(3):
                    flat[k, m] = np.float32(plane[k, m])
            first, last = _pixels(min(ay, by, cy), max(ay, by, cy), height)
            low, high = min(ax, bx, cx), max(ax, bx, cx)
            for y in range(first, last + 1):
                left, right = _row(plane, low, high, y + 0.5)
                if not left <= right:
                    continue
                x0, x1 = _pixels(left, right, width)
                py32 = np.float32(y + 0.5)
                for x in range(x0, x1 + 1):
                    px32 = np.float32(x + 0.5)
                    z = flat[3, 0] * px32 + flat[3, 1] * py32 + flat[3, 2]
                    z = min(max(z, np.float32(0)), np.float32(1))
                    key = np.int64(np.float64(z) * (levels - 1)) * count + face
                    if key < best[frame, y, x]:
                        best[frame, y, x] = key
                        owner[frame, y, x] = face
                        for k in range(3):
                            weights[frame, y, x, k] = (
                                flat[k, 0] * px32 + flat[k, 1] * py32 + flat[k, 2]
                            )
                            corners[frame, y, x, k] = triangles[face, k]
    return owner, weights, corners


@compiled
def _pixels(low: float, high: float, size: int) -> tuple[int, int]:
    """First and last pixel whose centre lies in [low, high], cut to 0..size - 1."""
    first = min(max(math.ceil(low - 0.5 - SLACK), 0), size)
    last = min(max(math.floor(high - 0.5 + SLACK), -1), size - 1)
    return first, last


@compiled
def _row(plane: Doubles, low: float, high: float, y: float) -> tuple[float, float]:
    """Where the row of pixel centres `y` crosses a triangle, left > right where it does not."""
    left, right = low, high
    for k in range(3):
        slope = plane[k, 0]
        rest = plane[k, 1] * y + plane[k, 2]
        if abs(slope) < 1e-12:
            if rest < -1e-9:
                return 1.0, 0.0
        elif slope > 0:
            left = max(left, -rest / slope)
        else:
            right = min(right, -rest / slope)
    return left, right
