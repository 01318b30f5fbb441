"""Each fault of a finished video is seen by the figure that is made for it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from puppet_clips import puppet_clip

from dubbing.dubber import Dubber
from dubbing.errors import DubbingError, MediaFailed, NoAudioStream
from dubbing.evaluation.case_audio import case_speech, write_wav
from dubbing.evaluation.case_figures import CaseJudge, Row, Subject
from dubbing.evaluation.clips import Clip
from dubbing.evaluation.paste_mask import changed_share
from dubbing.evaluation.perceptual import PerceptualMeter
from dubbing.evaluation.protocol_file import make_protocol
from dubbing.evaluation.protocol_names import SELF
from dubbing.evaluation.studio import Studio
from dubbing.evaluation.systems import EngineSystem, Work
from dubbing.evaluation.video_judges import VideoJudges
from dubbing.models.shift_tolerant import ShiftTolerantDistance
from dubbing.options import DubOptions

torch.set_num_threads(1)
START = 0.4
Pictures = list[np.ndarray]


@pytest.fixture(scope="module")
def judge(tmp_path_factory: pytest.TempPathFactory) -> CaseJudge:
    """Of the self-dub of a clip, with ST-LPIPS of random weights."""
    folder = tmp_path_factory.mktemp("sanity")
    clips = [
        Clip(puppet_clip(folder / f"{name}.mkv", START), name) for name in ("speaker", "other")
    ]
    protocol = make_protocol(clips, folder, "test")
    case = next(c for c in protocol.cases if c.protocol == SELF)
    studio = Studio(Dubber.from_pretrained(device="cpu"), folder / "personas")
    judges = VideoJudges.load(None, None, None)
    torch.manual_seed(0)
    meter = PerceptualMeter(ShiftTolerantDistance(), "random")
    judges = replace(judges, pictures=replace(judges.pictures, perceptual=meter))
    source = Subject(studio, clips[0])
    return CaseJudge(case, source, source, source, case_speech(protocol, case), judges, 3)


@pytest.fixture(scope="module")
def truth(judge: CaseJudge) -> Row:
    """The truth judged like any system's result."""
    return judge.judge(judge.source.clip.path).row


def judged(judge: CaseJudge, path: Path, **values: object) -> Row:
    return judge.judge(puppet_clip(path, START, **values)).row  # type: ignore[arg-type]


def test_the_truth_scores_perfect(truth: Row) -> None:
    assert truth["psnr face"] == truth["psnr lower"] == pytest.approx(100)
    assert truth["ssim face"] == truth["ssim lower"] == pytest.approx(1)
    assert truth["st-lpips"] == pytest.approx(0, abs=1e-6)
    assert truth["opening"] == pytest.approx(1, abs=0.03)
    assert truth["amplitude"] == pytest.approx(1, abs=0.05)
    assert truth["lag"] == 0
    assert truth["lmd"] < 1
    assert truth["lmd 68"] < 0.5
    assert truth["sharp mouth"] == truth["sharp cheeks"] == truth["flicker"] == pytest.approx(1)
    assert truth["seam gradient"] == 1
    assert truth["seam colour"] == 0
    assert truth.get("csim", 1) == pytest.approx(1)
    assert truth["style"] == pytest.approx(1, abs=0.05)


def test_a_picture_five_frames_late_is_seen_in_the_lag(judge: CaseJudge, tmp_path: Path) -> None:
    row = judged(judge, tmp_path / "late.mkv", change=lambda p: [p[0]] * 5 + p[:-5])
    assert row["lag"] in (4, 5, 6)
    assert row["opening"] < 0.8


def test_blur_and_a_box_around_the_mouth_are_seen(
    judge: CaseJudge, truth: Row, tmp_path: Path
) -> None:
    def soft(pictures: Pictures) -> Pictures:
        return [cv2.GaussianBlur(p, (0, 0), 1.5) for p in pictures]

    row = judged(judge, tmp_path / "soft.mkv", change=soft)
    assert row["sharp mouth"] < 0.5
    assert row["st-lpips"] > truth["st-lpips"] + 0.005
    assert row["ssim face"] < 0.99

    def boxed(pictures: Pictures) -> Pictures:
        x, y, side = (float(v) for v in judge.source.footage.boxes[10])
        top, left, size = (round(v) for v in (y + 0.55 * side, x + 0.33 * side, 0.34 * side))
        found = []
        for picture in pictures:
            out = picture.astype(np.float32)
            out[top : top + size * 2 // 3, left : left + size] += 25
            found.append(out.clip(0, 255).astype(np.uint8))
        return found

    row = judged(judge, tmp_path / "box.mkv", change=boxed)
    assert row["seam gradient"] > 1.3
    assert row["seam colour"] > 3


def test_a_frozen_mouth_is_seen_in_amplitude_and_closures(
    judge: CaseJudge, truth: Row, tmp_path: Path
) -> None:
    row = judged(judge, tmp_path / "frozen.mkv", frozen=True)
    assert row["amplitude"] < 0.4
    assert row["closures"] <= truth["closures"]
    assert row["opening"] < 0.6
    assert row["lmd"] > 2 * truth["lmd"]


def test_another_person_is_seen_in_csim(judge: CaseJudge, truth: Row, tmp_path: Path) -> None:
    if "csim" not in truth:
        pytest.skip("dlib is not installed")

    def broader(pictures: Pictures) -> Pictures:
        wide = (cv2.resize(p, None, fx=1.35, fy=1.0) for p in pictures)
        return [w[:, (w.shape[1] - p.shape[1]) // 2 :][:, : p.shape[1]] for w, p in
                zip(wide, pictures, strict=True)]  # fmt: skip

    row = judged(judge, tmp_path / "other.mkv", change=broader)
    assert row["csim"] < 0.985


def test_what_is_no_result_is_a_failure(judge: CaseJudge, tmp_path: Path) -> None:
    for make, error in (
        (lambda p: p[:20], MediaFailed),
        (lambda p: [np.full_like(x, 90) for x in p], DubbingError),
    ):
        with pytest.raises(error):
            judged(judge, tmp_path / "bad.mkv", change=make)
    silent = tmp_path / "silent.mkv"
    from evaluation_samples import write_clip

    write_clip(silent, [np.full((64, 64, 3), 9, np.uint8)] * 5)
    with pytest.raises(NoAudioStream):
        judge.judge(silent)


def test_only_what_was_changed_is_masked() -> None:
    random = np.random.default_rng(0)
    source = random.integers(60, 200, (128, 128, 3)).astype(np.uint8)
    noisy = np.clip(source + random.normal(0, 2, source.shape), 0, 255).astype(np.uint8)
    assert changed_share([(source, source)]) is None
    assert changed_share([(noisy, source)]) is None
    pasted = noisy.copy()
    pasted[40:90, 30:80] = 255 - pasted[40:90, 30:80]
    alpha = changed_share([(pasted, source)] * 2)
    assert alpha is not None
    assert alpha[50:80, 40:70].min() > 0.95
    assert alpha[:30].max() < 0.05


def test_what_a_stopped_evaluation_left_is_no_failure(judge: CaseJudge, tmp_path: Path) -> None:
    source = judge.source
    sound, made = tmp_path / "speech.wav", tmp_path / "made.mp4"
    write_wav(sound, judge.speech.samples)
    dubber, persona = source.studio.dubber, source.studio.persona(source.clip)
    options = DubOptions(overwrite=True, audio_codec="aac")
    with (
        pytest.raises(ZeroDivisionError),
        dubber.plan(source.clip.path, sound, made, options, persona),
    ):
        raise ZeroDivisionError
    assert list(tmp_path.glob(".*.dub"))  # the state from which a user could go on
    system = EngineSystem("ours", dubber, persona=lambda video, speaker: persona)
    making = system.make(Work(judge.case, source.clip.path, sound, made))
    assert making.path.is_file()
    assert not list(tmp_path.glob(".*.dub"))
