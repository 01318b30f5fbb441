"""The extended mesh, the maps of a window, and the correspondence between windows."""

from __future__ import annotations

import math

import pytest
import torch
from synthetic_face import LOWER_LIP, UPPER_LIP, face_model, neutral_face
from torch import Tensor

from dubbing.geometry.pose import apply_pose
from dubbing.geometry.raster import rasterize
from dubbing.geometry.topology import (
    CHIN,
    FACE_OVAL,
    INNER_BOTTOM,
    INNER_TOP,
    LIPS,
    MOUTH_LEFT,
    MOUTH_RIGHT,
    N_VERTICES,
    NOSE_TIP,
    SUBNASALE,
)
from dubbing.models.geometry_net import VERTEX_SCALE
from dubbing.models.renderer import blurred
from dubbing.render.mesh import (
    RING_FOLLOW,
    RING_SCALES,
    RenderMesh,
    extended_displacement,
    extended_vertices,
)
from dubbing.render.scene import (
    FACE_HEIGHT,
    LIP_WINDOW,
    WINDOW,
    FaceStates,
    correspond,
    cut,
    face_states,
    face_windows,
    lip_corner,
    needed_mask,
    part_of,
    part_of_match,
    put,
    reference_maps,
    target_maps,
)

torch.set_num_threads(1)

POSE = torch.tensor([[0.05, 0.1, -0.04, math.log(130.0), 400.0, 300.0]])
OVAL = list(FACE_OVAL)


def states_of(mesh: RenderMesh, beta: Tensor, pose: Tensor) -> FaceStates:
    """States of expressions [T, 3] under poses [T, 6], each in its own window."""
    moved = face_model().expression_vertices(beta)
    vertices = extended_vertices(neutral_face() + moved, neutral_face(), pose)
    return face_states(vertices, neutral_face(), moved, pose, face_windows(mesh, pose))


def rest(mesh: RenderMesh) -> FaceStates:
    return states_of(mesh, torch.zeros(1, 3), POSE)


def opened(mesh: RenderMesh) -> FaceStates:
    return states_of(mesh, torch.tensor([[1.2, 0.0, 0.0]]), POSE)


def centres(states: FaceStates, vertices: list[int]) -> Tensor:
    """Window pixels [N, 2] (x, y) of some vertices."""
    return states.in_window()[0, vertices, :2]


def value_at(maps: Tensor, place: Tensor) -> Tensor:
    """Values [C, N] of maps [1, C, h, w] in the pixels that hold places [N, 2]."""
    x, y = place.long().unbind(-1)
    return maps[0][:, y, x]


def own_places() -> Tensor:
    y = torch.arange(WINDOW[0]).add(0.5)[:, None].expand(WINDOW)
    x = torch.arange(WINDOW[1]).add(0.5)[None].expand(WINDOW)
    return torch.stack([x, y], -1)


def test_extended_mesh_has_mouth_and_rings(mesh: RenderMesh) -> None:
    count = N_VERTICES + len(RING_SCALES) * len(OVAL)
    assert mesh.colours.shape == (count, 3)
    assert mesh.surface == 852
    assert len(mesh.triangles) == 852 + 54 + 2 * len(RING_SCALES) * len(OVAL)
    assert torch.equal(mesh.one_sided.nonzero()[:, 0], torch.arange(852, 906))
    assert not mesh.colours[N_VERTICES:].any()
    edges = mesh.triangles[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2).sort(1).values
    uses = torch.unique(edges, dim=0, return_counts=True)[1]
    assert uses.max() == 2  # the rings join the face without a second layer


def test_rings_surround_the_face_and_follow_less_and_less() -> None:
    face = neutral_face()
    flat = torch.zeros(2, 6)
    moved = face_model().expression_vertices(torch.tensor([[0.0, 0, 0], [1.0, 0, 0]]))
    both = extended_vertices(face + moved, face, flat)
    rings = both[:, N_VERTICES:].view(2, len(RING_SCALES), len(OVAL), 3)
    centre = face[NOSE_TIP, :2]
    reach = (rings[0, ..., :2] - centre).norm(dim=-1)
    outline = (face[OVAL, :2] - centre).norm(dim=-1)
    assert torch.allclose(reach, torch.tensor(RING_SCALES)[:, None] * outline, atol=1e-5)
    assert (rings[0, ..., 2].diff(dim=0) > 0).all()  # each lies farther away
    chin = OVAL.index(CHIN)
    drop = rings[1, :, chin, 1] - rings[0, :, chin, 1]
    assert torch.allclose(drop, torch.tensor(RING_FOLLOW) * moved[1, CHIN, 1], atol=1e-5)
    ring_moves = extended_displacement(moved)[1, N_VERTICES:]
    assert torch.allclose(ring_moves[chin, 1], RING_FOLLOW[0] * moved[1, CHIN, 1])
    assert torch.equal(extended_displacement(moved)[:, :N_VERTICES], moved)


def test_window_is_centred_on_the_lower_face(mesh: RenderMesh) -> None:
    states = rest(mesh)
    scale = states.window[0, 2]
    assert torch.allclose(scale, torch.tensor(2 * 130.0 / FACE_HEIGHT))
    heights = states.in_window()[0, [10, CHIN], 1].diff()
    assert abs(heights.item() / FACE_HEIGHT - 1) < 0.08  # the head is hardly turned
    middle = apply_pose(mesh.middle[None], POSE[0])[0, :2]
    found = (middle - states.window[0, :2]) / scale
    assert torch.allclose(found, torch.tensor([WINDOW[1] / 2, WINDOW[0] / 2]), atol=1e-3)
    for vertex in (SUBNASALE, CHIN, MOUTH_LEFT, MOUTH_RIGHT):
        place = centres(states, [vertex])[0]
        assert 10 < place[0] < WINDOW[1] - 10
        assert 5 < place[1] < WINDOW[0] - 5


def test_target_maps_black_mouth_full_lips(mesh: RenderMesh) -> None:
    states = opened(mesh)
    maps = target_maps(mesh, states)
    assert maps.pncc.shape == (1, 3, *WINDOW)
    assert maps.lips.shape == maps.mask.shape == (1, 1, *WINDOW)
    for x in (maps.pncc, maps.lips, maps.mask):
        assert x.min() >= 0
        assert x.max() <= 1
    middle = centres(states, [INNER_TOP, INNER_BOTTOM]).mean(0, keepdim=True)
    assert not value_at(maps.pncc, middle).any()  # the opening
    assert value_at(maps.lips, middle) == 1
    assert value_at(maps.mask, middle) > 0.99
    lips = centres(states, sorted(set(UPPER_LIP) | set(LOWER_LIP)))
    assert value_at(maps.lips, lips).min() > 0.5
    assert value_at(maps.pncc, lips).amax(0).min() >= 0
    far = centres(states, [CHIN, NOSE_TIP, 234, 454])
    inside = (far[:, 0] > 0) & (far[:, 0] < WINDOW[1]) & (far[:, 1] > 0)
    assert not value_at(maps.lips, far[inside]).any()
    cheek = centres(states, [50, 280])
    colours = value_at(maps.pncc, cheek).T
    assert torch.allclose(colours, mesh.colours[[50, 280]], atol=0.03)


def test_closed_lips_show_no_mouth(mesh: RenderMesh) -> None:
    pressed = states_of(mesh, torch.tensor([[-0.2, 0.0, 0.0]]), POSE)  # inner lips overlap
    triangle = target_maps(mesh, pressed).raster.triangle
    assert not ((triangle >= 852) & (triangle < 870)).any()
    open_ = target_maps(mesh, opened(mesh)).raster.triangle
    assert ((open_ >= 852) & (open_ < 870)).sum() > 100


def test_mask_spares_the_nose_and_the_window_edge(mesh: RenderMesh) -> None:
    states = opened(mesh)
    mask = target_maps(mesh, states).mask[0, 0]
    for edge in (mask[0], mask[-1], mask[:, 0], mask[:, -1]):
        assert edge.max() < 0.1
    nose = int(centres(states, [NOSE_TIP])[0, 1])
    face = rasterize(states.in_window(), mesh.triangles[: mesh.surface], WINDOW).covered[0]
    assert mask[: nose + 1][face[: nose + 1]].max() < 0.04
    assert mask[: nose + 1].max() < 0.06  # beside the cheeks it begins to rise
    assert mask[: nose // 2].max() < 0.001
    chin = centres(states, [CHIN])[0].long()
    assert mask[chin[1] - 3, chin[0]] > 0.9
    # under the chin it still covers what an open mouth uncovers, then falls to nothing
    assert mask[chin[1] + 3, chin[0]] > 0.5
    steps = torch.cat([mask.diff(dim=0).abs().flatten(), mask.diff(dim=1).abs().flatten()])
    assert steps.max() < 0.3  # feathered


def test_surroundings_are_replaced_only_where_something_moved(mesh: RenderMesh) -> None:
    states = rest(mesh)
    maps = target_maps(mesh, states)
    moved = torch.zeros(1, 1, *WINDOW)
    moved[..., 96:] = 8.0  # the right half
    mask = needed_mask(mesh, maps, moved)
    assert (mask <= maps.mask + 1e-6).all()
    ring = (maps.raster.triangle >= mesh.first_ring)[:, None]
    far = blurred((~ring).float(), 4.0) < 0.02  # from the face
    still, changed = far[..., :84], far[..., 110:]
    assert maps.mask[..., :84][still].max() > 0.2
    assert mask[..., :84][still].max() < 0.02
    assert torch.allclose(mask[..., 110:][changed], maps.mask[..., 110:][changed], atol=0.01)
    chin = centres(states, [CHIN])[0].long()
    inside = mask[..., chin[1] - 16, chin[0]]
    assert torch.allclose(inside, maps.mask[..., chin[1] - 16, chin[0]], atol=1e-6)


def test_reference_maps_show_the_surface_alone(mesh: RenderMesh) -> None:
    states = opened(mesh)
    pncc = reference_maps(mesh, states)
    assert pncc.shape == (1, 3, *WINDOW)
    target = target_maps(mesh, states)
    surface = (target.raster.triangle >= 0) & (target.raster.triangle < mesh.surface)
    assert torch.equal(pncc[0][:, surface[0]], target.pncc[0][:, surface[0]])
    middle = centres(states, [INNER_TOP, INNER_BOTTOM]).mean(0, keepdim=True)
    assert not value_at(pncc, middle).any()


def test_identical_states_correspond_to_themselves(mesh: RenderMesh) -> None:
    states = states_of(mesh, torch.tensor([[0.8, 0.3, 0.1]] * 2), POSE.expand(2, -1))
    target = states[:1]
    maps = target_maps(mesh, target)
    match = correspond(maps.raster, target, states, 2)
    assert match.place.shape == (1, 2, *WINDOW, 2)
    assert (match.place - own_places()).abs().max() < 0.01
    assert match.cost.abs().max() < 1e-5
    assert match.turn.abs().max() < 2e-3


def test_a_moved_reference_is_found_where_it_went(mesh: RenderMesh) -> None:
    target = rest(mesh)
    pose = POSE.repeat(2, 1)
    pose[:, 4:] += torch.tensor([[7.0, -3.0], [-4.0, 5.0]])
    references = states_of(mesh, torch.zeros(2, 3), pose)
    maps = target_maps(mesh, target)
    followed = correspond(maps.raster, target, references, 2)
    triangle = maps.raster.triangle[0]
    skin = (triangle < mesh.surface) | (triangle >= mesh.first_ring)
    away = (followed.place - own_places())[0]  # its window goes along
    assert away[:, skin].abs().max() < 0.01
    assert away.abs().max() < 0.05  # closed lips leave slivers between them, which are less exact
    stay = FaceStates(
        references.vertices, references.displacement, references.rotation,
        target.window.expand(2, -1), references.teeth,
    )  # fmt: skip
    match = correspond(maps.raster, target, stay, 2)
    shift = torch.tensor([[7.0, -3.0], [-4.0, 5.0]]) / target.window[0, 2]
    away = (match.place - own_places())[0] - shift[:, None, None]
    assert away[:, skin & maps.raster.covered[0]].abs().max() < 0.01
    assert away[:, maps.raster.covered[0]].abs().max() < 0.05
    assert match.cost.abs().max() < 1e-5


def test_correspondence_follows_points_of_the_face(mesh: RenderMesh) -> None:
    """The lower lip of an open target lies on the lower lip of a closed, turned reference."""
    target = opened(mesh)
    pose = POSE + torch.tensor([[0.0, 0.2, 0.0, 0.1, 30.0, -10.0]])
    reference = rest(mesh)
    turned = states_of(mesh, torch.zeros(1, 3), pose)
    maps = target_maps(mesh, target)
    match = correspond(maps.raster, target, turned, 1)
    for vertex in (17, 405, 50, 280, CHIN):
        at = centres(target, [vertex])
        x, y = at[0].long().tolist()
        assert (match.place[0, 0, y, x] - centres(turned, [vertex])[0]).norm() < 2.5
    assert torch.allclose(match.turn, torch.tensor([[0.2]]), atol=0.01)
    match = correspond(maps.raster, target, reference, 1)
    moved = (target.displacement - reference.displacement).norm(dim=-1) * VERTEX_SCALE
    x, y = centres(target, [17])[0].long().tolist()
    assert abs(match.cost[0, 0, y, x] - moved[0, 17]) < 0.15 * moved[0, 17]
    assert match.cost[0, 0, :20].max() < 0.01  # the upper face has not moved


def test_references_of_a_batch_stay_with_their_targets(mesh: RenderMesh) -> None:
    beta = torch.tensor([[0.0, 0, 0], [1.0, 0, 0]])
    targets = states_of(mesh, beta, POSE.expand(2, -1))
    own = states_of(mesh, beta[[0, 1, 1, 0]], POSE.expand(4, -1))
    maps = target_maps(mesh, targets)
    match = correspond(maps.raster, targets, own, 2)
    assert match.cost[0, 0].max() < 1e-5
    assert match.cost[1, 0].max() < 1e-5
    assert match.cost[0, 1].max() > 0.5
    assert match.cost[1, 1].max() > 0.5


def test_lip_window_holds_the_lips(mesh: RenderMesh) -> None:
    for states, pose in ((opened(mesh), POSE), (rest(mesh), POSE)):
        (corner,) = lip_corner(mesh, states, pose)
        assert (corner % 4 == 0).all()
        lips = centres(states, list(LIPS))
        low, high = lips.amin(0), lips.amax(0)
        assert corner[1] < low[0]
        assert corner[0] < low[1]
        assert high[0] < corner[1] + LIP_WINDOW[1]
        assert high[1] < corner[0] + LIP_WINDOW[0]


def test_lip_window_stays_in_the_window(mesh: RenderMesh) -> None:
    states = rest(mesh)
    pose = POSE + torch.tensor([[0.0, 0, 0, 0, 5000.0, -5000.0]])
    assert torch.equal(
        lip_corner(mesh, states, pose),
        torch.tensor([[0, WINDOW[1] - LIP_WINDOW[1]]]),
    )


def test_correspondence_of_a_part_is_the_part_of_the_correspondence(mesh: RenderMesh) -> None:
    target = opened(mesh)
    pose = POSE + torch.tensor([[0.0, 0.1, 0.0, 0.0, 5.0, 2.0]])
    reference = states_of(mesh, torch.tensor([[0.2, 0.5, 0.0]]), pose)
    maps = target_maps(mesh, target)
    whole = correspond(maps.raster, target, reference, 1)
    for corner in (torch.tensor([[40, 36]]), torch.tensor([[64, 0]])):
        part = correspond(part_of(maps.raster, corner, LIP_WINDOW), target, reference, 1, corner)
        place = cut(whole.place.permute(0, 1, 4, 2, 3), corner, LIP_WINDOW).permute(0, 1, 3, 4, 2)
        assert torch.equal(part.place, place)
        assert torch.equal(part.cost, cut(whole.cost, corner, LIP_WINDOW))
        again = part_of_match(whole, 1, corner, LIP_WINDOW)
        assert torch.equal(again.place, part.place)
        assert torch.equal(again.cost, part.cost)
        assert torch.equal(again.turn, part.turn)


@pytest.mark.parametrize("size", [(144, 192), (36, 48)])
def test_put_undoes_cut(size: tuple[int, int]) -> None:
    maps = torch.rand(2, 3, *size)
    corner = torch.tensor([[4, 8], [0, 20]])
    part = cut(maps, corner, (16, 24))
    assert torch.equal(part[1], maps[1, :, 0:16, 20:44])
    back = put(part, corner, size)
    assert torch.equal(cut(back, corner, (16, 24)), part)
    assert torch.isclose(back.sum(), part.sum(), rtol=1e-5)  # nothing outside
