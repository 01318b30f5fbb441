"""The mesh: MediaPipe's 468 surface vertices, its triangles, and named parts of it.

The triangles are derived from the published edge list. Three holes of the surface (mouth, eyes)
stay open; the mouth has a separate list of triangles, because the inside of the mouth moves with
the inner lips but is black in a PNCC map.
"""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import NDArray

N_VERTICES = 468

UPPER_INNER_LIP = (78, 191, 80, 81, 82, 13, 312, 311, 310, 415, 308)
LOWER_INNER_LIP = (78, 95, 88, 178, 87, 14, 317, 402, 318, 324, 308)
UPPER_OUTER_LIP = (61, 185, 40, 39, 37, 0, 267, 269, 270, 409, 291)
LOWER_OUTER_LIP = (61, 146, 91, 181, 84, 17, 314, 405, 321, 375, 291)
INNER_LIPS = tuple(sorted(set(UPPER_INNER_LIP) | set(LOWER_INNER_LIP)))
OUTER_LIPS = tuple(sorted(set(UPPER_OUTER_LIP) | set(LOWER_OUTER_LIP)))
LIPS = tuple(sorted(set(INNER_LIPS) | set(OUTER_LIPS) | {
    76, 184, 74, 73, 72, 11, 302, 303, 304, 408, 306, 77, 90, 180, 85, 16, 315, 404, 320, 307,
    62, 183, 42, 41, 38, 12, 268, 271, 272, 407, 292, 96, 89, 179, 86, 15, 316, 403, 319, 325,
}))  # fmt: skip

# Clockwise in the image from the middle of the forehead; the chin is 152.
FACE_OVAL = (
    10, 338, 297, 332, 284, 251, 389, 356, 454, 323, 361, 288, 397, 365, 379, 378, 400, 377, 152,
    148, 176, 149, 150, 136, 172, 58, 132, 93, 234, 127, 162, 21, 54, 103, 67, 109,
)  # fmt: skip
CHIN = 152
SUBNASALE = 2
NOSE_TIP = 4
LEFT_EYE_OUTER, RIGHT_EYE_OUTER = 33, 263  # left in the image of an unmirrored frontal face
MOUTH_LEFT, MOUTH_RIGHT = 61, 291
INNER_TOP, INNER_BOTTOM = 13, 14

# Points that move little against the skull while speaking: forehead, temples, nose bridge and
# cheekbones.
RIGID = (
    10, 338, 297, 332, 284, 251, 389, 356, 127, 162, 21, 54, 103, 67, 109, 151, 9, 8, 168, 6, 197,
    195, 5, 122, 351, 196, 419, 3, 248, 108, 337, 69, 299, 104, 333, 68, 298, 71, 301, 139, 368,
    34, 264, 227, 447, 116, 345, 143, 372, 193, 417, 188, 412, 174, 399, 234, 454,
)  # fmt: skip


def mouth_triangles() -> NDArray[np.int64]:
    """Triangles [18, 3] that fill the hole between the inner lips."""
    return strip(UPPER_INNER_LIP, LOWER_INNER_LIP)


def strip(up: tuple[int, ...], low: tuple[int, ...]) -> NDArray[np.int64]:
    """Triangles between two rows of points with the same ends."""
    triangles = [(up[0], up[1], low[1]), (up[-1], low[-2], up[-2])]
    for k in range(1, len(up) - 2):
        triangles.append((up[k], up[k + 1], low[k]))
        triangles.append((up[k + 1], low[k + 1], low[k]))
    return np.array(triangles, np.int64)


@cache
def _surface() -> tuple[tuple[int, int, int], ...]:
    from mediapipe.python.solutions.face_mesh_connections import FACEMESH_TESSELATION

    edges = {(min(e), max(e)) for e in FACEMESH_TESSELATION}
    near: dict[int, set[int]] = {}
    for a, b in edges:
        near.setdefault(a, set()).add(b)
        near.setdefault(b, set()).add(a)
    cliques = [(a, b, c) for a, b in edges for c in near[a] & near[b] if c > b]
    count: dict[tuple[int, int], int] = {}
    for a, b, c in cliques:
        for e in ((a, b), (b, c), (a, c)):
            count[e] = count.get(e, 0) + 1
    # An edge borders two triangles; a clique whose three edges all have three is no face.
    return tuple(
        sorted(t for t in cliques if any(count[e] < 3 for e in (t[:2], t[1:], (t[0], t[2]))))
    )


def surface_triangles() -> NDArray[np.int64]:
    """Triangles [852, 3] of the face surface, vertex indices below 468."""
    return np.array(_surface(), np.int64)


def oriented(triangles: NDArray[np.int64], frontal: NDArray[np.floating]) -> NDArray[np.int64]:
    """The same triangles, wound alike as seen in `frontal` ([V, >=2], x right, y down)."""
    a, b, c = (frontal[triangles[:, k], :2] for k in range(3))
    area = (b - a)[:, 0] * (c - a)[:, 1] - (b - a)[:, 1] * (c - a)[:, 0]
    return np.where((area < 0)[:, None], triangles[:, ::-1], triangles)
