"""A short talking puppet, its speech, and one engine for all tests of the whole path."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from dubbing.demo import demo_pose, demo_puppet, demo_speech
from dubbing.dubber import Dubber
from dubbing.media.audio import decode_audio
from dubbing.persona import Persona

RATE = 25
FRAMES = 30
SIZE = 320
BLANK = (12, 13, 14)  # frames without a face


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("engine")


@pytest.fixture(scope="session")
def pictures() -> list[NDArray[np.uint8]]:
    """The puppet speaking, [320, 320, 3] RGB, every third frame of the demo."""
    puppet = demo_puppet()
    out = []
    for k in range(FRAMES):
        picture = av.VideoFrame.from_ndarray(puppet.frame(demo_pose(k * 0.12)), "rgb24")
        out.append(picture.reformat(SIZE, SIZE).to_ndarray(format="rgb24"))
    return out


def write_clip(path: Path, pictures: list[NDArray[np.uint8]], times: list[int]) -> Path:
    """Lossless H.264 with the given PTS in ticks of 1/600 s."""
    with av.open(str(path), "w", options={"video_track_timescale": "600"}) as sink:
        stream = sink.add_stream("libx264", rate=RATE)
        stream.width = stream.height = pictures[0].shape[0]
        stream.pix_fmt = "yuv420p"
        stream.options = {"crf": "8", "preset": "ultrafast"}
        stream.codec_context.time_base = Fraction(1, 600)
        for picture, time in zip(pictures, times, strict=True):
            frame = av.VideoFrame.from_ndarray(picture, "rgb24")
            frame.pts, frame.time_base = time, Fraction(1, 600)
            sink.mux(stream.encode(frame))
        sink.mux(stream.encode(None))
    return path


def write_speech(path: Path, seconds: float, start: float = 0.3, silence: float = 0.0) -> Path:
    """A piece of the shipped synthesised speech as 16-bit FLAC, with silence after it."""
    samples, rate = decode_audio(demo_speech())
    part = samples[:, round(start * rate) : round((start + seconds) * rate)]
    part = np.concatenate([part, np.zeros((1, round(silence * rate)), part.dtype)], 1)
    with av.open(str(path), "w") as sink:
        stream = sink.add_stream("flac", rate=rate)
        stream.layout = "mono"
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(part), "s16", "mono")
        frame.sample_rate = rate
        sink.mux(stream.encode(frame))
        sink.mux(stream.encode(None))
    return path


@pytest.fixture(scope="session")
def clip(folder: Path, pictures: list[NDArray[np.uint8]]) -> Path:
    """Variable frame rate: every fifth frame lasts longer. Three frames show no face."""
    shown = [np.full_like(p, 90) if k in BLANK else p for k, p in enumerate(pictures)]
    steps = [36 if k % 5 == 0 else 24 for k in range(FRAMES)]
    times = [sum(steps[:k]) for k in range(FRAMES)]
    return write_clip(folder / "clip.mp4", shown, times)


@pytest.fixture(scope="session")
def speech(folder: Path) -> Path:
    return write_speech(folder / "speech.flac", 1.0)


@pytest.fixture(scope="session")
def dubber() -> Iterator[Dubber]:
    yield Dubber.from_pretrained(device="cpu")


@pytest.fixture(scope="session")
def persona(dubber: Dubber, clip: Path) -> Persona:
    return dubber.prepare(clip)
