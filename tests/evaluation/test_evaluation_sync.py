"""The sync score on vectors whose offset is known, and what it says about wrong sound."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dubbing.errors import CheckpointCorrupt, CheckpointNotFound, OptionInvalid
from dubbing.evaluation.mouth_crops import (
    BREADTH,
    HEIGHT,
    cut_mouth,
    mouth_places,
    nearest_frames,
)
from dubbing.evaluation.sync_trials import CheckClip, summary, trials
from dubbing.geometry.topology import LEFT_EYE_OUTER, LIPS, RIGHT_EYE_OUTER
from dubbing.models.speech_encoder import SpeechEncoder, SpeechEncoderConfig
from dubbing.models.sync_net import MouthSyncNet, MouthSyncNetConfig, SyncNet, SyncNetConfig
from dubbing.sync import (
    MAX_OFFSET,
    SYNC,
    SYNC_CROP,
    best_offset,
    clip_offset,
    feature_times,
    load_sync,
    load_sync_crop,
    offset_distances,
    score,
    score_crops,
    score_motion,
    sync_audio,
)
from dubbing.weights import save_network

REACH = 3
SMALL = SyncNetConfig(
    audio_size=16, lower_vertices=20, points=6, shapes=5, width=16, blocks=2, embedding=8
)
SMALL_MOUTH = MouthSyncNetConfig(audio_size=16, channels=8, width=16, blocks=2, embedding=8)


class EchoAudio(nn.Module):
    def forward(self, features: Tensor) -> Tensor:
        return F.normalize(features[:, ::2], dim=-1)


class Echo(SyncNet):
    """Both towers hand on what they are given, so that a test decides what fits."""

    def __init__(self) -> None:
        super().__init__(SMALL)
        self.audio = EchoAudio()  # type: ignore[assignment]

    @property
    def reach(self) -> int:
        return REACH

    def motion(self, lower: Tensor) -> Tensor:
        return F.normalize(lower.flatten(2), dim=-1)


def vectors(frames: int, seed: int = 0) -> Tensor:
    return torch.randn(frames, 8, generator=torch.Generator().manual_seed(seed))


def clip(frames: int, late: int, noise: float = 0.0, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Sound [2 T, 8] and motion [T, 8, 1] that is `late` frames late behind it."""
    source = vectors(frames + 60, seed)
    heard = source[30 : 30 + frames]
    seen = source[30 - late : 30 - late + frames] + noise * vectors(frames, seed + 99)
    return heard.repeat_interleave(2, 0), seen[..., None]


@pytest.mark.parametrize("late", [-15, -4, 0, 7, 15])
def test_score_finds_a_known_shift(late: int) -> None:
    audio, motion = clip(80, late)
    found = score_motion(Echo(), audio, motion)
    assert found.offset == late
    assert found.distance < 1e-3
    assert 1.2 < found.confidence < 1.6  # unrelated unit vectors are sqrt(2) apart
    assert found.frames == 80 - 2 * REACH


def test_confidence_falls_with_noise_and_is_near_nothing_for_other_sound() -> None:
    audio, motion = clip(150, 2)
    clear = score_motion(Echo(), audio, motion)
    noisy = score_motion(Echo(), audio, clip(150, 2, noise=1.0)[1])
    other = score_motion(Echo(), clip(150, 0, seed=7)[0], motion)
    assert clear.confidence > noisy.confidence + 0.2 > other.confidence + 0.4
    assert clear.distance < noisy.distance < other.distance
    assert other.confidence < 0.2


def test_distances_leave_out_ends_and_frames_not_to_be_trusted() -> None:
    audio, motion = clip(60, 0)
    usable = torch.ones(60, dtype=torch.bool)
    usable[40] = False
    rows = offset_distances(Echo(), audio, motion, usable)
    assert rows.shape == (60, 2 * MAX_OFFSET + 1)
    scored = rows[:, MAX_OFFSET].isfinite().nonzero()[:, 0].tolist()
    assert scored == [*range(REACH, 40 - REACH), *range(41 + REACH, 60 - REACH)]
    assert torch.isnan(rows[4, MAX_OFFSET + 5])  # its sound would lie before the clip
    assert rows[rows.isfinite()].min() >= 0
    assert rows[rows.isfinite()].max() <= 2


def test_a_clip_too_short_for_the_search_has_no_score() -> None:
    audio, motion = clip(26, 0)
    with pytest.raises(OptionInvalid, match="frames"):
        score_motion(Echo(), audio, motion)
    assert best_offset(offset_distances(Echo(), audio, motion)) == (0, 0.0)
    assert clip_offset(Echo(), audio, motion) == (0, False)


def test_an_offset_is_sure_only_where_the_frames_agree() -> None:
    audio, motion = clip(120, -3, noise=0.5)
    assert clip_offset(Echo(), audio, motion) == (-3, True)
    assert not clip_offset(Echo(), clip(120, 0, seed=5)[0], motion)[1]
    assert clip_offset(Echo(), *clip(120, 14)) == (14, False)  # at the end of the search
    tie = torch.full((100, 2 * MAX_OFFSET + 1), 1.4)
    tie[:, 5] = tie[:, 25] = 1.0
    assert best_offset(tie)[1] < 1


def test_score_of_a_curve_is_its_minimum_against_its_median() -> None:
    rows = torch.full((30, 31), 1.5)
    rows[:, 20] = 0.5
    rows[0] = float("nan")
    found = score(rows)
    assert (found.offset, found.frames) == (5, 29)
    assert math.isclose(found.distance, 0.5, abs_tol=1e-6)
    assert math.isclose(found.confidence, 1.0, abs_tol=1e-6)


def test_trials_tell_true_sound_from_wrong_sound() -> None:
    usable = torch.ones(100, dtype=torch.bool)
    clips = [CheckClip(f"c{k}", *clip(100, 0, 0.5, seed=k), usable) for k in range(3)]
    clips.append(CheckClip("short", *clip(20, 0), usable[:20]))
    rows = trials(Echo(), clips)
    assert [r.name for r in rows] == ["c0", "c1", "c2"]
    for r in rows:
        assert r.offset == 0
        assert r.shifted == r.other == r.shifted_clip == r.other_clip == r.aligned == 1.0
    late = trials(Echo(), [CheckClip("late", *clip(100, 9, 0.5), usable), clips[1]])[0]
    assert (late.offset, late.aligned) == (9, 1.0)
    assert late.shifted < 0.75
    total = summary(rows)
    assert (total["clips"], total["within_1"], total["sure"]) == (3, 1.0, 1.0)


def test_experts_are_saved_and_loaded(tmp_path: Path) -> None:
    torch.manual_seed(0)
    net, mouth_net = SyncNet(SMALL), MouthSyncNet(SMALL_MOUTH)
    net.set_points(torch.arange(6) * 3)
    save_network(tmp_path / "a", SYNC, net, half=True)
    save_network(tmp_path / "b", SYNC_CROP, mouth_net)
    loaded, loaded_mouth = load_sync(tmp_path / "a"), load_sync_crop(tmp_path / "b")
    lower = 0.03 * torch.randn(1, 30, 20, 3)
    assert loaded.points.tolist() == [0, 3, 6, 9, 12, 15]
    assert torch.allclose(loaded.motion(lower), net.eval().motion(lower), atol=0.02)
    assert loaded_mouth.config == SMALL_MOUTH
    assert not any(p.requires_grad for p in loaded.parameters())
    with pytest.raises(CheckpointCorrupt):
        load_sync_crop(tmp_path / "a")
    with pytest.raises(CheckpointNotFound):
        load_sync(tmp_path / "c")


def test_sound_of_a_clip_comes_twice_per_frame_from_the_frozen_half() -> None:
    torch.manual_seed(0)
    encoder = SpeechEncoder(SpeechEncoderConfig(width=16, heads=2, ffn_width=32))
    samples = 0.1 * torch.randn(32000)
    audio = sync_audio(encoder, samples, 50)
    assert audio.shape == (100, 16)
    for p in encoder.upper_parameters():
        p.data.mul_(0)
    assert torch.equal(sync_audio(encoder, samples, 50), audio)
    times = feature_times(3).tolist()
    assert times == pytest.approx([-0.01, 0.01, 0.03, 0.05, 0.07, 0.09])


def test_crops_are_scored_as_bytes_or_as_shares() -> None:
    torch.manual_seed(0)
    net = MouthSyncNet(SMALL_MOUTH).eval()
    crops = torch.randint(0, 255, (60, HEIGHT, BREADTH), dtype=torch.uint8)
    audio = torch.randn(120, 16)
    assert score_crops(net, audio, crops) == score_crops(net, audio, crops.float() / 255)


def face(roll: float, size: float) -> np.ndarray:
    """Landmarks [478, 2] of which only eyes and lips matter, rolled around (200, 150)."""
    points = np.zeros((478, 2), np.float32)
    points[:, 1] = -size / 2
    points[LEFT_EYE_OUTER], points[RIGHT_EYE_OUTER] = (-size / 4, -size / 4), (size / 4, -size / 4)
    for k, v in enumerate(LIPS):
        angle = 2 * np.pi * k / len(LIPS)
        points[v] = size * 0.1 * np.cos(angle), size * (0.2 + 0.05 * np.sin(angle))
    c, s = np.cos(roll), np.sin(roll)
    return points @ np.array([[c, s], [-s, c]], np.float32) + np.array([200, 150], np.float32)


@pytest.mark.parametrize(("roll", "size"), [(0.0, 100.0), (0.5, 100.0), (-0.3, 180.0)])
def test_mouths_are_cut_upright_and_of_one_size(roll: float, size: float) -> None:
    points = face(roll, size)
    picture = np.full((360, 400, 3), 40, np.uint8)
    # a bright bar from corner to corner of the lips, thick as a tenth of the face
    right, down = np.array([np.cos(roll), np.sin(roll)]), np.array([-np.sin(roll), np.cos(roll)])
    middle = np.array([200, 150]) + 0.2 * size * down
    rows, columns = np.mgrid[:360, :400]
    across = (columns - middle[0]) * right[0] + (rows - middle[1]) * right[1]
    below = (columns - middle[0]) * down[0] + (rows - middle[1]) * down[1]
    picture[(np.abs(across) < 0.1 * size) & (np.abs(below) < 0.05 * size)] = 220
    box = np.array([[0, 0, 1.1 * size]], np.float32)
    place = mouth_places(points[None], box)[0]
    assert place[3] == pytest.approx(roll, abs=1e-3)
    cut = cut_mouth(picture, place)
    assert cut.shape == (HEIGHT, BREADTH)
    bright = cut > 130
    wide, high = bright.any(0).sum(), bright.any(1).sum()
    assert wide == pytest.approx(BREADTH * 0.2 / (0.44 * 1.1), abs=3)
    assert high == pytest.approx(BREADTH * 0.1 / (0.44 * 1.1), abs=3)
    where = np.argwhere(bright).mean(0)
    assert where[1] == pytest.approx((BREADTH - 1) / 2, abs=1.5)
    assert where[0] == pytest.approx((HEIGHT - 1) / 2 - BREADTH * 0.02 / 0.44, abs=1.5)


def test_nearest_frames_of_other_frame_rates_and_holes() -> None:
    nearest, usable = nearest_frames(np.arange(31) / 30)
    assert nearest[:6].tolist() == [0, 1, 2, 4, 5, 6]
    assert len(nearest) == 26
    assert usable.all()
    nearest, usable = nearest_frames(np.array([0.2, 0.24, 0.28, 0.44]))
    assert nearest.tolist() == [0, 0, 0, 0, 0, 0, 1, 2, 2, 2, 3, 3]
    assert usable.nonzero()[0].tolist() == [5, 6, 7, 11]
