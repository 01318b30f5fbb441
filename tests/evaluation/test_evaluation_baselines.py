"""Systems that nobody had to train: the late copy, the resting mouth, the mesh warp."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from evaluation_samples import load_script
from puppet_clips import FRAMES, SIDE, puppet_clip

from dubbing.evaluation.baselines import RestingDubber, WarpingDubber, copy_late
from dubbing.evaluation.case_audio import write_wav
from dubbing.evaluation.clips import Clip
from dubbing.media.audio import load_speech
from dubbing.media.reader import VideoReader
from dubbing.persona import Persona

torch.set_num_threads(1)


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Clip:
    folder = tmp_path_factory.mktemp("baselines")
    return Clip(puppet_clip(folder / "a.mkv", 0.4), "ann")


@pytest.fixture(scope="module")
def warping() -> WarpingDubber:
    return WarpingDubber.from_pretrained(device="cpu")


@pytest.fixture(scope="module")
def persona(clip: Clip, warping: WarpingDubber) -> Persona:
    return warping.prepare(clip.path)


def pictures(path: Path) -> list[np.ndarray]:
    with VideoReader(path) as reader:
        return [frame.rgb() for frame in reader]


def test_a_late_copy_shows_every_frame_later(clip: Clip, tmp_path: Path) -> None:
    audio = tmp_path / "speech.wav"
    write_wav(audio, load_speech(clip.path))
    made = tmp_path / "late.mp4"
    copy_late(clip.path, audio, made, 0.4)
    source, late = pictures(clip.path), pictures(made)
    assert len(late) == len(source) == FRAMES
    for k in (0, 4, 10, 25, FRAMES - 1):
        error = [np.abs(late[k].astype(int) - p).mean() for p in source]
        assert error[abs(k - 10)] < 3
        assert abs(int(np.argmin(error)) - abs(k - 10)) <= 1
    assert len(load_speech(made)) == pytest.approx(FRAMES / 25 * 16000, abs=1100)


def test_a_resting_mouth_does_not_move(warping: WarpingDubber, persona: Persona) -> None:
    dubber = RestingDubber(warping.weights, warping.device, warping.checkpoint)
    motion = dubber.drive(torch.randn(16000), 1.0, persona)
    assert len(motion.lower) >= 25
    assert motion.at(0.3).equal(motion.at(0.77))
    lower = dubber.weights.geometry.lower
    rest = dubber.weights.morphable.expression_vertices(persona.rest)[lower]
    torch.testing.assert_close(motion.at(0.0), rest)


def test_the_mesh_warp_changes_the_lower_face_alone(
    clip: Clip, warping: WarpingDubber, persona: Persona, tmp_path: Path
) -> None:
    made = tmp_path / "warp.mp4"
    report = warping.dub(clip.path, clip.path, made, persona=persona)
    assert report.frames_dubbed == FRAMES
    source, warped = pictures(clip.path), pictures(made)
    change = np.mean([np.abs(a.astype(int) - b) for a, b in zip(source, warped, strict=True)], 0)
    change = change.mean(-1)
    middle = slice(SIDE // 3, 2 * SIDE // 3)
    below, above = change[SIDE // 2 :, middle], change[: SIDE // 4]
    assert below.max() > 2 * above.max()
    assert above.mean() < 1.5  # what the encoder does


def test_the_mesh_warp_is_a_program_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    program = load_script("mesh_warp_dub")
    missing = [str(tmp_path / name) for name in ("no.mp4", "no.wav", "out.mp4")]
    assert program.main([*missing, "--device", "cpu"]) == 3
    assert "no.mp4" in capsys.readouterr().err
