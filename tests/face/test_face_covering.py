"""Covered mouths, blurred faces, and the rule that says which frames can be dubbed."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from dubbing.demo import demo_pose
from dubbing.evaluation.cases.people import covering, landmarks_of, other_person, small_puppet
from dubbing.face.appearance import MIN_PATTERN, FaceSampler, sharpness
from dubbing.face.faults import confidence, covered, frame_faults
from dubbing.face.limits import BLURRED, COVERED, UNSURE, FaceLimits
from dubbing.face.tracker import FaceTrack, FaceTracker
from dubbing.geometry.fit import FaceFit
from dubbing.weights import MORPHABLE, PACKAGED, load_morphable

Picture = NDArray[np.uint8]

KINDS = ("hand", "microphone", "sheet")
RISE = (10, 14)  # the cover comes up between these frames and goes down after 20 to 24
FRAMES = 32


@pytest.fixture(scope="module")
def sampler() -> FaceSampler:
    return FaceSampler(load_morphable(PACKAGED / f"{MORPHABLE}.safetensors"))


@pytest.fixture(scope="module")
def speaking() -> list[Picture]:
    """[240, 240, 3] RGB pictures of a speaker who talks, smiles and turns a little."""
    puppet = small_puppet()
    return [puppet.frame(demo_pose(0.08 * k)) for k in range(FRAMES)]


def rise(k: int) -> float:
    up = np.interp(k, [RISE[0] - 1, RISE[1], 20, 25], [0.0, 1.0, 1.0, 0.0])
    return float(up)


def tracked(pictures: list[Picture], sampler: FaceSampler) -> FaceTrack:
    with FaceTracker(sampler=sampler) as tracker:
        for picture in pictures:
            tracker.add(picture)
        (track,) = tracker.finish()
    return track


def test_a_free_mouth_is_never_covered(speaking: list[Picture], sampler: FaceSampler) -> None:
    """While it speaks, in changing light, and next to a strong shadow."""
    light = np.linspace(1.0, 0.55, FRAMES)
    slope = np.linspace(1.0, 0.7, 240)[None, :, None]
    shown = [np.rint(p * w * slope**k).astype(np.uint8)
             for k, (p, w) in enumerate(zip(speaking, light, strict=True))
             for k in [min(k / FRAMES, 1.0)]]  # fmt: skip
    for pictures in (speaking, shown):
        track = tracked(pictures, sampler)
        assert len(track.visible) == len(track.sharp) == len(track.frames) == FRAMES
        assert min(track.visible) > 0.6
        assert min(track.sharp) > 0.4


@pytest.mark.parametrize("kind", KINDS)
def test_what_comes_before_the_mouth_is_seen(
    kind: str, speaking: list[Picture], sampler: FaceSampler
) -> None:
    points = landmarks_of(speaking[0])  # the head moves by a few pixels only
    pictures = [
        covering(kind, p, points, rise(k)) if rise(k) > 0 else p for k, p in enumerate(speaking)
    ]
    track = tracked(pictures, sampler)
    flags = covered(np.array(track.visible), FaceLimits().min_visible)
    by_frame = dict(zip(track.frames, flags.tolist(), strict=True))
    full = [k for k in range(FRAMES) if rise(k) > 0.9]
    free = [k for k in range(FRAMES) if rise(k) == 0 and not RISE[0] - 2 <= k <= 27]
    assert len(full) >= 7
    assert all(by_frame.get(k, True) for k in full)  # a face that is lost is not dubbed either
    assert not any(by_frame[k] for k in free)


def test_a_short_track_says_nothing(speaking: list[Picture], sampler: FaceSampler) -> None:
    points = landmarks_of(speaking[0])
    samples = np.stack([sampler.sample(p, points) for p in speaking[: MIN_PATTERN - 1]])
    assert (sampler.visibility(samples) == 1).all()


def test_samples_are_the_face_wherever_it_is(portrait: Picture, sampler: FaceSampler) -> None:
    points = landmarks_of(portrait)
    here = sampler.sample(portrait, points)
    assert here.dtype == np.uint8
    assert here.shape == (len(sampler.places), 4)
    assert (here[:, 3] > 0).mean() > 0.9
    moved = np.roll(portrait, (9, -14), (0, 1))
    there = sampler.sample(moved, points + np.array([-14, 9, 0], np.float32))
    assert np.abs(here[:, :3].astype(int) - there[:, :3]).max() <= 2
    double = cv2.resize(portrait, (640, 640), interpolation=cv2.INTER_LINEAR)
    large = sampler.sample(np.asarray(double, np.uint8), points * 2)
    assert np.abs(here[:, :3].astype(int) - large[:, :3]).mean() < 4
    gone = sampler.sample(portrait, points + np.array([1000, 0, 0], np.float32))
    assert not gone[:, 3].any()


def test_two_people_differ_at_the_same_points(portrait: Picture, sampler: FaceSampler) -> None:
    own = sampler.sample(portrait, landmarks_of(portrait))
    other = other_person(portrait)
    theirs = sampler.sample(other, landmarks_of(other))
    assert np.abs(own[:, :3].astype(int) - theirs[:, :3]).mean() > 30


def test_sharpness_falls_with_blur_not_with_size(portrait: Picture) -> None:
    points = landmarks_of(portrait)
    face = np.ptp(points[:, 1])
    sharp = sharpness(portrait, points)
    assert 0.45 < sharp < 0.8
    larger = np.asarray(cv2.resize(portrait, (960, 960), interpolation=cv2.INTER_CUBIC), np.uint8)
    assert abs(sharpness(larger, points * 3) - sharp) < 0.06
    soft = np.asarray(cv2.GaussianBlur(portrait, (0, 0), 0.02 * face), np.uint8)
    lost = np.asarray(cv2.GaussianBlur(portrait, (0, 0), 0.06 * face), np.uint8)
    assert sharp > sharpness(soft, points) > FaceLimits().min_sharpness > sharpness(lost, points)
    assert sharpness(np.full_like(portrait, 90), points) == 0
    assert sharpness(portrait, points + 1000) == 0


def fit_of(yaw: float = 0.0, error: float = 0.004) -> FaceFit:
    pose = torch.tensor([[0.0, np.deg2rad(yaw), 0.0, np.log(60.0), 160.0, 160.0]])
    return FaceFit(
        torch.zeros(1), torch.zeros(468, 3), torch.zeros(1, 1), pose.float(), torch.tensor([error])
    )


def face_of(size: float) -> torch.Tensor:
    return torch.tensor([[[0.0, 0.0, 0.0], [size * 0.8, size, 0.0]]])


def test_the_rule_and_its_limits() -> None:
    limits = FaceLimits()
    assert frame_faults(fit_of(), face_of(120)) == [""]
    assert frame_faults(fit_of(), face_of(47)) == [limits.too_small]
    assert frame_faults(fit_of(51), face_of(120)) == [limits.turned]
    assert frame_faults(fit_of(-51), face_of(120)) == [limits.turned]
    assert frame_faults(fit_of(error=0.021), face_of(120)) == [UNSURE]
    assert frame_faults(fit_of(), face_of(120), sharp=[0.3]) == [BLURRED]
    assert frame_faults(fit_of(), face_of(120), visible=[0.4]) == [COVERED]
    wide = FaceLimits(80, 20, 0.1, 0.1, -1)
    for fit, size in ((fit_of(75), 120), (fit_of(), 24), (fit_of(error=0.03), 120)):
        assert frame_faults(fit, face_of(size), wide, [0.2], [-0.5]) == [""]
    assert "20 px" in wide.too_small
    assert "80 degrees" in wide.turned


def test_confidence_is_a_half_at_the_limit() -> None:
    assert confidence(fit_of(error=0.02)).item() == pytest.approx(0.5)
    assert confidence(fit_of(error=0.005)).item() > 0.95
    assert confidence(fit_of(error=0.0)).item() == 1


def test_neighbours_of_covered_frames_are_covered() -> None:
    visible = np.array([1, 1, 1, 0.2, 1, 1, 1, 0.1, 1, 1, 1, 1, 1, 1, 0.3, 1])
    flags = covered(visible, 0.5)
    assert np.flatnonzero(flags).tolist() == [2, 3, 4, 5, 6, 7, 8, 13, 14, 15]
    assert not covered(visible, -1).any()
