"""Weak-perspective head pose: image = scale * R @ vertex + translation.

Axes everywhere: x right, y down, z away from the camera. A pose is one row
(rotation vector [3] in radians, log scale [1], translation x and y [2]) of a [..., 6] tensor.
"""

from __future__ import annotations

import torch
from torch import Tensor


def rotation_matrix(vector: Tensor) -> Tensor:
    """Rotation vectors [..., 3] (radians) to matrices [..., 3, 3] (Rodrigues)."""
    angle = vector.norm(dim=-1, keepdim=True).clamp_min(1e-8)
    x, y, z = (vector / angle).unbind(-1)
    zero = torch.zeros_like(x)
    cross = torch.stack([zero, -z, y, z, zero, -x, -y, x, zero], -1)
    cross = torch.unflatten(cross, -1, (3, 3))
    sin, cos = angle.sin()[..., None], angle.cos()[..., None]
    eye = torch.eye(3, dtype=vector.dtype, device=vector.device)
    matrix: Tensor = eye + sin * cross + (1 - cos) * (cross @ cross)
    return matrix


def turn_between(a: Tensor, b: Tensor) -> Tensor:
    """Angle in radians between rotations [..., 3, 3], which broadcast: [...]."""
    trace = (a.transpose(-1, -2) @ b).diagonal(dim1=-2, dim2=-1).sum(-1)
    return ((trace - 1) / 2).clamp(-1, 1).acos()


def rotation_vector(matrix: Tensor) -> Tensor:
    """Matrices [..., 3, 3] to rotation vectors [..., 3]; angles below pi."""
    trace = matrix.diagonal(dim1=-2, dim2=-1).sum(-1)
    angle = ((trace - 1) / 2).clamp(-1 + 1e-7, 1 - 1e-7).acos()
    axis = torch.stack(
        [
            matrix[..., 2, 1] - matrix[..., 1, 2],
            matrix[..., 0, 2] - matrix[..., 2, 0],
            matrix[..., 1, 0] - matrix[..., 0, 1],
        ],
        -1,
    )
    return axis * (angle / (2 * angle.sin()).clamp_min(1e-8))[..., None]


def apply_pose(vertices: Tensor, pose: Tensor) -> Tensor:
    """Canonical vertices [..., V, 3] to image vertices [..., V, 3] (depth scaled alike)."""
    scaled = pose[..., 3, None, None].exp() * rotation_matrix(pose[..., :3])
    posed = vertices @ scaled.transpose(-1, -2)
    shift = torch.cat([pose[..., 4:6], torch.zeros_like(pose[..., :1])], -1)
    return posed + shift[..., None, :]


def remove_pose(points: Tensor, pose: Tensor) -> Tensor:
    """The inverse of `apply_pose` for points [..., V, 3] whose mean depth is the model's."""
    shift = torch.cat([pose[..., 4:6], torch.zeros_like(pose[..., :1])], -1)
    back = (points - shift[..., None, :]) @ rotation_matrix(pose[..., :3])
    return back * (-pose[..., 3, None, None]).exp()


def yaw_pitch_roll(pose: Tensor) -> Tensor:
    """Angles [..., 3] in degrees: yaw (turn), pitch (nod), roll (tilt)."""
    r = rotation_matrix(pose[..., :3])
    yaw = torch.atan2(r[..., 0, 2], r[..., 2, 2])
    pitch = torch.asin(r[..., 1, 2].clamp(-1, 1))
    roll = torch.atan2(r[..., 1, 0], r[..., 1, 1])
    return torch.rad2deg(torch.stack([yaw, pitch, roll], -1))


def align(points: Tensor, model: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """Closed-form pose of each point set against the model (weighted Umeyama).

    Args:
        points: [T, V, 3] image points.
        model: [V, 3] or [T, V, 3] canonical vertices.
        weights: [V], at least 0.

    Returns:
        pose [T, 6], and `points` with their depth shifted so that `remove_pose` is exact.
    """
    pose, depth = align_depth(points, model, weights)
    return pose, at_depth(points, depth)


def at_depth(points: Tensor, depth: Tensor) -> Tensor:
    """Points [T, V, 3] with `depth` [T] taken off their z."""
    return torch.cat([points[..., :2], points[..., 2:] - depth[:, None, None]], -1)


def align_depth(points: Tensor, model: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """As `align`, but with the depth [T] by which the points are to be shifted in their place."""
    w = weights / weights.sum()
    model = model.expand_as(points)
    centre_p = (points * w[:, None]).sum(1, keepdim=True)
    centre_m = (model * w[:, None]).sum(1, keepdim=True)
    p, m = points - centre_p, model - centre_m
    u, s, vh = torch.linalg.svd((p * w[:, None]).transpose(1, 2) @ m)
    sign = torch.linalg.det(u @ vh)
    flip = torch.ones_like(s)
    flip[:, 2] = sign
    rotation = (u * flip[:, None, :]) @ vh
    scale = (s * flip).sum(-1) / (m.square() * w[:, None]).sum((1, 2))
    shift = centre_p - scale[:, None, None] * (centre_m @ rotation.transpose(1, 2))
    pose = torch.cat([rotation_vector(rotation), scale.log()[:, None], shift[:, 0, :2]], -1)
    return pose, shift[:, 0, 2]
