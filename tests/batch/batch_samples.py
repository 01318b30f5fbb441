"""Tiny footage for batches: a talking puppet, speech, and files that are neither."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import torch
from numpy.typing import NDArray

from dubbing.demo import demo_pose, demo_puppet, demo_speech
from dubbing.dubber import Dubber
from dubbing.evaluation.cases.people import other_person, small_puppet
from dubbing.media.audio import decode_audio
from dubbing.options import DubOptions

SIZE = 256
FRAMES = 10


def write_clip(path: Path, phase: float, frames: int = FRAMES) -> Path:
    """The demo's puppet from `phase` seconds on, 25 frames per second."""
    puppet = demo_puppet()
    return _encode(
        path, (SIZE, SIZE), (puppet.frame(demo_pose(phase + k * 0.12)) for k in range(frames))
    )


def write_pair(path: Path, frames: int = FRAMES) -> Path:
    """Two people side by side, [240, 480] pixels; the left one talks."""
    puppet = small_puppet()
    own = [puppet.frame(demo_pose(0.12 * k)) for k in range(frames)]
    other = other_person(own[0])
    return _encode(
        path, (480, 240), (np.hstack([p, np.roll(other, k % 3, 1)]) for k, p in enumerate(own))
    )


def _encode(path: Path, size: tuple[int, int], pictures: Iterable[NDArray[np.uint8]]) -> Path:
    with av.open(str(path), "w") as sink:
        stream = sink.add_stream("libx264", rate=25)
        stream.width, stream.height = size
        stream.pix_fmt = "yuv420p"
        stream.options = {"crf": "8", "preset": "ultrafast"}
        for k, shown in enumerate(pictures):
            picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(shown), "rgb24")
            small = picture.reformat(*size)
            small.pts, small.time_base = k, Fraction(1, 25)
            sink.mux(stream.encode(small))
        sink.mux(stream.encode(None))
    return path


def write_speech(path: Path, start: float, seconds: float = 0.4) -> Path:
    """A piece of the shipped speech as 16-bit FLAC."""
    samples, rate = decode_audio(demo_speech())
    part = np.ascontiguousarray(samples[:, round(start * rate) : round((start + seconds) * rate)])
    with av.open(str(path), "w") as sink:
        stream = sink.add_stream("flac", rate=rate)
        stream.layout = "mono"
        frame = av.AudioFrame.from_ndarray(part, "s16", "mono")
        frame.sample_rate = rate
        sink.mux(stream.encode(frame))
        sink.mux(stream.encode(None))
    return path


def write_jobs(path: Path, jobs: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(job) + "\n" for job in jobs))
    return path


class Alone:
    """What one process alone makes of a job: the reference for batches."""

    def __init__(self, inputs: Path, folder: Path):
        torch.set_num_threads(1)  # as the workers
        self._inputs, self._folder = inputs, folder
        self._dubber = Dubber.from_pretrained(device="cpu")

    def content(self, video: str, audio: str, options: DubOptions) -> bytes:
        """The bytes of the result."""
        output = self._folder / "alone.mp4"
        self._dubber.dub(self._inputs / video, self._inputs / audio, output, options)
        return output.read_bytes()

    def several(
        self, video: str, speeches: Mapping[str, str], options: DubOptions, mix: str | None = None
    ) -> bytes:
        """The same for several speakers."""
        output = self._folder / "several.mp4"
        said = {who: self._inputs / name for who, name in speeches.items()}
        sound = self._inputs / mix if mix else None
        self._dubber.dub_speakers(self._inputs / video, said, output, options, sound)
        return output.read_bytes()
