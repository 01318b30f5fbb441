"""Footage and speech for the tests of the whole path."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray

from dubbing.demo import demo_speech
from dubbing.media.audio import decode_audio

RATE = 25
FRAMES = 30
SIZE = 320
BLANK = (12, 13, 14)  # frames without a face


def write_clip(path: Path, pictures: list[NDArray[np.uint8]], times: list[int]) -> Path:
    """Lossless H.264 with the given PTS in ticks of 1/600 s."""
    with av.open(str(path), "w", options={"video_track_timescale": "600"}) as sink:
        stream = sink.add_stream("libx264", rate=RATE)
        stream.height, stream.width = pictures[0].shape[:2]
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
