"""The media chain without networks: a plain patch stands for the dubbed face.

Everything else is the engine's own: reader, plan, compositing, writer, mux.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dubbing.evaluation.cases.registry import check
from dubbing.media.audio import audio_duration
from dubbing.media.mux import MuxResult, mux
from dubbing.media.pixels import layout_of
from dubbing.media.planes import convert_format, plane_view, upright_to_stored_rect
from dubbing.media.probe import VideoStreamInfo, require_video
from dubbing.media.reader import VideoReader
from dubbing.media.timeline import Length, OutputPlan, iter_plan, plan_output
from dubbing.media.writer import VideoWriter

PATCH = (16, 12, 20, 16)
"""x, y, width, height of the patch in the upright picture, pixels."""


@dataclass(frozen=True)
class Chained:
    """A file that went through the chain."""

    source: Path
    output: Path
    plan: OutputPlan
    mixed: MuxResult
    video: VideoStreamInfo
    pix_fmt: str
    """pixel format of the encode"""


def run_chain(
    source: Path,
    sound: Path,
    output: Path,
    *,
    codec: str = "ffv1",
    crf: float = 0,
    length: Length = "video",
    patch: bool = True,
    audio_codec: str = "auto",
) -> Chained:
    """Send `source` through reader, plan, compositing, writer and mux."""
    x, y, width, height = PATCH
    rgb = np.full((height, width, 3), (190.0, 90.0, 70.0), np.float32)
    alpha = np.ones((height, width), np.float32)
    with VideoReader(source) as reader, tempfile.TemporaryDirectory(dir=output.parent) as folder:
        index = reader.index
        plan = plan_output(index.times, index.duration, audio_duration(sound), length)
        picture = Path(folder) / "picture"
        with VideoWriter(picture, reader.video, codec, crf=crf, preset="ultrafast") as writer:
            for placed in iter_plan(reader, plan):
                frame = placed.source.paste(rgb, alpha, x, y) if patch else placed.source.frame
                ticks = max(round(placed.duration / reader.time_base), 1)
                writer.write(frame, placed.pts, ticks)
        mixed = mux(picture, sound, source, output, duration=plan.duration, audio_codec=audio_codec)
        return Chained(source, output, plan, mixed, reader.video, writer.pix_fmt)


def same_times(made: Chained) -> str:
    """Check frame count, every PTS and the duration against the source; the figure says what.

    Matroska and WebM count milliseconds: there, times agree to half a millisecond. Transport
    and program streams start at any time: theirs is counted from the start of the file.
    """
    with VideoReader(made.source) as before, VideoReader(made.output) as after:
        given, got = before.index, after.index
        check(got.count == given.count, f"{got.count} frames in place of {given.count}")
        exact = made.output.suffix not in (".mkv", ".webm")
        slack = Fraction(0) if exact else Fraction(1, 2000)
        worst = Fraction(0)
        free_running = before.info.container in ("mpegts", "mpeg")
        shift = before.info.start if free_running else Fraction(0)
        if free_running:  # the container counts microseconds
            slack = max(slack, Fraction(1, 1_000_000))
        for a, b in zip(given.pts, got.pts, strict=True):
            worst = max(worst, abs(a * given.time_base - shift - b * got.time_base))
        check(worst <= slack, f"a frame is {float(worst):.6f} s off")
        off = abs(given.duration - got.duration)
        check(off <= 2 * slack, f"the duration is {float(off):.6f} s off")
    return f"{given.count} frames, {'to the tick' if exact else 'to 0.5 ms'}"


def same_tags(made: Chained) -> None:
    """Check size, rotation, aspect ratio, colour tags of the result against the source."""
    after = require_video(made.output).video
    before = made.video
    check(after is not None, "no picture")
    if after is None:
        return
    for name in (
        "width", "height", "display_matrix", "sample_aspect_ratio", "color_range", "color_space",
        "color_primaries", "color_trc", "interlaced",
    ):  # fmt: skip
        old, new = getattr(before, name), getattr(after, name)
        check(old == new, f"{name} is {new}, was {old}")


def outside_difference(made: Chained) -> int:
    """Largest difference of a sample outside the patch between the decoded source and the result,
    in code values of the source's bit depth; every plane, alpha included."""
    worst = 0
    with VideoReader(made.source) as before, VideoReader(made.output) as after:
        given = {frame.index: frame for frame in before}
        for entry, frame in zip(made.plan.frames(), after, strict=True):
            old = given[entry.source].frame
            new = convert_format(frame.frame, old.format.name)
            worst = max(worst, _difference(old, new, before.video))
    return worst


def _difference(old: Any, new: Any, video: VideoStreamInfo) -> int:
    layout = layout_of(old.format.name)
    check(layout is not None, f"{old.format.name} can't be compared")
    if layout is None:
        return 0
    rect = upright_to_stored_rect(*PATCH, video.rotation, video.width, video.height)
    worst = 0
    for number in range(len(old.planes)):
        a = (plane_view(old, number) >> layout.shift).astype(np.int64)
        b = (plane_view(new, number) >> layout.shift).astype(np.int64)
        keep = _outside(a.shape[:2], (video.height, video.width), rect)
        if layout.kind == "yuv" and number == 3:  # alpha is never touched
            keep[...] = True
        worst = max(worst, int(np.abs(a - b)[keep].max(initial=0)))
    return worst


def _outside(
    shape: tuple[int, ...], full: tuple[int, int], rect: tuple[int, int, int, int]
) -> NDArray[np.bool_]:
    """Samples of a plane whose whole block lies outside the patch."""
    scale_y, scale_x = -(-full[0] // shape[0]), -(-full[1] // shape[1])
    x, y, width, height = rect
    keep = np.ones(shape, bool)
    rows = slice(y // scale_y, -(-(y + height) // scale_y))
    columns = slice(x // scale_x, -(-(x + width) // scale_x))
    keep[rows, columns] = False
    return keep
