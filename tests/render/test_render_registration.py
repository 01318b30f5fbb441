"""Registration: what the tracker got wrong by a pixel or two is found again from the pictures."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from synthetic_face import face_model, neutral_face
from torch import Tensor

from dubbing.geometry.raster import rasterize
from dubbing.geometry.topology import CHIN, LIPS, MOUTH_LEFT, N_VERTICES, NOSE_TIP
from dubbing.render.mesh import RenderMesh, extended_vertices
from dubbing.render.registration import LIMIT, Registration, carried, shifted
from dubbing.render.scene import WINDOW, FaceStates, face_states, face_windows

POSES = torch.tensor(
    [[0.05, 0.02 * k, -0.01 * k, math.log(130.0), 400.0 + 3 * k, 300.0 - k] for k in range(6)]
)
SEEN = [NOSE_TIP, CHIN, MOUTH_LEFT, 50, 280, 0, 17, 205, 425]


def states_of(mesh: RenderMesh, beta: Tensor, pose: Tensor) -> FaceStates:
    moved = face_model().expression_vertices(beta)
    vertices = extended_vertices(neutral_face() + moved, neutral_face(), pose)
    return face_states(vertices, neutral_face(), moved, pose, face_windows(mesh, pose))


def painted(mesh: RenderMesh, states: FaceStates) -> Tensor:
    """Windows [T, 3, h, w] of a face whose skin is a fine pattern fixed to its points."""
    generator = torch.Generator().manual_seed(3)
    texture = torch.rand(1, 3, 64, 64, generator=generator)
    place = torch.cat([neutral_face()[:, :2], torch.zeros(len(mesh.colours) - N_VERTICES, 2)])
    raster = rasterize(states.in_window(), mesh.triangles[: mesh.surface], WINDOW)
    where = raster.interpolate(place[None].expand(len(states.vertices), -1, -1))
    skin = F.grid_sample(
        texture.expand(len(where), -1, -1, -1), where.permute(0, 2, 3, 1), align_corners=False
    )
    return torch.where(raster.covered[:, None], 0.2 + 0.6 * skin, 0.5)


@pytest.fixture(scope="module")
def truth(mesh: RenderMesh) -> FaceStates:
    beta = torch.tensor([[0.2 * k, 0.0, 0.0] for k in range(6)])
    return states_of(mesh, beta, POSES)


@pytest.fixture(scope="module")
def registered(mesh: RenderMesh, truth: FaceStates) -> Registration:
    return Registration(mesh, painted(mesh, truth)[:5], truth[:5])


def mistake(states: FaceStates, x: float, y: float) -> FaceStates:
    """What a tracker that is wrong by (x, y) window pixels says."""
    return shifted(states, torch.tensor([x, y]).expand(1, states.vertices.shape[1], 2))


@pytest.mark.parametrize(("x", "y"), [(1.5, 0.0), (-0.8, 1.1), (0.0, -2.0), (0.4, 0.3)])
def test_a_mistake_of_the_tracker_is_undone(
    mesh: RenderMesh, truth: FaceStates, registered: Registration, x: float, y: float
) -> None:
    last = truth[[5]]
    picture = painted(mesh, last)
    offset = registered.register(picture, mistake(last, x, y))[SEEN]
    left = offset + torch.tensor([x, y])
    assert left.norm(dim=-1).median() < 0.25 * math.hypot(x, y) + 0.03
    assert left.norm(dim=-1).max() < 0.6


def test_what_is_right_stays(mesh: RenderMesh, truth: FaceStates, registered: Registration) -> None:
    offset = registered.register(painted(mesh, truth[[5]]), truth[[5]])
    assert offset[SEEN].norm(dim=-1).max() < 0.3
    assert registered.offset.abs().mean() < 0.1  # a bank without a fault has nothing to agree on


def test_the_bank_agrees_with_itself(mesh: RenderMesh, truth: FaceStates) -> None:
    """One picture of the bank is tracked wrongly: it moves back towards the others."""
    wrong = torch.zeros(5, truth.vertices.shape[1], 2)
    wrong[2] = torch.tensor([1.6, -0.8])
    found = Registration(mesh, painted(mesh, truth)[:5], shifted(truth[:5], wrong))
    left = (wrong + found.offset)[:, SEEN]
    spread = (left - left.mean(0)).norm(dim=-1)
    assert spread[2].median() < 0.35 * 1.79
    assert torch.allclose(found.offset.mean(0), torch.zeros(1), atol=1e-4)


def test_light_does_not_move_the_mesh(
    mesh: RenderMesh, truth: FaceStates, registered: Registration
) -> None:
    darker = 0.8 * painted(mesh, truth[[5]])
    offset = registered.register(darker, mistake(truth[[5]], 1.0, 0.0))[SEEN]
    assert (offset + torch.tensor([1.0, 0.0])).norm(dim=-1).median() < 0.3


def test_one_picture_is_no_bank_but_no_fault(mesh: RenderMesh, truth: FaceStates) -> None:
    alone = Registration(mesh, painted(mesh, truth)[:1], truth[:1])
    assert not alone.offset.any()
    offset = alone.register(painted(mesh, truth[[1]]), mistake(truth[[1]], 1.0, 0.0))[SEEN]
    assert (offset + torch.tensor([1.0, 0.0])).norm(dim=-1).median() < 0.4


def test_offsets_are_bounded(mesh: RenderMesh, truth: FaceStates, registered: Registration) -> None:
    noise = torch.rand(1, 3, *WINDOW, generator=torch.Generator().manual_seed(0))
    assert registered.register(noise, truth[[5]]).abs().max() <= LIMIT


def test_shifted_moves_in_window_pixels(truth: FaceStates) -> None:
    offset = torch.zeros(6, truth.vertices.shape[1], 2)
    offset[..., 0] = 2.0
    away = shifted(truth, offset).in_window() - truth.in_window()
    assert torch.allclose(away[..., 0], torch.tensor(2.0), atol=1e-3)
    assert away[..., 1:].abs().max() < 1e-3


def test_carried_keeps_all_where_geometry_stays(truth: FaceStates) -> None:
    offset = torch.randn(truth.vertices.shape[1], 2, generator=torch.Generator().manual_seed(1))
    still = torch.zeros(len(offset))
    assert torch.allclose(carried(offset, truth[[0]], still), offset, atol=1e-5)


def test_carried_keeps_the_pose_and_drops_the_rest_where_lips_are_replaced(
    truth: FaceStates,
) -> None:
    state = truth[[0]]
    count = state.vertices.shape[1]
    place = state.in_window()[0, :, :2] - torch.tensor([96.0, 72.0])
    pose = 0.5 + 0.01 * place @ torch.tensor([[1.0, 0.2], [-0.2, 1.0]])
    own = torch.zeros(count, 2)
    own[list(LIPS)] = torch.tensor([0.0, 1.5])
    moved = torch.zeros(count)
    moved[list(LIPS)] = 6.0
    kept = carried(pose + own, state, moved)
    lips = (kept - pose)[list(LIPS)]
    assert lips.norm(dim=-1).max() < 0.75  # of 1.5: what an affine map takes of it
    seen = [NOSE_TIP, 50, 280]
    assert torch.allclose(kept[seen], pose[seen], atol=1e-4)


def test_new_geometry_takes_the_pose_from_the_frames_around(truth: FaceStates) -> None:
    """A tremble of the own pose is left out where geometry is replaced, a movement stays."""
    state = truth[[0]]
    count = state.vertices.shape[1]
    steady = torch.tensor([0.4, -0.2]).expand(count, 2)
    moved = torch.zeros(count)
    moved[list(LIPS)] = 6.0
    for away, least, most in ((0.2, 0.0, 0.03), (4.0, 3.9, 4.1)):
        own = steady + torch.tensor([away, 0.0])
        kept = carried(own, state, moved, steady)
        gone = (kept - steady)[list(LIPS), 0]
        assert least <= float(gone.min()) <= float(gone.max()) <= most
        assert torch.allclose(kept[moved == 0], own[moved == 0], atol=1e-4)  # its own picture
