"""Lip curves: what they measure, and what comparing them finds."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from evaluation_samples import write_clip

from dubbing.demo import demo_puppet
from dubbing.errors import OptionInvalid
from dubbing.evaluation.curves import (
    LipCurve,
    aligned,
    compare_curves,
    correlation,
    resample,
)
from dubbing.evaluation.faces import FaceMotion, made_faces, video_faces
from dubbing.geometry.topology import CHIN, INNER_BOTTOM, LEFT_EYE_OUTER, RIGHT_EYE_OUTER
from dubbing.motion import Motion
from dubbing.puppet import PuppetPose
from dubbing.weights import MORPHABLE, load_morphable, resolve


def movement(times: np.ndarray, seed: int = 0) -> np.ndarray:
    """Smooth movement without a period, a function of time."""
    rng = np.random.default_rng(seed)
    hertz, phase = rng.uniform(0.4, 4, 12), rng.uniform(0, 2 * np.pi, 12)
    return np.sin(2 * np.pi * hertz * times[:, None] + phase).mean(1)


def curve(times: np.ndarray, opening: np.ndarray) -> LipCurve:
    return LipCurve(times, opening, opening * 0.5, 0.4 + opening * 0.2)


def test_equal_curves_agree() -> None:
    times = np.arange(100) / 25
    agreement = compare_curves(curve(times, movement(times)), curve(times, movement(times)))
    assert agreement.opening == pytest.approx(1)
    assert agreement.best == pytest.approx(1)
    assert (agreement.lag, agreement.frames) == (0, 100)
    assert agreement.amplitude == pytest.approx(1)
    assert agreement.width == pytest.approx(1)
    assert agreement.jaw == pytest.approx(1)


def test_width_and_jaw_are_compared_apart_from_the_opening() -> None:
    times = np.arange(100) / 25
    truth = curve(times, movement(times))
    made = LipCurve(times, truth.opening, -truth.width, movement(times, 7))
    agreement = compare_curves(truth, made)
    assert agreement.opening == pytest.approx(1)
    assert agreement.width == pytest.approx(-1)
    assert abs(agreement.jaw) < 0.5


@pytest.mark.parametrize("lag", [-10, -3, 4, 10])
def test_the_lag_of_a_late_curve_is_found(lag: int) -> None:
    times = np.arange(150) / 25
    late = curve(times, 0.3 * movement(times - lag / 25) + 1)
    agreement = compare_curves(curve(times, movement(times)), late)
    assert agreement.lag == lag
    assert agreement.best == pytest.approx(1)
    assert agreement.opening < 0.9
    assert agreement.amplitude == pytest.approx(0.3, rel=0.1)


def test_frame_rates_and_starts_may_differ() -> None:
    slow, fast = np.arange(125) / 25, 0.31 + np.arange(200) / 59.94
    agreement = compare_curves(curve(slow, movement(slow)), curve(fast, movement(fast)))
    assert agreement.opening > 0.99
    assert agreement.lag == 0
    shared = min(slow[-1], fast[-1]) - fast[0]
    assert agreement.frames == pytest.approx(shared * 25, abs=1)


def test_shifting_moves_a_curve_later() -> None:
    times = np.arange(150) / 25
    late = curve(times, movement(times)).shifted(0.2)
    assert compare_curves(curve(times, movement(times)), late).lag == 5


def test_two_curves_are_brought_to_one_grid() -> None:
    a, b = np.arange(30) / 30, 0.1 + np.arange(50) / 50
    truth, made = aligned(curve(a, 2 * a), curve(b, 3 * b))
    np.testing.assert_allclose(truth.times, np.arange(3, 25) / 25)
    np.testing.assert_allclose(truth.opening, 2 * truth.times)
    np.testing.assert_allclose(made.jaw, 0.4 + 0.6 * truth.times)
    none, _ = aligned(curve(a, a), curve(a[:0], a[:0]))
    assert len(none.times) == 0


def test_moments_without_a_face_do_not_count() -> None:
    times = np.arange(100) / 25
    seen = (np.arange(100) < 40) | (np.arange(100) >= 60)
    holey = curve(times[seen], movement(times[seen]))
    wrong = movement(times)
    wrong[41:59] = 50.0
    agreement = compare_curves(holey, curve(times, wrong))
    assert agreement.frames == 80
    assert agreement.opening == pytest.approx(1)


def test_a_short_hole_is_bridged() -> None:
    times = np.array([0.0, 0.04, 0.12, 0.4])
    values = resample(times, np.array([0.0, 1.0, 3.0, 9.0]), np.array([-0.1, 0.0, 0.08, 0.2, 0.4]))
    np.testing.assert_allclose(values, [np.nan, 0, 2, np.nan, 9])


def test_a_curve_without_movement_correlates_with_nothing() -> None:
    times = np.arange(50) / 25
    still = curve(times, np.full(50, 0.1))
    agreement = compare_curves(curve(times, movement(times)), still)
    assert (agreement.opening, agreement.amplitude) == (0.0, pytest.approx(0, abs=1e-9))
    assert correlation(np.zeros(2), np.zeros(2)) == 0.0


def test_unrelated_curves_disagree() -> None:
    times = np.arange(1000) / 25
    agreement = compare_curves(curve(times, movement(times)), curve(times, movement(times, 1)))
    assert abs(agreement.opening) < 0.25


def test_too_short_a_common_part_is_an_error() -> None:
    times = np.arange(100) / 25
    with pytest.raises(OptionInvalid, match="share"):
        compare_curves(curve(times, times), curve(times + 3.5, times))


def test_generated_motion_is_measured_in_eye_distances() -> None:
    model = load_morphable(resolve("default") / f"{MORPHABLE}.safetensors")
    lower = torch.tensor([INNER_BOTTOM, CHIN])
    fall = torch.tensor([0.0, 0.1, 0.2])
    moved = torch.stack([torch.zeros(3), fall, torch.zeros(3)], -1)[:, None]
    faces = made_faces(Motion(moved.expand(-1, 2, -1)), model.mean, lower)
    made = faces.curve
    eyes = float((model.mean[LEFT_EYE_OUTER] - model.mean[RIGHT_EYE_OUTER]).norm())
    np.testing.assert_allclose(made.times, [0, 0.04, 0.08])
    assert made.opening[2] - made.opening[1] == pytest.approx(0.1 / eyes, rel=0.02)
    assert made.jaw[2] - made.jaw[1] == pytest.approx(0.1 / eyes, rel=0.06)  # not quite vertical
    np.testing.assert_allclose(made.width, made.width[0])
    half = made_faces(
        Motion(moved.expand(-1, 2, -1)), model.mean, lower, torch.full((468,), 0.5)
    ).curve
    assert half.jaw[2] - half.jaw[0] == pytest.approx(0.1 / eyes, rel=0.06)


def test_a_motion_can_be_moved_cut_and_held() -> None:
    vertices = torch.randn(10, 468, 3)
    faces = FaceMotion(np.arange(10) / 25, vertices)
    np.testing.assert_allclose(faces.shifted(0.2).times, 0.2 + np.arange(10) / 25)
    assert faces.until(0.2).vertices.equal(vertices[:5])
    held = faces.still(vertices[3])
    assert held.vertices.shape == vertices.shape
    assert np.ptp(held.curve.opening) == 0


def test_a_moving_heads_lips_are_followed(tmp_path: Path) -> None:
    """The portrait's mouth opens as told while its head turns, tilts and shifts."""
    puppet = demo_puppet()
    times = np.arange(36) / 25
    mouth = np.clip(np.sin(2 * np.pi * 1.9 * times), -1, 1)
    poses = [
        PuppetPose(
            yaw=0.06 * np.sin(3 * t), pitch=0.03 * np.cos(4 * t), roll=0.04 * np.sin(5 * t),
            shift_x=4 * t, shift_y=-3 * t, mouth=m,
        )
        for t, m in zip(times.tolist(), mouth.tolist(), strict=True)
    ]  # fmt: skip
    video = write_clip(tmp_path / "clip.mkv", [puppet.frame(p)[::2, ::2] for p in poses])
    model = load_morphable(resolve("default") / f"{MORPHABLE}.safetensors")
    seen = video_faces(video, model).curve
    np.testing.assert_allclose(seen.times, times, atol=1e-3)
    assert np.all(seen.opening >= 0)
    assert compare_curves(curve(times, mouth), seen).opening > 0.85
