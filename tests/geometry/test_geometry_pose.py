"""Poses: rotations there and back, exact inverses, exact alignment, signs of the angles."""

from __future__ import annotations

import math

import pytest
import torch
from synthetic_face import neutral_face

from dubbing.geometry.pose import (
    align,
    apply_pose,
    remove_pose,
    rotation_matrix,
    rotation_vector,
    yaw_pitch_roll,
)
from dubbing.geometry.topology import LEFT_EYE_OUTER, N_VERTICES, NOSE_TIP, RIGHT_EYE_OUTER, RIGID

torch.set_num_threads(1)


def random_poses(count: int, seed: int = 0) -> torch.Tensor:
    random = torch.Generator().manual_seed(seed)
    pose = torch.randn(count, 6, generator=random, dtype=torch.float64)
    pose[:, :3] *= 0.5
    pose[:, 3] = 4 + 0.3 * pose[:, 3]
    pose[:, 4:] = 300 + 50 * pose[:, 4:]
    return pose


def test_rotation_vector_undoes_rotation_matrix() -> None:
    random = torch.Generator().manual_seed(0)
    axis = torch.nn.functional.normalize(torch.randn(200, 3, generator=random).double(), dim=-1)
    angle = torch.linspace(0.01, math.pi - 0.01, 200, dtype=torch.float64)
    vector = axis * angle[:, None]
    matrix = rotation_matrix(vector)
    assert torch.allclose(matrix @ matrix.transpose(1, 2), torch.eye(3).double(), atol=1e-12)
    assert torch.allclose(torch.linalg.det(matrix), torch.ones(200).double())
    assert torch.allclose(rotation_vector(matrix), vector, atol=1e-6)
    assert torch.allclose(rotation_vector(torch.eye(3).double()), torch.zeros(3).double())


def test_rotation_is_differentiable_at_rest() -> None:
    vector = torch.zeros(2, 3, requires_grad=True)
    rotation_matrix(vector)[..., 0, 2].sum().backward()
    assert vector.grad is not None
    assert torch.isfinite(vector.grad).all()


def test_remove_pose_undoes_apply_pose() -> None:
    face = neutral_face().double().expand(20, -1, -1)
    pose = random_poses(20)
    assert torch.allclose(remove_pose(apply_pose(face, pose), pose), face, atol=1e-12)


def test_apply_pose_by_hand() -> None:
    """A quarter turn about z takes right to down; scale and shift follow."""
    pose = torch.tensor([0.0, 0.0, math.pi / 2, math.log(10.0), 100.0, 50.0])
    posed = apply_pose(torch.tensor([[1.0, 0.0, 2.0]]), pose)
    assert torch.allclose(posed, torch.tensor([[100.0, 60.0, 20.0]]), atol=1e-4)


@pytest.mark.parametrize("weights", ["all", "rigid"])
def test_align_recovers_a_known_pose(weights: str) -> None:
    face = neutral_face().double()
    pose = random_poses(12, seed=3)
    points = apply_pose(face.expand(12, -1, -1), pose)
    depth = torch.linspace(-200, 300, 12).double()[:, None]
    points[..., 2] += depth  # landmarks have no depth of their own
    w = torch.ones(N_VERTICES).double()
    if weights == "rigid":
        w = torch.zeros(N_VERTICES).double()
        w[list(RIGID)] = 1
        points[:, 152, 1] += 40  # the chin does not count
    found, shifted = align(points, face, w)
    assert torch.allclose(found, pose, atol=1e-6)
    assert torch.allclose(shifted[..., 2] + depth, points[..., 2], atol=1e-6)
    back = remove_pose(shifted, found)
    kept = w > 0
    assert torch.allclose(back[:, kept], face[kept].expand(12, -1, -1), atol=1e-8)


def test_align_averages_noise_out() -> None:
    face = neutral_face().double()
    pose = random_poses(8, seed=5)
    pose[:, :3] *= 0.3
    points = apply_pose(face.expand(8, -1, -1), pose)
    points = points + torch.randn(points.shape, generator=torch.Generator().manual_seed(1)).double()
    found, _ = align(points, face, torch.ones(N_VERTICES).double())
    assert (found[:, :3] - pose[:, :3]).abs().max() < 0.02  # rad; 1 px on a face of 110 px
    assert (found[:, 4:] - pose[:, 4:]).abs().max() < 0.2  # px


def test_align_takes_a_model_per_frame_and_never_mirrors() -> None:
    face = neutral_face().double()
    faces = torch.stack([face, face * torch.tensor([-1.0, 1.0, 1.0]).double()])
    pose = random_poses(2, seed=6)
    points = apply_pose(faces, pose)
    found, _ = align(points, faces, torch.ones(N_VERTICES).double())
    assert torch.allclose(found, pose, atol=1e-6)
    mirrored, _ = align(points[1:], face, torch.ones(N_VERTICES).double())
    assert torch.allclose(
        torch.linalg.det(rotation_matrix(mirrored[:, :3])), torch.ones(1).double()
    )


def test_angles_have_the_documented_signs() -> None:
    def turned(vector: tuple[float, float, float]) -> tuple[torch.Tensor, torch.Tensor]:
        pose = torch.tensor([*vector, 0.0, 0.0, 0.0])
        return yaw_pitch_roll(pose), apply_pose(neutral_face(), pose)

    angles, face = turned((0.0, 0.3, 0.0))
    assert torch.allclose(angles, torch.tensor([math.degrees(0.3), 0.0, 0.0]), atol=1e-3)
    # y points down: a positive yaw carries the (near) nose to the left of the image
    assert face[NOSE_TIP, 0] < neutral_face()[NOSE_TIP, 0]
    angles, face = turned((0.2, 0.0, 0.0))
    assert torch.allclose(angles[[0, 2]], torch.zeros(2), atol=1e-3)
    assert abs(abs(angles[1].item()) - math.degrees(0.2)) < 1e-3
    angles, face = turned((0.0, 0.0, 0.25))
    assert torch.allclose(angles, torch.tensor([0.0, 0.0, math.degrees(0.25)]), atol=1e-3)
    assert face[RIGHT_EYE_OUTER, 1] > face[LEFT_EYE_OUTER, 1]  # the image's right eye sinks
