"""Small clips and sounds of every kind, made with PyAV."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray

from dubbing.evaluation.cases.registry import need_encoder
from dubbing.media.ffmpeg import run_ffmpeg
from dubbing.media.pixels import layout_of
from dubbing.media.planes import plane_view

SIZE = (64, 48)
TAGS_709 = (1, 1, 1, 1)
"""Limited range, BT.709 matrix, primaries and transfer."""

Painter = Callable[[int, str, int, int], av.VideoFrame]


def paint(index: int, fmt: str, width: int, height: int) -> av.VideoFrame:
    """Frame `index`: slopes over the whole bit depth that move from frame to frame."""
    frame = av.VideoFrame(width, height, fmt)
    layout = layout_of(fmt)
    if layout is None:
        raise ValueError(f"{fmt} has no planes to paint")
    span, low = layout.peak * 3 // 4, layout.peak // 8
    for number in range(len(frame.planes)):
        view = plane_view(frame, number)
        rows, columns = np.mgrid[0 : view.shape[0], 0 : view.shape[1]]
        slope = (rows * (3 + number) + columns * (5 - number) + index * 7) * max(span // 400, 1)
        values = low + slope % span
        parts = view[..., None] if view.ndim == 2 else view
        for channel in range(parts.shape[2]):
            parts[..., channel] = ((values + channel * 9) << layout.shift).astype(layout.dtype)
    return frame


def grey(value: Callable[[int], int]) -> Painter:
    """A painter of plain pictures with luma `value(index)`, 8 bit."""

    def plain(index: int, fmt: str, width: int, height: int) -> av.VideoFrame:
        frame = av.VideoFrame(width, height, fmt)
        for number in range(len(frame.planes)):
            plane_view(frame, number)[...] = value(index) if number == 0 else 128
        return frame

    return plain


@dataclass(frozen=True)
class ClipRecipe:
    """How a clip is made. `tags` are range, matrix, primaries, transfer as H.273 has them."""

    codec: str = "libx264"
    fmt: str = "yuv420p"
    size: tuple[int, int] = SIZE
    time_base: Fraction = Fraction(1, 25)
    pts: Iterable[int] = field(default_factory=lambda: range(12))
    options: dict[str, str] = field(default_factory=lambda: {"crf": "10"})
    tags: tuple[int, int, int, int] = TAGS_709
    sample_aspect_ratio: Fraction = Fraction(1)
    matrix: tuple[int, ...] | None = None
    painter: Painter = paint
    rate: Fraction | None = None
    """Nominal frame rate; None for that of the first two frames."""


def make_clip(path: Path, recipe: ClipRecipe) -> Path:
    """Encode a clip.

    Raises:
        NotInThisBuild: the encoder is absent.
    """
    need_encoder(recipe.codec)
    pts = list(recipe.pts)
    clock = str(recipe.time_base.denominator)
    mov = path.suffix in (".mp4", ".mov")
    clocks = {"video_track_timescale": clock, "movie_timescale": clock} if mov else {}
    step = pts[1] - pts[0] if len(pts) > 1 else 1
    rate = recipe.rate or Fraction(1 / (step * recipe.time_base)).limit_denominator(1001)
    with av.open(str(path), "w", options=clocks) as sink:
        stream: Any = sink.add_stream(recipe.codec, rate=rate, options=dict(recipe.options))
        stream.width, stream.height = recipe.size
        stream.pix_fmt, stream.time_base = recipe.fmt, recipe.time_base
        context = stream.codec_context
        context.time_base = recipe.time_base
        context.sample_aspect_ratio = recipe.sample_aspect_ratio
        context.color_range, context.colorspace = recipe.tags[0], recipe.tags[1]
        context.color_primaries, context.color_trc = recipe.tags[2], recipe.tags[3]
        if recipe.matrix is not None:
            stream.set_display_matrix(recipe.matrix)
        for index, value in enumerate(pts):
            frame = recipe.painter(index, recipe.fmt, *recipe.size)
            frame.pts, frame.time_base = value, recipe.time_base
            frame.color_range, frame.colorspace = recipe.tags[0], recipe.tags[1]
            sink.mux(stream.encode(frame))
        sink.mux(stream.encode(None))
    return path


def ffmpeg_clip(path: Path, *arguments: str) -> Path:
    """A file made by the ffmpeg program: `arguments` without the output's name."""
    run_ffmpeg([*arguments, str(path)], path=path)
    return path


def tone(seconds: float, rate: int, channels: int = 1) -> NDArray[np.float32]:
    """A tone with noise, another in every channel: [C, N] float32."""
    count = round(seconds * rate)
    times = np.arange(count) / rate
    noise = np.random.default_rng(0).normal(0, 0.02, (channels, count))
    waves = [0.2 * np.sin(2 * np.pi * (200 + 40 * c) * times) for c in range(channels)]
    return np.asarray(np.stack(waves) + noise, np.float32)


LAYOUTS = {1: "mono", 2: "stereo", 3: "2.1", 4: "quad", 6: "5.1", 8: "7.1"}


def make_sound(
    path: Path,
    codec: str,
    samples: NDArray[np.float32],
    rate: int,
    options: dict[str, str] | None = None,
) -> Path:
    """Encode [C, N] float32 samples.

    Raises:
        NotInThisBuild: the encoder is absent.
    """
    need_encoder(codec)
    layout = LAYOUTS[len(samples)]
    with av.open(str(path), "w") as sink:
        stream: Any = sink.add_stream(codec, rate=rate, options=options or {})
        stream.layout = layout
        context = stream.codec_context
        resampler = av.AudioResampler(
            context.format, layout, rate, frame_size=context.frame_size or 1024
        )
        for start in range(0, samples.shape[1], rate):
            part = np.ascontiguousarray(samples[:, start : start + rate].T).reshape(1, -1)
            frame = av.AudioFrame.from_ndarray(part, "flt", layout)
            frame.sample_rate, frame.pts, frame.time_base = rate, start, Fraction(1, rate)
            for piece in resampler.resample(frame):
                sink.mux(stream.encode(piece))
        for piece in resampler.resample(None):
            sink.mux(stream.encode(piece))
        sink.mux(stream.encode(None))
    return path
