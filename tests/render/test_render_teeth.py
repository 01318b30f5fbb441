"""Points at the teeth: where they lie between the lips, and what that does to a correspondence."""

from __future__ import annotations

import torch
from synthetic_face import face_model, neutral_face
from torch import Tensor

from dubbing.geometry.raster import rasterize
from dubbing.geometry.topology import CHIN, N_VERTICES
from dubbing.render.mesh import RenderMesh, extended_vertices
from dubbing.render.scene import WINDOW, FaceStates, correspond, face_states, face_windows
from dubbing.render.teeth import LOWER, POINTS, UPPER, teeth_shares, with_teeth

POSE = torch.tensor([[0.0, 0.0, 0.0, 4.8, 150.0, 140.0]])


def opened(up: float, low: float, jaw: float) -> Tensor:
    """Displacements [1, V, 3]: the upper lip raised by `up`, the lower lip and the jaw lowered."""
    moved = torch.zeros(1, N_VERTICES, 3)
    moved[:, UPPER, 1] = -up
    moved[:, LOWER, 1] = low
    moved[:, CHIN, 1] = jaw
    return moved


def rows_of(moved: Tensor) -> tuple[Tensor, Tensor]:
    """Heights [K] of the ends of the upper and of the lower teeth."""
    points = with_teeth(neutral_face() + moved, teeth_shares(neutral_face(), moved))
    teeth = points[0, N_VERTICES:, 1].view(2, -1)
    return teeth[0], teeth[1]


def test_upper_teeth_stay_while_the_upper_lip_is_raised() -> None:
    wide, smiling = rows_of(opened(0.0, 0.3, 0.25)), rows_of(opened(0.05, 0.3, 0.25))
    assert torch.allclose(wide[0], smiling[0], atol=1e-5)


def test_lower_teeth_go_with_the_jaw_and_not_with_the_lower_lip() -> None:
    drawn_down, lip = rows_of(opened(0.0, 0.4, 0.3)), rows_of(opened(0.0, 0.43, 0.3))
    assert torch.allclose(lip[1], drawn_down[1], atol=1e-5)
    deeper = rows_of(opened(0.0, 0.5, 0.4))
    assert torch.allclose(deeper[1] - drawn_down[1], torch.tensor(0.1), atol=1e-5)


def test_whatever_the_lips_do_the_rows_stay_between_them_in_order() -> None:
    for shape in ((0, 0, 0), (0.2, 0, 0), (0, 0.02, 0.3), (-0.1, 0, 0), (0.1, 0.5, -0.2)):
        shares = teeth_shares(neutral_face(), opened(*shape))
        assert torch.isfinite(shares).all()
        assert (shares > 0).all() and (shares < 1).all()
        assert (shares[:, 1] > shares[:, 0]).all()


def states_of(mesh: RenderMesh, moved: Tensor) -> FaceStates:
    vertices = extended_vertices(neutral_face() + moved, neutral_face(), POSE)
    return face_states(vertices, neutral_face(), moved, POSE, face_windows(mesh, POSE))


def test_a_raised_lip_shows_more_of_the_same_teeth() -> None:
    """A tooth's end is read where it lies in the reference, though the lip above it is elsewhere;
    stretched from lip to lip it would be read several pixels lower."""
    mesh = RenderMesh.build(face_model())
    target = states_of(mesh, opened(0.05, 0.3, 0.25))
    reference = states_of(mesh, opened(0.0, 0.3, 0.25))
    inside = mesh.triangles[mesh.surface : mesh.first_ring]
    raster = rasterize(target.drawn(), inside, WINDOW)
    place = correspond(raster, target, reference, 1).place[0, 0]
    end = target.drawn()[0, -POINTS : -POINTS // 2][len(UPPER) // 2]
    x, y = int(end[0]), int(end[1])
    assert raster.covered[0, y, x]
    assert abs(float(place[y, x, 1]) - (y + 0.5)) < 0.5
    lip = UPPER[len(UPPER) // 2]
    assert float(reference.in_window()[0, lip, 1] - target.in_window()[0, lip, 1]) > 3
