"""The shipped sync experts on lips that fit: a delay of five frames is seen as five frames."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from evaluation_samples import write_clip
from puppet_clips import puppet_clip
from torch import Tensor

from dubbing.demo import demo_speech
from dubbing.dubber import Dubber
from dubbing.evaluation.case_audio import case_speech, write_wav
from dubbing.evaluation.case_figures import CaseJudge, Row, Subject
from dubbing.evaluation.clips import Clip
from dubbing.evaluation.protocol_file import make_protocol
from dubbing.evaluation.protocol_names import SELF
from dubbing.evaluation.studio import Studio
from dubbing.evaluation.video_judges import VideoJudges
from dubbing.media.audio import SPEECH_RATE, load_speech
from dubbing.media.reader import VideoReader
from dubbing.motion import RATE, drive
from dubbing.options import DubOptions
from dubbing.sync import load_sync, score_motion, sync_audio

torch.set_num_threads(1)
LATE = 5


@pytest.fixture(scope="module")
def dubber() -> Dubber:
    return Dubber.from_pretrained("default", device="cpu")


@pytest.fixture(scope="module")
def spoken(dubber: Dubber) -> tuple[Tensor, Tensor]:
    """What the experts hear of the demo's speech, and the lips that stage 1 makes for it."""
    weights = dubber.weights
    samples = torch.from_numpy(load_speech(demo_speech()))
    frames = len(samples) * RATE // SPEECH_RATE
    samples = samples[: frames * SPEECH_RATE // RATE]
    net, rest = weights.geometry, torch.zeros(len(weights.morphable.expression))
    motion = drive(
        dubber.features, net, weights.morphable, samples, frames / RATE, net.mean,
        net.average_style, rest,
    )  # fmt: skip
    return sync_audio(weights.speech_encoder, samples, frames).cpu(), motion.lower[:frames]


@pytest.mark.parametrize("late", [0, LATE, -LATE])
def test_late_motion_is_seen(spoken: tuple[Tensor, Tensor], late: int) -> None:
    audio, motion = spoken
    found = score_motion(load_sync(), audio, motion.roll(late, 0))
    assert found.offset == late
    assert found.confidence > 0.5


def test_other_sound_and_a_mouth_at_rest_are_no_match(spoken: tuple[Tensor, Tensor]) -> None:
    audio, motion = spoken
    expert = load_sync()
    fits = score_motion(expert, audio, motion).confidence
    assert score_motion(expert, audio.flip(0), motion).confidence < 0.4 * fits
    assert score_motion(expert, audio, motion[:1].expand_as(motion)).confidence < 0.1 * fits


def test_a_late_picture_is_seen_in_the_finished_video(dubber: Dubber, tmp_path: Path) -> None:
    """Dub a clip, hold its picture back by five frames, judge both videos."""
    clips = [Clip(puppet_clip(tmp_path / f"{n}.mkv", 0.4, frames=100), n) for n in ("a", "b")]
    protocol = make_protocol(clips, tmp_path, "test")
    case = next(c for c in protocol.cases if c.protocol == SELF)
    source = Subject(Studio(dubber, tmp_path / "personas"), clips[0])
    speech = case_speech(protocol, case)
    judge = CaseJudge(case, source, source, source, speech, VideoJudges.load(None, None, None), 2)
    sound, dubbed = tmp_path / "speech.wav", tmp_path / "dubbed.mkv"
    write_wav(sound, speech.samples)
    persona = source.studio.persona(clips[0])
    dubber.dub(clips[0].path, sound, dubbed, DubOptions(), persona)
    with VideoReader(dubbed) as reader:
        pictures = [frame.rgb() for frame in reader]

    def judged(late: int) -> Row:
        shown = [pictures[max(k - late, 0)] for k in range(len(pictures))]
        heard = (speech.samples * 32767).astype(np.int16)
        path = tmp_path / f"late{late}.mkv"
        write_clip(path, shown, heard, codec="libx264", fmt="yuv420p", crf=6)
        return judge.judge(path).row

    now, later = judged(0), judged(LATE)
    assert (now["sync offset"], later["sync offset"]) == (0, LATE)
    assert later["lag"] - now["lag"] == LATE
    assert min(now["sync conf"], later["sync conf"]) > 0.2
