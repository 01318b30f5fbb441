"""Small real clips and sounds made with PyAV for the media tests."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

WIDTH, HEIGHT = 64, 48
VFR_PTS = [12000 + 1001 * i + (300 if i % 3 == 0 else 0) for i in range(20)]
"""Variable frame durations around 24000/1001 at 1/24000 s, first frame at 0.5125 s."""
TB_24000 = Fraction(1, 24000)
TURN_90 = (0, 65536, 0, -65536, 0, 0, 0, 0, 1 << 30)
"""Display matrix of a phone's portrait clip: turn clockwise by 90 degrees."""


def picture(index: int, fmt: str = "yuv420p", width: int = WIDTH, height: int = HEIGHT) -> Any:
    """A frame whose samples depend on place and `index`: no two frames are alike."""
    y, x = np.mgrid[0:height, 0:width]
    rgb = np.stack([x * 3 + index * 5, y * 4 + index * 3, 200 - x - index * 4], axis=-1)
    frame = av.VideoFrame.from_ndarray(np.clip(rgb, 20, 235).astype(np.uint8), format="rgb24")
    return frame if fmt == "rgb24" else frame.reformat(format=fmt)


def noise_frame(fmt: str, width: int = WIDTH, height: int = HEIGHT, seed: int = 0) -> Any:
    """A frame with legal random samples in every plane."""
    rng = np.random.default_rng(seed)
    frame = av.VideoFrame(width, height, fmt)
    for plane in frame.planes:
        bits = max(c.bits for c in frame.format.components)
        if bits == 8:
            samples = np.frombuffer(plane, np.uint8)
            samples[:] = rng.integers(30, 220, samples.size)
        else:
            shift = 16 - bits if fmt.startswith("p0") else 0
            wide = np.frombuffer(plane, np.uint16)
            top = 1 << bits
            wide[:] = rng.integers(top // 8, top * 7 // 8, wide.size) << shift
    return frame


def make_video(
    path: Path,
    pts: Sequence[int] = tuple(range(24)),
    time_base: Fraction = Fraction(1, 25),
    *,
    codec: str = "libx264",
    fmt: str = "yuv420p",
    size: tuple[int, int] = (WIDTH, HEIGHT),
    options: dict[str, str] | None = None,
    matrix: tuple[int, ...] | None = None,
    tags: tuple[int, int, int, int] | None = None,
    container_options: dict[str, str] | None = None,
) -> Path:
    """Encode `picture(i)` at `pts[i]`; `tags` are range, matrix, primaries, transfer."""
    clock = str(time_base.denominator)
    clocks = {"video_track_timescale": clock, "movie_timescale": clock}
    mp4 = path.suffix in (".mp4", ".mov")
    with av.open(
        str(path), "w", options=(clocks if mp4 else {}) | (container_options or {})
    ) as container:
        stream: Any = container.add_stream(codec, rate=25, options=options or {"crf": "10"})
        stream.width, stream.height, stream.pix_fmt = size[0], size[1], fmt
        stream.time_base = time_base
        stream.codec_context.time_base = time_base
        if tags is not None:
            context = stream.codec_context
            context.color_range, context.colorspace = tags[0], tags[1]
            context.color_primaries, context.color_trc = tags[2], tags[3]
        if matrix is not None:
            stream.set_display_matrix(matrix)
        for index, value in enumerate(pts):
            frame = picture(index, fmt, *size)
            frame.pts, frame.time_base = value, time_base
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def tone(seconds: float, rate: int, channels: int = 1, seed: int = 0) -> np.ndarray:
    """Noise and a tone as int16 [N, channels]."""
    count = round(seconds * rate)
    rng = np.random.default_rng(seed)
    base = 6000 * np.sin(np.arange(count) * 2 * np.pi * 220 / rate)
    return (base[:, None] + rng.normal(0, 500, (count, channels))).astype(np.int16)


def make_audio(
    path: Path,
    codec: str,
    samples: np.ndarray,
    rate: int,
    options: dict[str, str] | None = None,
) -> Path:
    """Encode int16 [N, channels] with `codec`."""
    layout = {1: "mono", 2: "stereo", 6: "5.1"}[samples.shape[1]]
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream(codec, rate=rate, options=options or {})
        stream.layout = layout
        resampler = av.AudioResampler(
            format=stream.codec_context.format,
            layout=layout,
            rate=rate,
            frame_size=stream.codec_context.frame_size or 1024,
        )
        frame = av.AudioFrame.from_ndarray(samples.reshape(1, -1), format="s16", layout=layout)
        frame.sample_rate, frame.pts, frame.time_base = rate, 0, Fraction(1, rate)
        for part in [*resampler.resample(frame), *resampler.resample(None)]:
            container.mux(stream.encode(part))
        container.mux(stream.encode(None))
    return path


def packets(path: Path, kind: str) -> list[bytes]:
    """Payloads of the first stream of that kind."""
    with av.open(str(path)) as container:
        stream = next(s for s in container.streams if s.type == kind)
        return [bytes(packet) for packet in container.demux(stream) if packet.size]


def frame_times(path: Path) -> list[Fraction]:
    """Times of all decoded pictures in seconds."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        return [frame.pts * stream.time_base for frame in container.decode(stream)]


def planes_of(frame: Any) -> list[np.ndarray]:
    """Copies of the frame's planes without padding."""
    from dubbing.media.planes import plane_view

    return [plane_view(frame, number).copy() for number in range(len(frame.planes))]
