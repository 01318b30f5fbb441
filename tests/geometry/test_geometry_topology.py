"""The mesh is one sheet with three holes, wound alike; the mouth's triangles close one hole."""

from __future__ import annotations

from collections import Counter

import numpy as np
import torch
from synthetic_face import neutral_face

from dubbing.geometry.topology import (
    FACE_OVAL,
    INNER_LIPS,
    LOWER_INNER_LIP,
    N_VERTICES,
    UPPER_INNER_LIP,
    mouth_triangles,
    oriented,
    surface_triangles,
)

torch.set_num_threads(1)


def edge_counts(triangles: np.ndarray) -> Counter[tuple[int, int]]:
    return Counter(
        (min(a, b), max(a, b))
        for t in triangles.tolist()
        for a, b in ((t[0], t[1]), (t[1], t[2]), (t[2], t[0]))
    )


def border_loops(triangles: np.ndarray) -> list[set[int]]:
    """Vertices of each closed border."""
    near: dict[int, set[int]] = {}
    for (a, b), count in edge_counts(triangles).items():
        if count == 1:
            near.setdefault(a, set()).add(b)
            near.setdefault(b, set()).add(a)
    assert all(len(n) == 2 for n in near.values())
    loops = []
    while near:
        loop, front = set(), {next(iter(near))}
        while front:
            loop |= front
            front = {n for v in front for n in near.pop(v)} - loop
        loops.append(loop)
    return loops


def mouth_loop() -> set[int]:
    return set(INNER_LIPS)


def test_surface_is_a_disc_with_three_holes() -> None:
    triangles = surface_triangles()
    assert triangles.shape == (852, 3)
    assert len({frozenset(t) for t in triangles.tolist()}) == 852
    edges = edge_counts(triangles)
    assert set(edges.values()) == {1, 2}  # a surface, nowhere three sheets in one edge
    assert set(triangles.ravel().tolist()) == set(range(N_VERTICES))
    assert N_VERTICES - len(edges) + len(triangles) == 1 - 3  # Euler characteristic
    loops = border_loops(triangles)
    assert len(loops) == 4
    assert set(FACE_OVAL) in loops
    assert mouth_loop() in loops
    eyes = [loop for loop in loops if loop not in (set(FACE_OVAL), mouth_loop())]
    assert sorted(33 in eye for eye in eyes) == [False, True]
    assert sorted(263 in eye for eye in eyes) == [False, True]


def test_mouth_triangles_fill_the_hole_between_the_inner_lips() -> None:
    mouth = mouth_triangles()
    assert mouth.shape == (18, 3)
    assert border_loops(mouth) == [mouth_loop()]
    closed = np.concatenate([surface_triangles(), mouth])
    assert set(edge_counts(closed).values()) == {1, 2}
    assert len(border_loops(closed)) == 3
    # no overlap: their areas on an open mouth add up to the polygon's
    face = neutral_face().numpy().copy()
    face[list(LOWER_INNER_LIP[1:-1]), 1] += 0.2
    ring = face[[*UPPER_INNER_LIP, *LOWER_INNER_LIP[-2:0:-1]], :2].astype(np.float64)
    after = np.roll(ring, -1, 0)
    polygon = abs((ring[:, 0] * after[:, 1] - ring[:, 1] * after[:, 0]).sum()) / 2
    assert np.isclose(np.abs(areas(face, mouth)).sum(), polygon, rtol=1e-4)


def areas(face: np.ndarray, triangles: np.ndarray) -> np.ndarray:
    a, b, c = (face[triangles[:, k], :2].astype(np.float64) for k in range(3))
    return ((b - a)[:, 0] * (c - a)[:, 1] - (b - a)[:, 1] * (c - a)[:, 0]) / 2


def test_oriented_triangles_keep_their_corners_and_turn_alike() -> None:
    face = neutral_face().numpy()
    given = surface_triangles()
    turned = oriented(given, face)
    assert (areas(face, turned) >= 0).all()
    assert (np.sort(turned, 1) == np.sort(given, 1)).all()
    # on a consistently wound sheet no directed edge occurs twice
    directed = [tuple(e) for t in turned.tolist() for e in zip(t, t[1:] + t[:1], strict=True)]
    assert len(set(directed)) > 0.98 * len(directed)  # a few triangles are folded over


def test_the_outline_runs_once_around_the_face() -> None:
    face = neutral_face().numpy()
    ring = face[list(FACE_OVAL), :2]
    angle = np.unwrap(np.arctan2(ring[:, 1], ring[:, 0]))
    assert (np.diff(angle) > 0).all()  # clockwise in an image whose y points down
    assert 1.8 * np.pi < angle[-1] - angle[0] < 2 * np.pi
