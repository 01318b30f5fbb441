"""A face whose geometry is known: the demo portrait's mesh, deformed by a small linear model."""

from __future__ import annotations

from functools import cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dubbing.demo import demo_portrait
from dubbing.face.detector import FaceDetector
from dubbing.face.landmarks import FaceMesher
from dubbing.geometry.morphable import MorphableModel
from dubbing.geometry.pose import apply_pose
from dubbing.geometry.topology import (
    CHIN,
    INNER_BOTTOM,
    LOWER_INNER_LIP,
    LOWER_OUTER_LIP,
    MOUTH_LEFT,
    MOUTH_RIGHT,
    N_VERTICES,
    SUBNASALE,
    UPPER_INNER_LIP,
    UPPER_OUTER_LIP,
    mouth_triangles,
    oriented,
    surface_triangles,
)
from dubbing.training.morphable import lower_weights

UPPER_LIP = (
    *UPPER_INNER_LIP, *UPPER_OUTER_LIP,
    76, 184, 74, 73, 72, 11, 302, 303, 304, 408, 306, 62, 183, 42, 41, 38, 12, 268, 271, 272, 407,
    292,
)  # fmt: skip
LOWER_LIP = (
    *LOWER_INNER_LIP[1:-1], *LOWER_OUTER_LIP[1:-1],
    77, 90, 180, 85, 16, 315, 404, 320, 307, 96, 89, 179, 86, 15, 316, 403, 319, 325,
)  # fmt: skip


@cache
def portrait_landmarks() -> NDArray[np.float32]:
    """Mesh [478, 3] of the demo portrait in its pixels."""
    portrait = demo_portrait()
    with FaceDetector() as detector, FaceMesher() as mesher:
        points = mesher.landmarks(portrait, detector.detect(portrait)[0])
    assert points is not None
    return points


@cache
def neutral_face() -> Tensor:
    """Canonical face [468, 3]: half its height is 1, its middle the origin, lips closed."""
    face = torch.from_numpy(portrait_landmarks()[:N_VERTICES].copy())
    low, high = face.amin(0), face.amax(0)
    face = (face - (low + high) / 2) * (2 / (high - low)[1])
    # the portrait smiles: raise the lower lip, and less and less what hangs on it, by the gap
    upper, lower = face[list(UPPER_INNER_LIP)], face[list(LOWER_INNER_LIP)]
    gap = np.interp(face[:, 0], upper[:, 0], (lower - upper)[:, 1] - 0.004)
    gap = torch.from_numpy(gap).float() * ((face[:, 0] - upper[0, 0]) > 0)
    gap = gap * (face[:, 0] < upper[-1, 0])
    face[:, 1] -= gap * below_mouth(face)
    return face


def below_mouth(face: Tensor) -> Tensor:
    """[468] 1 on the lower lip, falling to 0.6 at the chin, 0 above the mouth."""
    lip = face[INNER_BOTTOM, 1]
    depth = (face[:, 1] - lip) / (face[CHIN, 1] - lip)
    weight = (1 - 0.4 * depth.clamp(0, 1)) * (face[:, 1] > face[MOUTH_LEFT, 1] + 0.03)
    weight[list(UPPER_LIP)] = 0.0
    weight[list(LOWER_LIP)] = 1.0
    return weight


def expressions(face: Tensor) -> Tensor:
    """Basis [3, 468, 3] that leaves the skull still: jaw drop, wide lips, pushed lips."""
    x, y = face[:, 0], face[:, 1]
    mouth = (face[UPPER_INNER_LIP[5]] + face[LOWER_INNER_LIP[5]]) / 2
    half = (face[MOUTH_RIGHT, 0] - face[MOUTH_LEFT, 0]) / 2
    across = (1 - ((x - mouth[0]) / (1.05 * half)) ** 2).clamp_min(0)
    drop = 0.15 * across * below_mouth(face)
    near = torch.exp(-(((x - mouth[0]) / half) ** 2) - ((y - mouth[1]) / (0.5 * half)) ** 2)
    near = near * (y > face[SUBNASALE, 1])
    zero = torch.zeros_like(x)
    jaw = torch.stack([zero, drop, 0.2 * drop], 1)
    wide = torch.stack([0.3 * near * (x - mouth[0]), zero, zero], 1)
    push = torch.stack([zero, zero, -0.08 * near], 1)
    return torch.stack([jaw, wide, push])


def shapes(face: Tensor) -> Tensor:
    """Basis [2, 468, 3]: broad faces, long lower faces."""
    x, y = face[:, 0], face[:, 1]
    zero = torch.zeros_like(x)
    broad = torch.stack([0.08 * x, zero, 0.03 * x.square()], 1)
    long = torch.stack([zero, 0.1 * (y - face[SUBNASALE, 1]).clamp_min(0), zero], 1)
    return torch.stack([broad, long])


@cache
def face_model() -> MorphableModel:
    """The linear model that makes every synthetic track."""
    face = neutral_face()
    parted = face.clone()
    parted[list(LOWER_INNER_LIP[1:-1]), 1] += 0.2
    return MorphableModel(
        mean=face,
        shape=shapes(face),
        expression=expressions(face),
        triangles=torch.from_numpy(oriented(surface_triangles(), face.numpy()).copy()),
        mouth=torch.from_numpy(oriented(mouth_triangles(), parted.numpy()).copy()),
        lower=lower_weights(face),
    )


def speaking(frames: int, seed: int = 0) -> Tensor:
    """Expressions [frames, 3] of speech: the mouth is closed on about every third frame."""
    random = torch.Generator().manual_seed(seed)
    time = torch.arange(frames) / 25.0
    phase = 6.28 * torch.rand(3, generator=random)
    jaw = (torch.sin(6.28 * 2.1 * time + phase[0]) + 0.3).clamp_min(0)
    wide = torch.sin(6.28 * 1.3 * time + phase[1]) * jaw
    push = torch.sin(6.28 * 0.9 * time + phase[2]) * jaw
    return torch.stack([jaw, wide, push], 1)


def head_motion(frames: int, seed: int = 0, size: float = 90.0) -> Tensor:
    """Smooth poses [frames, 6] of a nodding head whose half height is about `size` pixels."""
    random = torch.Generator().manual_seed(1000 + seed)
    time = torch.arange(frames)[:, None] / 25.0
    speed = 0.3 + 0.5 * torch.rand(6, generator=random)
    wave = torch.sin(6.28 * (speed * time + torch.rand(6, generator=random)))
    reach = torch.tensor([0.10, 0.15, 0.08, 0.03, 6.0, 4.0])
    middle = torch.tensor([0.0, 0.0, 0.0, float(np.log(size)), 160.0, 150.0])
    return middle + reach * wave


def synthetic_track(
    frames: int, seed: int = 0, alpha: tuple[float, float] = (0.0, 0.0), noise: float = 0.0
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Landmarks [T, 468, 3] in pixels with the beta [T, 3], pose [T, 6] and template [468, 3]
    that made them; `noise` in pixels."""
    model = face_model()
    template = model.shape_vertices(torch.tensor(alpha, dtype=torch.float32))
    beta, pose = speaking(frames, seed), head_motion(frames, seed)
    points = apply_pose(model.vertices(template, beta), pose)
    shake = torch.randn(points.shape, generator=torch.Generator().manual_seed(2000 + seed))
    return points + noise * shake, beta, pose, template


def chin_drop(face: Tensor) -> Tensor:
    """Height of the chin below the nose, [...]."""
    return face[..., CHIN, 1] - face[..., SUBNASALE, 1]
