"""The morphable model: its own algebra, and that learning recovers the model behind tracks."""

from __future__ import annotations

import pytest
import torch
from synthetic_face import (
    face_model,
    head_motion,
    neutral_face,
    speaking,
    synthetic_track,
)
from torch import Tensor

from dubbing.errors import NoFaceFound
from dubbing.geometry.morphable import MorphableModel, eye_distance, lip_opening, lip_width
from dubbing.geometry.pose import align, apply_pose, remove_pose, rotation_matrix
from dubbing.geometry.topology import (
    CHIN,
    FACE_OVAL,
    INNER_BOTTOM,
    INNER_TOP,
    LEFT_EYE_OUTER,
    LIPS,
    MOUTH_LEFT,
    MOUTH_RIGHT,
    N_VERTICES,
    NOSE_TIP,
    RIGHT_EYE_OUTER,
    RIGID,
    SUBNASALE,
)
from dubbing.training.morphable import LearnOptions, learn

torch.set_num_threads(1)

PEOPLE = ((0.0, 0.0), (1.0, 0.0), (-1.0, 0.5), (0.3, -1.0), (-0.5, 1.0), (0.8, 0.8))
OPTIONS = LearnOptions(shape_size=4, expression_size=6)


def rigid() -> Tensor:
    weights = torch.zeros(N_VERTICES)
    weights[list(RIGID)] = 1.0
    return weights


@pytest.fixture(scope="module")
def clips() -> list[Tensor]:
    return [synthetic_track(50, seed, alpha)[0] for seed, alpha in enumerate(PEOPLE)]


@pytest.fixture(scope="module")
def learned(clips: list[Tensor]) -> MorphableModel:
    return learn(clips, OPTIONS)


def unexplained(vectors: Tensor, basis: Tensor) -> Tensor:
    """Share of each vector [N, V, 3] that lies outside the span of a basis [K, V, 3]."""
    axes = torch.linalg.qr(basis.flatten(1).T.double())[0]
    columns = vectors.flatten(1).T.double()
    return (columns - axes @ (axes.T @ columns)).norm(dim=0) / columns.norm(dim=0)


def test_vertices_add_template_and_expression() -> None:
    model = face_model()
    beta = torch.tensor([[1.0, 0.0, 0.0], [0.5, -1.0, 2.0]])
    faces = model.vertices(model.mean, beta)
    assert torch.allclose(faces[0], model.mean + model.expression[0])
    assert torch.allclose(faces, model.mean + model.expression_vertices(beta), atol=1e-6)
    assert torch.equal(model.vertices(model.mean, torch.zeros(3)), model.mean)
    alpha = torch.tensor([2.0, -1.0])
    expected = model.mean + 2 * model.shape[0] - model.shape[1]
    assert torch.allclose(model.shape_vertices(alpha), expected)


def test_state_dict_round_trip() -> None:
    model = face_model()
    again = MorphableModel.from_state_dict(model.to("cpu").state_dict())
    for name, value in model.state_dict().items():
        assert torch.equal(again.state_dict()[name], value)


def test_pncc_colours_span_the_mean_face() -> None:
    colours = face_model().pncc()
    assert colours.shape == (N_VERTICES, 3)
    assert torch.allclose(colours.amin(0), torch.full((3,), 0.1))
    assert torch.allclose(colours.amax(0), torch.ones(3))


def test_lip_measures_ignore_size_and_follow_the_jaw() -> None:
    face = neutral_face()
    jaw = torch.zeros(5, 3)
    jaw[:, 0] = torch.linspace(0, 1.2, 5)
    faces = face_model().vertices(face, jaw)
    opening = lip_opening(faces)
    assert (opening.diff() > 0).all()
    assert torch.allclose(lip_opening(7 * faces), opening)
    gap = (faces[:, INNER_BOTTOM] - face[INNER_TOP]).norm(dim=-1)
    assert torch.allclose(opening, gap / (face[33] - face[263]).norm(), atol=1e-5)
    pose = torch.tensor([0.2, 0.4, -0.1, 3.0, 50.0, 70.0])
    assert torch.allclose(lip_opening(apply_pose(faces, pose)), opening, atol=1e-4)
    corners = (face[MOUTH_LEFT] - face[MOUTH_RIGHT]).norm() / eye_distance(face)
    assert torch.allclose(lip_width(face), corners)
    wide = face_model().vertices(face, torch.tensor([0.0, 1.0, 0.0]))
    assert lip_width(wide) > lip_width(face)


def test_lower_weights_take_the_mouth_and_leave_the_nose() -> None:
    lower, face = face_model().lower, neutral_face()
    assert (lower[list(LIPS)] == 1).all()
    assert lower[CHIN] == 1
    for vertex in (NOSE_TIP, LEFT_EYE_OUTER, RIGHT_EYE_OUTER, 10):
        assert lower[vertex] == 0
    assert (lower[face[:, 1] < face[SUBNASALE, 1] - 0.05] == 0).all()
    assert ((lower >= 0) & (lower <= 1)).all()


def test_learning_finds_the_expressions_and_no_more(learned: MorphableModel) -> None:
    truth = face_model()
    pose, _ = align(truth.mean[None], learned.mean, rigid())
    axes = rotation_matrix(pose[0, :3])  # of the canonical frames against each other
    turned = truth.expression @ axes
    assert unexplained(turned, learned.expression[:3]).max() < 0.05
    strength = learned.expression.flatten(1).norm(dim=1)
    assert strength[3:].max() < 0.02 * strength[2]  # three directions were put in
    assert (strength.diff() <= 1e-6).all()


def test_learning_finds_the_people(learned: MorphableModel) -> None:
    truth = face_model()
    for alpha in PEOPLE:
        template = truth.shape_vertices(torch.tensor(alpha))[None]
        pose, points = align(template, learned.mean, rigid())
        seen = remove_pose(points, pose)[0]
        basis = learned.shape[:2].flatten(1)
        found = torch.linalg.lstsq(basis.T, (seen - learned.mean).flatten()[:, None]).solution[:, 0]
        again = learned.mean + torch.einsum("s,svc->vc", found, learned.shape[:2])
        assert (again - seen).norm(dim=-1).mean() < 0.004  # half face heights
        assert found.abs().max() < 3  # coefficients count standard deviations


def test_learned_mean_is_a_normalised_upright_face(learned: MorphableModel) -> None:
    mean = learned.mean
    low, high = mean.amin(0), mean.amax(0)
    assert torch.allclose(high[1] - low[1], torch.tensor(2.0), atol=1e-5)
    assert torch.allclose(low + high, torch.zeros(3), atol=1e-5)
    eyes = mean[RIGHT_EYE_OUTER] - mean[LEFT_EYE_OUTER]
    assert eyes[0] > 0.8
    assert eyes[1:].abs().max() < 0.05 * eyes[0]
    height = mean[CHIN] - mean[FACE_OVAL[0]]
    assert height[[0, 2]].abs().max() < 0.05 * height[1]
    area = mean[learned.triangles][..., :2]
    a, b, c = area.unbind(1)
    assert ((b - a)[:, 0] * (c - a)[:, 1] >= (b - a)[:, 1] * (c - a)[:, 0]).all()


def test_axes_do_not_depend_on_the_first_frame(
    clips: list[Tensor], learned: MorphableModel
) -> None:
    """A first clip that begins turned, tilted and nodding gives the same model."""
    pose = head_motion(50, 0)
    pose[:, :3] += torch.linspace(1, -0.3, 50)[:, None] * torch.tensor([0.2, 0.3, 0.3])
    first = apply_pose(face_model().vertices(neutral_face(), speaking(50, 0)), pose)
    other = learn([first, *clips[1:]], OPTIONS)
    assert (other.mean - learned.mean).norm(dim=-1).mean() < 0.02


def test_a_clip_in_profile_is_left_out(clips: list[Tensor], learned: MorphableModel) -> None:
    """Its neighbours' expressions must still be measured against their own faces."""
    pose = head_motion(50, 9)
    pose[:, 1] += 1.0
    profile = apply_pose(face_model().vertices(neutral_face(), speaking(50, 9)), pose)
    other = learn([clips[0], profile, *clips[1:]], OPTIONS)
    assert torch.allclose(other.mean, learned.mean, atol=1e-5)
    assert torch.allclose(other.expression.abs(), learned.expression.abs(), atol=1e-4)
    assert torch.allclose(other.shape[:2].abs(), learned.shape[:2].abs(), atol=1e-4)


def test_learning_without_a_frontal_face_says_so(clips: list[Tensor]) -> None:
    with pytest.raises(NoFaceFound, match="front"):
        learn(clips[:1], LearnOptions(max_yaw=-1.0))
