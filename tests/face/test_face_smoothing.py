"""Less jitter of a fitted face; closures, lip shapes and blinks stay."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parents[1] / "geometry"))

from synthetic_face import face_model, head_motion, synthetic_track

from dubbing.face.smoothing import (
    LIPS_FLOOR,
    LIPS_SHARE,
    POSE_LIMIT,
    calm_expression,
    calm_pose,
    drawn_nearer,
    time_mean,
)
from dubbing.geometry.fit import FitOptions, fit_track
from dubbing.geometry.morphable import lip_opening, lip_width
from dubbing.geometry.pose import apply_pose
from dubbing.geometry.topology import RIGID

torch.set_num_threads(1)


def jitter(values: Tensor) -> float:
    """Root mean square second difference over time."""
    return values.diff(n=2, dim=0).square().mean().sqrt().item()


def shaken(values: Tensor, size: float, seed: int = 0) -> Tensor:
    return values + size * torch.randn(values.shape, generator=torch.Generator().manual_seed(seed))


def opening(beta: Tensor) -> Tensor:
    model = face_model()
    return lip_opening(model.vertices(model.mean, beta))


def spread(values: Tensor) -> float:
    return float(values.quantile(0.98) - values.quantile(0.02))


def jaw(curve: list[float]) -> Tensor:
    """Expressions [T, 3] of a jaw that opens as told."""
    beta = torch.zeros(len(curve), 3)
    beta[:, 0] = torch.tensor(curve)
    return beta


def test_a_still_mouth_loses_most_of_its_jitter() -> None:
    model = face_model()
    beta = shaken(jaw([0.2] * 80), 0.003)
    calm = calm_expression(model, model.mean, beta)
    assert jitter(opening(calm)) < 0.4 * jitter(opening(beta))
    assert (opening(calm) - opening(jaw([0.2] * 80))).square().mean() < 0.6 * (
        opening(beta) - opening(jaw([0.2] * 80))
    ).square().mean()


@pytest.mark.parametrize("frames", [1, 2, 3])
def test_short_closures_stay_closed(frames: int) -> None:
    """The lips meet for one to three frames between wide-open vowels."""
    model = face_model()
    curve = ([1.0] * 7 + [0.0] * frames) * 6 + [1.0] * 7
    beta = jaw(curve)
    before, after = opening(beta), opening(calm_expression(model, model.mean, beta))
    closed = torch.tensor(curve) == 0
    assert int(closed.sum()) == 6 * frames
    assert (after - before)[closed].max() < 0.01 * spread(before)
    assert (before - after)[~closed].max() < 0.01 * spread(before)


def test_no_frame_changes_by_more_than_half_a_limit() -> None:
    model = face_model()
    _, beta, _, template = synthetic_track(120, seed=3)
    beta = shaken(beta, 0.02)
    calm = calm_expression(model, template, beta)
    assert not torch.equal(calm, beta)
    for measure in (lip_opening, lip_width):
        before = measure(model.vertices(template, beta))
        after = measure(model.vertices(template, calm))
        allowed = 0.5 * max(LIPS_SHARE * spread(before), LIPS_FLOOR)
        assert (after - before).abs().max() < 1.2 * allowed  # the mean moves along a straight line


def test_a_still_head_is_calmed_and_a_nod_stays() -> None:
    model = face_model()
    still = head_motion(1).expand(80, -1)
    noise = torch.tensor([0.001, 0.001, 0.001, 0.0005, 0.05, 0.05])
    shaky = shaken(still / noise, 1.0) * noise
    assert jitter(calm_pose(model, shaky)[:, 4:]) < 0.5 * jitter(shaky[:, 4:])
    nod = still.clone()
    nod[40:, 0] += 0.2
    moved = (apply_pose(model.mean[list(RIGID)], calm_pose(model, nod)) -
             apply_pose(model.mean[list(RIGID)], nod))[..., :2]  # fmt: skip
    rms = moved.square().sum(-1).mean(1).sqrt() / nod[:, 3].exp()
    assert rms.max() < 0.5 * POSE_LIMIT


def test_the_pull_is_greatest_at_the_limit_and_falls_beyond() -> None:
    excess = torch.tensor([0.0, 0.1, 0.5, 1.0, 2.0, 10.0])
    pulled = drawn_nearer(torch.zeros(6, 1), excess[:, None], excess)[:, 0]
    assert pulled.max() == pulled[3] == 0.5
    assert pulled[1] > 0.98 * excess[1]
    assert pulled[5] < 0.1


def test_the_mean_keeps_constants_and_length() -> None:
    for frames in (1, 2, 30):
        values = torch.full((frames, 2), 3.0)
        assert torch.allclose(time_mean(values), values)
    line = torch.arange(30.0)[:, None]
    assert torch.allclose(time_mean(line)[4:-4], line[4:-4], atol=1e-5)


def test_the_fit_is_calm_by_default_and_not_farther_from_the_truth() -> None:
    points, beta, pose, template = synthetic_track(60, seed=1, noise=0.3)
    beta, pose = beta[:1].expand(60, -1), pose[:1].expand(60, -1)  # nothing moves
    still = apply_pose(face_model().vertices(template, beta), pose)
    points = shaken(still, 0.3)
    measured = fit_track(face_model(), points, FitOptions(calm=False), template)
    calm = fit_track(face_model(), points, template=template)
    for name, truth in (("beta", beta), ("pose", pose)):
        rough, smooth = getattr(measured, name), getattr(calm, name)
        assert jitter(smooth) < 0.7 * jitter(rough)
        assert (smooth - truth).square().mean() <= (rough - truth).square().mean()
