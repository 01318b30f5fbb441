"""Fitting a track whose pose and expression are known."""

from __future__ import annotations

import pytest
import torch
from synthetic_face import face_model, synthetic_track
from torch import Tensor

from dubbing.geometry.fit import FitOptions, fit_track, rigid_weights
from dubbing.geometry.morphable import lip_opening
from dubbing.geometry.pose import apply_pose
from dubbing.geometry.topology import CHIN, LIPS, RIGID

torch.set_num_threads(1)


def jitter(values: Tensor) -> float:
    """Root mean square second difference over time."""
    return values.diff(n=2, dim=0).square().mean().sqrt().item()


def test_recovers_a_clean_track() -> None:
    points, beta, pose, template = synthetic_track(60, seed=1)
    fit = fit_track(face_model(), points)
    assert torch.allclose(fit.template, template, atol=1e-4)
    assert fit.alpha.abs().max() < 1e-3
    assert (fit.beta - beta)[:, 0].abs().max() < 0.05  # the jaw, of 1.3
    assert (fit.beta - beta)[:, 1].abs().max() < 0.15  # lip width, of 1.3
    assert (fit.pose - pose)[:, :3].abs().max() < 0.005  # rad
    assert (fit.pose - pose)[:, 3].abs().max() < 0.003
    assert (fit.pose - pose)[:, 4:].abs().max() < 0.5  # px of a face of 180
    assert fit.error.shape == (60,)
    assert fit.error.max() < 0.003


def test_error_is_the_mean_distance_in_face_heights() -> None:
    model = face_model()
    points, _, _, template = synthetic_track(40, seed=2, noise=2.0)
    fit = fit_track(model, points, template=template)
    drawn = apply_pose(model.vertices(fit.template, fit.beta), fit.pose)
    distance = (drawn - points)[..., :2].norm(dim=-1).mean(1)
    assert torch.allclose(fit.error, distance / (2 * fit.pose[:, 3].exp()), atol=1e-5)
    # 2 px of noise in x and in y: mean distance 2 * sqrt(pi / 2)
    assert abs(distance.mean().item() - 2.5) < 0.1


def test_a_given_template_stays_and_another_face_is_found() -> None:
    points, beta, pose, template = synthetic_track(60, seed=3, alpha=(0.8, -0.5))
    known = fit_track(face_model(), points, template=template)
    assert torch.equal(known.template, template)
    assert (known.beta - beta)[:, 0].abs().max() < 0.05
    assert (known.pose - pose)[:, :3].abs().max() < 0.005
    unknown = fit_track(face_model(), points)
    assert unknown.error.max() < 0.003
    # the template is this person's face: proportions of the truth, in the gauge of the mean face
    ratio = unknown.template / unknown.template[CHIN, 1] - template / template[CHIN, 1]
    assert ratio.norm(dim=-1).mean() < 0.1
    opening = lip_opening(face_model().vertices(template, beta))
    found = lip_opening(face_model().vertices(unknown.template, unknown.beta))
    assert torch.corrcoef(torch.stack([opening, found]))[0, 1] > 0.99


def test_temporal_terms_calm_a_noisy_track() -> None:
    points, beta, pose, _ = synthetic_track(60, seed=1, noise=1.5)
    shaky = fit_track(face_model(), points, FitOptions(temporal=0.0, calm=False))
    calm = fit_track(face_model(), points, FitOptions(calm=False))
    assert jitter(calm.pose[:, :3]) < 0.4 * jitter(shaky.pose[:, :3])
    assert jitter(calm.beta - beta) < 0.8 * jitter(shaky.beta - beta)
    error = [(fit.pose - pose)[:, :3].square().mean() for fit in (calm, shaky)]
    assert error[0] < error[1]  # calmer, and nearer to the truth
    jaw = torch.stack([calm.beta[:, 0], beta[:, 0]])
    assert torch.corrcoef(jaw)[0, 1] > 0.99  # speech is not smoothed away


def test_windows_of_a_long_track_join_without_a_seam() -> None:
    points = synthetic_track(200, seed=2, noise=0.5)[0]
    whole = fit_track(face_model(), points)
    parts = fit_track(face_model(), points, FitOptions(window=70, overlap=20))
    assert torch.equal(whole.template, parts.template)
    assert (whole.beta - parts.beta).abs().max() < 0.03
    assert (whole.pose - parts.pose)[:, :4].abs().max() < 0.002
    assert (whole.pose - parts.pose)[:, 4:].abs().max() < 0.1
    assert jitter(parts.pose[:, 4:]) < 1.05 * jitter(whole.pose[:, 4:])


@pytest.mark.parametrize("frames", [1, 2, 3])
def test_very_short_tracks(frames: int) -> None:
    points, _, pose, template = synthetic_track(frames, seed=4)
    fit = fit_track(face_model(), points, template=template)
    assert fit.beta.shape == (frames, 3)
    assert fit.pose.shape == (frames, 6)
    assert torch.isfinite(fit.beta).all()
    assert (fit.pose - pose)[:, :3].abs().max() < 0.02


def test_iris_landmarks_are_ignored() -> None:
    points = synthetic_track(10, seed=5)[0]
    more = torch.cat([points, torch.full((10, 10, 3), 1e4)], 1)
    assert torch.equal(fit_track(face_model(), more).pose, fit_track(face_model(), points).pose)


def test_rigid_weights_leave_the_mouth_out() -> None:
    weights = rigid_weights(face_model())
    assert weights.sum() == len(set(RIGID))
    assert weights[list(LIPS)].sum() == 0


def test_fit_works_inside_a_callers_inference_mode() -> None:
    """Optimisation needs gradients whatever mode the caller is in."""
    model = face_model()
    points = 100 * model.mean.expand(6, -1, -1) + 200
    plain = fit_track(model, points)
    with torch.inference_mode():
        inside = fit_track(model, points + 0)
    assert torch.allclose(inside.beta, plain.beta, atol=1e-5)
