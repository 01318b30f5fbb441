"""Small clips with sound, made with PyAV for the tests of the measuring code."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from types import ModuleType
from typing import Any

import av
import numpy as np

SCRIPTS = Path(__file__).parents[2] / "scripts"
RATE = 16000  # Hz


def load_script(name: str) -> ModuleType:
    """A script of the repository as a module."""
    known = f"script_{name}"
    if known not in sys.modules:
        spec = importlib.util.spec_from_file_location(known, SCRIPTS / f"{name}.py")
        assert spec is not None
        assert spec.loader is not None
        sys.modules[known] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[known])
    return sys.modules[known]


def write_clip(
    path: Path,
    pictures: Sequence[np.ndarray],
    samples: np.ndarray | None = None,
    *,
    pts: Sequence[int] | None = None,
    clock: int = 1000,
    rate: int = 25,
    codec: str = "ffv1",
    fmt: str = "bgr0",
    sound: str = "pcm_s16le",
    crf: int = 4,
) -> Path:
    """Encode pictures [H, W, 3] RGB (by default without loss) and int16 mono samples [N]."""
    times = pts or [k * clock // rate for k in range(len(pictures))]
    options = {"video_track_timescale": str(clock)} if path.suffix == ".mp4" else {}
    with av.open(str(path), "w", options=options) as sink:
        stream: Any = sink.add_stream(codec, rate=rate, options={"crf": str(crf)})
        stream.height, stream.width = pictures[0].shape[:2]
        stream.pix_fmt = fmt
        stream.time_base = stream.codec_context.time_base = Fraction(1, clock)
        speech: Any = None
        if samples is not None:
            speech = sink.add_stream(sound, rate=RATE)
            speech.layout = "mono"
        for picture, at in zip(pictures, times, strict=True):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), "rgb24")
            frame.pts, frame.time_base = at, Fraction(1, clock)
            sink.mux(stream.encode(frame))
        sink.mux(stream.encode(None))
        if samples is not None:
            for start in range(0, len(samples), 1024):
                block = np.ascontiguousarray(samples[None, start : start + 1024])
                part = av.AudioFrame.from_ndarray(block, format="s16", layout="mono")
                part.sample_rate, part.pts = RATE, start
                sink.mux(speech.encode(part))
            sink.mux(speech.encode(None))
    return path


def noise(seconds: float, seed: int = 0) -> np.ndarray:
    """Int16 samples [N] of noise."""
    rng = np.random.default_rng(seed)
    return rng.normal(0, 3000, round(seconds * RATE)).clip(-30000, 30000).astype(np.int16)
