"""A session renders a painted face from pictures of it, whatever the tracker got wrong."""

from __future__ import annotations

import math
import threading
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from synthetic_face import face_model, neutral_face
from torch import Tensor

from dubbing.geometry.raster import rasterize
from dubbing.geometry.topology import N_VERTICES
from dubbing.models.renderer import Renderer
from dubbing.render.mesh import RenderMesh, extended_vertices
from dubbing.render.mouths import Moments
from dubbing.render.painting import Patch
from dubbing.render.pictures import FacePicture, registered_bank
from dubbing.render.registration import Registration
from dubbing.render.scene import face_windows
from dubbing.render.session import MAX_EXPECTED, RenderSession
from dubbing.render.teeth import teeth_shares, with_teeth
from dubbing.render.window import window_rect

SIZE = (420, 360)  # width, height of a frame
SCALE = math.log(100.0)


def pose_of(k: int) -> Tensor:
    return torch.tensor([0.05, 0.015 * k, -0.01 * k, SCALE, 210.0 + k, 170.0 - 0.5 * k])


def beta_of(k: int) -> Tensor:
    return torch.tensor([0.25 * (k % 5), 0.0, 0.0])


def frame(mesh: RenderMesh, beta: Tensor, pose: Tensor) -> NDArray[np.uint8]:
    """A frame [H, W, 3] with the painted face: pattern on the skin, dark mouth, grey around."""
    texture = torch.rand(1, 3, 48, 48, generator=torch.Generator().manual_seed(3))
    moved = face_model().expression_vertices(beta[None])
    vertices = extended_vertices(neutral_face() + moved, neutral_face(), pose[None])
    shares = teeth_shares(neutral_face(), moved)
    raster = rasterize(
        with_teeth(vertices, shares), mesh.triangles[: mesh.first_ring], (SIZE[1], SIZE[0])
    )
    place = torch.cat([neutral_face()[:, :2], torch.zeros(len(mesh.colours) - N_VERTICES, 2)])
    where = raster.interpolate(with_teeth(place[None], shares)).permute(0, 2, 3, 1)
    skin = 0.3 + 0.4 * F.grid_sample(texture, where, align_corners=False)[0]
    picture = torch.where(raster.covered, skin, 0.5)
    picture = torch.where(raster.triangle >= mesh.surface, 0.1, picture)
    return (picture.permute(1, 2, 0) * 255).round().byte().numpy()


def shown(
    mesh: RenderMesh, beta: Tensor, pose: Tensor, mistake: tuple[float, float] = (0.0, 0.0)
) -> FacePicture:
    """What the engine cuts from a frame; the tracker is wrong by `mistake` frame pixels."""
    told = pose.clone()
    told[4:] += torch.tensor(mistake)
    window = face_windows(mesh, told[None])[0]
    x, y, width, height = window_rect(window.numpy(), SIZE)
    pixels = frame(mesh, beta, pose)[y : y + height, x : x + width]
    return FacePicture(pixels, (x, y), beta, told)


@pytest.fixture(scope="module")
def session(mesh: RenderMesh) -> RenderSession:
    return started(mesh)


def started(mesh: RenderMesh, correction: float = 0.0) -> RenderSession:
    """A session with an untrained renderer whose decoder adds a constant."""
    torch.manual_seed(0)
    bank = [shown(mesh, beta_of(k), pose_of(k), (0.4 * (-1) ** k, 0.3)) for k in range(8)]
    renderer = Renderer().eval()
    with torch.no_grad():
        renderer.decoder.out.bias += correction
    return RenderSession(renderer, face_model(), mesh, neutral_face(), bank)


def rendered(
    session: RenderSession, mesh: RenderMesh, target: Tensor,
    mistake: tuple[float, float] = (0.0, 0.0), key: int = 20,
) -> Patch:  # fmt: skip
    """Frame `key`, which shows a mouth at rest, with the mouth of `target`."""
    near = [(k, shown(mesh, torch.zeros(3), pose_of(k), mistake)) for k in range(key - 2, key + 3)]
    moved = face_model().expression_vertices(target[None])[0]
    return session.render(key, near[2][1], moved, near)


def error(mesh: RenderMesh, patch: Patch, beta: Tensor, key: int = 20) -> float:
    """Root mean square of the difference to the true frame in code values, where the patch is."""
    truth = frame(mesh, beta, pose_of(key)).astype(np.float32)
    height, width = patch.alpha.shape
    part = truth[patch.y : patch.y + height, patch.x : patch.x + width]
    seen = patch.alpha > 0.9
    assert seen.sum() > 4000
    return float(np.sqrt(np.square(patch.rgb - part)[seen].mean()))


def test_the_frame_as_it_is_comes_back(session: RenderSession, mesh: RenderMesh) -> None:
    assert error(mesh, rendered(session, mesh, torch.zeros(3)), torch.zeros(3)) < 6


def test_another_mouth_is_made_from_references(session: RenderSession, mesh: RenderMesh) -> None:
    target = torch.tensor([0.8, 0.0, 0.0])
    session.forget()
    made = error(mesh, rendered(session, mesh, target), target)
    unchanged = error(mesh, rendered(session, mesh, torch.zeros(3)), target)
    assert made < 0.6 * unchanged
    assert made < 12


def test_a_mistake_of_the_tracker_hardly_shows(session: RenderSession, mesh: RenderMesh) -> None:
    target = torch.tensor([0.8, 0.0, 0.0])
    session.forget()
    good = error(mesh, rendered(session, mesh, target), target)
    session.forget()
    bad = error(mesh, rendered(session, mesh, target, (1.6, -1.0)), target)
    session.forget()
    assert bad < 1.3 * good


def test_a_frame_does_not_depend_on_what_was_rendered_before(
    session: RenderSession, mesh: RenderMesh
) -> None:
    target = torch.tensor([0.5, 0.0, 0.0])
    session.forget()
    alone = rendered(session, mesh, target)
    for key in (18, 19):
        rendered(session, mesh, torch.tensor([1.0, 0.0, 0.0]), key=key)
    after = rendered(session, mesh, target)
    assert np.array_equal(alone.rgb, after.rgb)
    assert np.array_equal(alone.alpha, after.alpha)


def test_what_is_expected_is_registered_beside_the_drawing(
    session: RenderSession, mesh: RenderMesh, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = torch.tensor([0.5, 0.0, 0.0])
    session.forget()
    alone = rendered(session, mesh, target)
    session.forget()
    threads = []
    register = Registration.register

    def noted(self: Registration, *given: Tensor) -> Tensor:
        threads.append(threading.current_thread() is threading.main_thread())
        return register(self, *given)

    monkeypatch.setattr(Registration, "register", noted)
    for key in (20, 21, 22, 22):
        session.expect(key, shown(mesh, torch.zeros(3), pose_of(key)))
    after = rendered(session, mesh, target)
    assert sorted(threads) == [False] * 3 + [True] * 2  # 18 and 19 came unexpected
    assert np.array_equal(alone.rgb, after.rgb)
    assert np.array_equal(alone.alpha, after.alpha)


def test_what_was_expected_in_vain_is_not_kept(session: RenderSession, mesh: RenderMesh) -> None:
    session.forget()
    picture = shown(mesh, torch.zeros(3), pose_of(20))
    for key in range(30, 30 + 3 * MAX_EXPECTED):
        session.expect(key, picture)
    assert list(session._placing) == list(range(30 + 2 * MAX_EXPECTED, 30 + 3 * MAX_EXPECTED))
    session.forget()
    assert not session._placing


def test_a_bank_agrees_on_the_same_with_any_number_of_threads(
    session: RenderSession, mesh: RenderMesh, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dubbing.render.registration.THREADS", 1)
    assert torch.equal(started(mesh).registration.offset, session.registration.offset)


def test_a_known_registration_is_used(session: RenderSession, mesh: RenderMesh) -> None:
    """With the registration given, the inside of the frame's own picture is not looked at."""
    session.forget()
    picture = shown(mesh, torch.zeros(3), pose_of(20), (1.0, 0.5))
    near = [(k, shown(mesh, torch.zeros(3), pose_of(k))) for k in (10, 11, 12)]
    offset = session.register(picture)
    assert offset.abs().max() > 0.5
    moved = torch.zeros(N_VERTICES, 3)
    plain = session.render(20, picture, moved, near)
    told = session.render(20, replace(picture, offset=offset), moved, near)
    assert np.array_equal(plain.rgb, told.rgb)
    other = session.render(20, replace(picture, offset=torch.zeros_like(offset)), moved, near)
    assert not np.array_equal(plain.rgb, other.rgb)


def test_a_bank_that_is_registered_is_not_registered_again(
    session: RenderSession, mesh: RenderMesh, monkeypatch: pytest.MonkeyPatch
) -> None:
    bank = [shown(mesh, beta_of(k), pose_of(k), (0.4 * (-1) ** k, 0.3)) for k in range(8)]
    known = registered_bank(face_model(), mesh, neutral_face(), bank)
    session.forget()
    fresh = rendered(session, mesh, torch.tensor([0.5, 0.0, 0.0]))

    def never(*given: object, **named: object) -> None:
        raise AssertionError("it knows already")

    torch.manual_seed(0)
    renderer = Renderer().eval()
    other = [replace(p, offset=p.offset[:-1]) for p in known]  # of a mesh with fewer vertices
    with monkeypatch.context() as patched:
        patched.setattr(Registration, "_found", never)
        again = RenderSession(renderer, face_model(), mesh, neutral_face(), known)
        with pytest.raises(AssertionError, match="knows"):
            RenderSession(renderer, face_model(), mesh, neutral_face(), other)
    assert torch.equal(again.registration.offset, session.registration.offset)
    assert again.registration.offset.abs().max() > 0.3
    patch = rendered(again, mesh, torch.tensor([0.5, 0.0, 0.0]))
    assert np.array_equal(patch.rgb, fresh.rgb)
    assert np.array_equal(patch.alpha, fresh.alpha)


def test_the_decoder_touches_the_mouth_alone(session: RenderSession, mesh: RenderMesh) -> None:
    target = torch.tensor([0.5, 0.0, 0.0])
    session.forget()
    before = rendered(session, mesh, target)
    repairing = started(mesh, correction=0.1)
    assert repairing.repairs and not session.repairs
    after = rendered(repairing, mesh, target)
    change = np.abs(after.rgb - before.rgb).max(-1)
    rows = np.nonzero(change > 10)[0]
    assert len(rows) > 100
    under = change[rows.max() + 20 :]
    assert under.shape[0] > 20  # the chin
    assert under.max() < 3  # the light of the border reaches a little farther


@torch.no_grad()
def test_mouths_fade_into_each_other(session: RenderSession, mesh: RenderMesh) -> None:
    """As the mouth goes from one reference's to another's, no single step is most of the way."""
    session.forget()
    near = [(k, shown(mesh, torch.zeros(3), pose_of(k))) for k in range(18, 23)]
    betas = torch.stack([beta_of(1)] * 11 + [beta_of(3)] * 11)
    moved = face_model().expression_vertices(betas)
    shares, jumps = [], []
    for t in range(8, 14):
        for found, around in ((shares, moved[t - 8 : t + 9]), (jumps, moved[t : t + 1])):
            turned = pose_of(4).expand(len(around), 6)
            index, mouth = session._mouths.shown(Moments(around, turned), 8)
            share = torch.zeros(8)
            share[index] = (-60 * mouth).softmax(0)
            found.append(share)
    steps = [torch.stack(x).diff(dim=0).abs().sum(1) / 2 for x in (shares, jumps)]
    assert steps[1].max() > 0.8  # without neighbours the choice jumps
    assert steps[0].max() < 0.5
    assert shares[0][1::5].sum() > 0.8 and jumps[0][1::5].sum() > 0.8
    assert shares[-1][3::5].sum() > 0.8
    patch = session.render(
        20, near[2][1], moved[10], near, around=Moments(moved[2:19], pose_of(20).expand(17, 6))
    )
    assert np.isfinite(patch.rgb).all()


def favourite(session: RenderSession, moments: Moments) -> int:
    """The reference whose mouth counts most."""
    index, mouth = session._mouths.shown(moments, 8)
    return int(index[mouth.argmin()])


@torch.no_grad()
def test_a_moment_shows_what_the_moments_around_it_show(session: RenderSession) -> None:
    """Between two mouths geometry hardly decides; the moments before and after do."""
    between = 0.45 * beta_of(1) + 0.55 * beta_of(2)
    turned = pose_of(4).expand(17, 6)
    found = {}
    for around in (1, 2):
        betas = torch.stack([*[beta_of(around)] * 8, between, *[beta_of(around)] * 8])
        moved = face_model().expression_vertices(betas)
        found[around] = favourite(session, Moments(moved, turned))
        found[0] = favourite(session, Moments(moved[8:9], turned[:1]))
    assert found[0] % 5 == found[2] % 5 == 2
    assert found[1] % 5 == 1


@torch.no_grad()
def test_of_like_mouths_the_one_of_the_like_head_is_read(mesh: RenderMesh) -> None:
    bank = [shown(mesh, beta_of(k), pose_of(turn)) for turn in (0, 8) for k in (1, 3)]
    session = RenderSession(Renderer().eval(), face_model(), mesh, neutral_face(), bank)
    for turn in (0, 8):
        for place, k in enumerate((1, 3)):
            shape = face_model().expression_vertices(beta_of(k)[None])
            index, mouth = session._mouths.shown(Moments(shape, pose_of(turn)[None]), 8)
            assert int(index[0]) == (turn == 8) * 2 + place
            assert float(mouth[1] - mouth[0]) > 0.05


def test_no_weight_no_picture(session: RenderSession, mesh: RenderMesh) -> None:
    near = [(20, shown(mesh, torch.zeros(3), pose_of(20)))]
    patch = session.render(20, near[0][1], torch.zeros(N_VERTICES, 3), near, strength=0.0)
    assert not patch.alpha.any()
