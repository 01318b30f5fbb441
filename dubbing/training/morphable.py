"""Learn the morphable model from tracks: generalised Procrustes, then two linear bases."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from dubbing.errors import NoFaceFound
from dubbing.geometry.morphable import MorphableModel, lip_opening
from dubbing.geometry.pose import align, remove_pose, yaw_pitch_roll
from dubbing.geometry.topology import (
    CHIN,
    FACE_OVAL,
    INNER_LIPS,
    LEFT_EYE_OUTER,
    LIPS,
    MOUTH_LEFT,
    MOUTH_RIGHT,
    N_VERTICES,
    RIGHT_EYE_OUTER,
    RIGID,
    SUBNASALE,
    mouth_triangles,
    oriented,
    surface_triangles,
)

MIRRORED = (
    (LEFT_EYE_OUTER, RIGHT_EYE_OUTER),
    (MOUTH_LEFT, MOUTH_RIGHT),
    (234, 454),  # in front of the ears
)
FOREHEAD = FACE_OVAL[0]
MIN_FRONTAL = 3  # frames within max_yaw that a clip needs to count


@dataclass(frozen=True)
class LearnOptions:
    shape_size: int = 40
    expression_size: int = 48
    frames_per_clip: int = 60
    max_yaw: float = 25.0  # degrees; the mesh of a turned face is less sure
    rounds: int = 4
    lip_weight: float = 4.0  # of lip vertices when the expression basis is learned


def learn(clips: Sequence[Tensor], options: LearnOptions | None = None) -> MorphableModel:
    """Learn mean, shape and expression bases.

    Args:
        clips: landmarks [T, >=468, 3] of one face each, pixels of any scale.

    Raises:
        NoFaceFound: no clip has MIN_FRONTAL frames within `max_yaw`.
    """
    options = options or LearnOptions()
    tracks = [_thin(c[:, :N_VERTICES].float(), options.frames_per_clip) for c in clips]
    rigid = torch.zeros(N_VERTICES)
    rigid[list(RIGID)] = 1.0
    mean = _normalise(_upright(tracks[0][0]))
    for _ in range(options.rounds):
        flat = [_unposed(t, mean, rigid, options.max_yaw) for t in tracks]
        frontal = [k for k, f in enumerate(flat) if len(f) >= MIN_FRONTAL]
        if not frontal:
            raise NoFaceFound("no clip shows a face from the front on enough frames")
        neutrals = torch.stack([_neutral(flat[k]) for k in frontal])
        mean = _normalise(_upright(neutrals.mean(0)))
    # displacement from the clip's own neutral, re-aligned to it so that pose does not leak in
    moved = []
    for k, neutral in zip(frontal, neutrals, strict=True):
        own = _unposed(tracks[k], neutral, rigid, options.max_yaw)
        moved.append(own - neutral)
    triangles = oriented(surface_triangles(), mean.numpy())
    return MorphableModel(
        mean=mean,
        shape=_basis(neutrals - mean, torch.ones(N_VERTICES), options.shape_size),
        expression=_basis(torch.cat(moved), _lip_weights(options), options.expression_size),
        triangles=torch.from_numpy(triangles.copy()),
        mouth=torch.from_numpy(oriented(mouth_triangles(), _opened(mean).numpy()).copy()),
        lower=lower_weights(mean),
    )


def _thin(track: Tensor, count: int) -> Tensor:
    if len(track) <= count:
        return track
    return track[torch.linspace(0, len(track) - 1, count).round().long()]


def _unposed(track: Tensor, model: Tensor, rigid: Tensor, max_yaw: float) -> Tensor:
    pose, points = align(track, model, rigid)
    kept = yaw_pitch_roll(pose)[:, 0].abs() <= max_yaw
    return remove_pose(points[kept], pose[kept])


def _neutral(flat: Tensor) -> Tensor:
    opening = lip_opening(flat)
    return flat[opening <= opening.quantile(0.3)].mean(0)


def _normalise(face: Tensor) -> Tensor:
    """Centre at the middle of the bounding box; half the height becomes 1."""
    low, high = face.amin(0), face.amax(0)
    return (face - (low + high) / 2) * (2 / (high - low)[1])


def _upright(face: Tensor) -> Tensor:
    """Turned so that it looks straight ahead: the axes must not depend on who comes first."""
    across = sum((face[b] - face[a] for a, b in MIRRORED), torch.zeros_like(face[0]))
    across = across / across.norm()
    down = face[CHIN] - face[FOREHEAD]
    down = down - (down @ across) * across
    down = down / down.norm()
    axes = torch.stack([across, down, torch.linalg.cross(across, down)])
    return torch.matmul(face, axes.T)


def _lip_weights(options: LearnOptions) -> Tensor:
    weights = torch.ones(N_VERTICES)
    weights[list(LIPS)] = options.lip_weight
    weights[list(INNER_LIPS)] = 1.5 * options.lip_weight
    return weights


def _basis(displacement: Tensor, weights: Tensor, size: int) -> Tensor:
    """Principal components [size, V, 3] of [N, V, 3], each as long as one standard deviation."""
    weighted = (displacement * weights[:, None]).flatten(1).double()
    covariance = weighted.T @ weighted / len(weighted)
    values, vectors = torch.linalg.eigh(covariance)
    values, vectors = values.flip(0)[:size], vectors.flip(1)[:, :size]
    basis = torch.unflatten((vectors * values.clamp_min(0).sqrt()).T, 1, (-1, 3))
    return (basis / weights[:, None].double()).float()


def _opened(mean: Tensor) -> Tensor:
    """The mean face with parted lips, in which the mouth triangles have an area to orient by."""
    from dubbing.geometry.topology import LOWER_INNER_LIP

    opened = mean.clone()
    opened[list(LOWER_INNER_LIP[1:-1]), 1] += 0.2
    return opened


def lower_weights(mean: Tensor) -> Tensor:
    """[V]: 1 below the nose, 0 above its base, a short ramp between (smooth across the cheeks)."""
    nose, chin = mean[SUBNASALE, 1], mean[CHIN, 1]
    start, stop = nose - 0.02 * (chin - nose), nose + 0.18 * (chin - nose)
    ramp = ((mean[:, 1] - start) / (stop - start)).clamp(0, 1)
    ramp = ramp * ramp * (3 - 2 * ramp)
    ramp[list(LIPS)] = 1.0
    return ramp
