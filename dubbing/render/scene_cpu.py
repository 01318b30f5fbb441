"""Where target pixels lie in their references, for the CPU: one pass over the pixels."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from dubbing.compiled import compiled

Floats = NDArray[np.float32]
Integers = NDArray[np.int64]


@compiled
def found_places(
    triangle: Integers, weights: Floats, corners: Integers, attributes: Floats, shift: Integers
) -> tuple[Floats, Floats]:
    """Place [B, N, h, w, 2] and cost [B, N, h, w], see `models.renderer.Correspondence`.

    Args:
        triangle [B, h, w], weights and corners [B, h, w, 3]: see `geometry.raster.Raster`.
        attributes: [B, V, 3 N] x, y in the window of each reference, and cost.
        shift: [B, 2] (y, x) of the raster in the window: where no triangle lies, the same place of
            the window stands in.
    """
    batch, height, width = triangle.shape
    count = attributes.shape[2] // 3
    place = np.empty((batch, count, height, width, 2), np.float32)
    cost = np.zeros((batch, count, height, width), np.float32)
    half = np.float32(0.5)
    mixed = np.empty(attributes.shape[2], np.float32)
    for b in range(batch):
        for y in range(height):
            for x in range(width):
                if triangle[b, y, x] < 0:
                    for n in range(count):
                        place[b, n, y, x, 0] = np.float32(x + shift[b, 1]) + half
                        place[b, n, y, x, 1] = np.float32(y + shift[b, 0]) + half
                    continue
                first = attributes[b, corners[b, y, x, 0]]
                second = attributes[b, corners[b, y, x, 1]]
                third = attributes[b, corners[b, y, x, 2]]
                u, v, w = weights[b, y, x, 0], weights[b, y, x, 1], weights[b, y, x, 2]
                for k in range(len(mixed)):
                    mixed[k] = u * first[k] + v * second[k] + w * third[k]
                for n in range(count):
                    place[b, n, y, x, 0] = mixed[3 * n]
                    place[b, n, y, x, 1] = mixed[3 * n + 1]
                    cost[b, n, y, x] = mixed[3 * n + 2]
    return place, cost
