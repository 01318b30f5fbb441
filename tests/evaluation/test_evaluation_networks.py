"""Judges whose weights are the user's, on random weights; distances of sets; intervals."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from dubbing.errors import CheckpointCorrupt, CheckpointNotFound, OptionInvalid
from dubbing.evaluation import syncnet
from dubbing.evaluation.frechet import frechet_distance, load_inception
from dubbing.evaluation.intervals import bootstrap
from dubbing.evaluation.landmarks68 import MOUTH, lip_error
from dubbing.evaluation.syncnet import (
    MAX_OFFSET,
    face_places,
    face_square,
    load_lse,
    lse_of,
    mfcc,
)
from dubbing.models.inception import FidInception
from dubbing.models.syncnet import ChungSyncNet

torch.set_num_threads(1)


@pytest.mark.parametrize("late", [-5, 0, 5])
def test_sound_shifted_by_five_frames_is_seen_in_the_offset(late: int) -> None:
    torch.manual_seed(0)
    heard = torch.randn(80, 32)
    seen = heard.roll(late, 0) + 0.1 * torch.randn(80, 32)
    found = lse_of(seen, heard)
    assert found.offset == late
    assert found.confidence > 3
    assert found.distance < 2
    assert lse_of(torch.randn(80, 32), heard).confidence < found.confidence / 3


def test_syncnet_scores_a_clip_with_weights_from_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(syncnet, "MIN_WINDOWS", 3)
    torch.manual_seed(0)
    net = ChungSyncNet()
    names = set(net.state_dict())
    assert {"netcnnaud.0.weight", "netcnnlip.18.weight", "netfclip.3.bias"} <= names
    file = tmp_path / "syncnet_v2.model"
    torch.save(net.state_dict(), file)
    meter = load_lse(file)
    random = np.random.default_rng(0)
    faces = random.integers(0, 256, (8, 224, 224, 3)).astype(np.uint8)
    found = meter.score(faces, random.normal(0, 0.1, 8 * 640).astype(np.float32))
    assert np.isfinite([found.confidence, found.distance]).all()
    assert abs(found.offset) <= MAX_OFFSET
    assert found.confidence >= 0
    with pytest.raises(OptionInvalid, match="more than a second"):
        meter.score(faces[:7], np.zeros(7 * 640, np.float32))
    file.write_bytes(b"no weights")
    with pytest.raises(CheckpointCorrupt, match="SyncNet"):
        load_lse(file)
    with pytest.raises(CheckpointNotFound):
        load_lse(tmp_path / "none")


def test_mfcc_has_a_column_per_hundredth_of_a_second() -> None:
    hiss = np.random.default_rng(0).normal(0, 0.02, 16000)
    quiet, loud = (mfcc((a * hiss).astype(np.float32)) for a in (1, 10))
    assert quiet.shape == (13, 99)
    # ten times the amplitude is a hundred times the energy, and leaves the shape of the spectrum
    np.testing.assert_allclose((loud - quiet)[0], np.log(100), atol=0.05)
    np.testing.assert_allclose(loud[1:], quiet[1:], atol=0.1)
    dull = mfcc(np.convolve(hiss, np.ones(20) / 20, "same").astype(np.float32))
    assert dull[1].mean() > quiet[1].mean() + 5  # more below than above
    assert np.isfinite(mfcc(np.zeros(4000, np.float32))).all()


def test_faces_for_syncnet_are_steady_squares() -> None:
    boxes = np.tile([100.0, 80, 180, 200], (20, 1))
    boxes[7] += 30  # one bad frame
    places = face_places(boxes)
    np.testing.assert_allclose(places, np.tile([140, 140, 60], (20, 1)))
    picture = np.zeros((240, 320, 3), np.uint8)
    picture[140, 140] = 255
    cut = face_square(picture, places[0])
    assert cut.shape == (224, 224, 3)
    row, column = np.unravel_index(cut[..., 0].argmax(), (224, 224))
    assert abs(row - 224 * 60 / 168) < 3
    assert abs(column - 112) < 3
    assert (face_square(picture, np.array([10.0, 10, 60]))[0, 0] == 110).all()


def test_inception_is_read_from_a_file(tmp_path: Path) -> None:
    torch.manual_seed(0)
    net = FidInception()
    names = set(net.state_dict())
    assert "Mixed_6c.branch7x7dbl_3.bn.running_var" in names
    assert "Mixed_7c.branch3x3dbl_3b.conv.weight" in names
    assert net.state_dict()["fc.weight"].shape == (1008, 2048)
    assert sum(v.numel() for n, v in net.named_parameters() if "fc" not in n) == 21_785_568
    file = tmp_path / "inception.pth"
    torch.save(net.state_dict(), file)
    encoder = load_inception(file)
    picture = np.random.default_rng(0).integers(0, 256, (96, 96, 3)).astype(np.uint8)
    assert encoder.encode(picture).shape == (2048,)
    assert "2048-d" in encoder.version
    file.write_bytes(b"")
    with pytest.raises(CheckpointCorrupt, match="Inception"):
        load_inception(file)


def test_the_frechet_distance_is_that_of_two_gaussians() -> None:
    random = np.random.default_rng(0)
    a = random.normal(size=(4000, 4))
    assert frechet_distance(a, a) == pytest.approx(0, abs=1e-6)
    moved = frechet_distance(a, a + np.array([3.0, 0, 0, 0]))
    assert moved == pytest.approx(9, abs=1e-6)
    wider = frechet_distance(a, 2 * a)  # (2 - 1)^2 per dimension
    assert wider == pytest.approx(4, rel=0.05)
    assert frechet_distance(a[:10], a) is None


def test_an_interval_narrows_with_speakers_not_with_their_clips() -> None:
    random = np.random.default_rng(0)
    people = random.normal(size=10)
    values = np.repeat(people, 8) + random.normal(0, 0.01, 80)
    names = [f"s{k}" for k in range(10) for _ in range(8)]
    grouped = bootstrap(values.tolist(), names)
    apart = bootstrap(values.tolist(), [str(k) for k in range(80)])
    assert grouped is not None
    assert apart is not None
    assert grouped.mean == apart.mean == pytest.approx(values.mean())
    assert grouped.low < grouped.mean < grouped.high
    assert grouped.high - grouped.low > 2 * (apart.high - apart.low)
    assert bootstrap([], []) is None
    single = bootstrap([1.0, 2.0], ["ann", "ann"])
    assert single is not None
    assert single.low == single.high == 1.5


def test_the_independent_landmarks_forgive_the_head_and_see_the_lips() -> None:
    truth = np.random.default_rng(0).uniform(50, 200, (68, 2))
    angle = 0.2
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    assert lip_error(truth, 1.3 * truth @ turn + [20, -7]) == pytest.approx(0, abs=1e-9)
    lower = truth.copy()
    unit = np.linalg.norm(truth[36] - truth[45])
    lower[list(MOUTH), 1] += 0.1 * unit
    assert lip_error(truth, lower) == pytest.approx(0.1)
