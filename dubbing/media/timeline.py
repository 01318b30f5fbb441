"""Which source frame stands at which time of the result.

The first pass keeps every source frame at its own time. Where the picture must go on longer, the
clip is played backwards and forwards in turn (ping-pong): neighbours in the result are always
neighbours in the source, and the frame at which the direction turns is not shown twice.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal, NamedTuple

from dubbing.errors import OptionInvalid
from dubbing.media.index import FALLBACK_RATE
from dubbing.media.reader import DecodedFrame, VideoReader

Length = Literal["audio", "video", "shortest", "longest"]
LENGTHS: tuple[Length, ...] = ("audio", "video", "shortest", "longest")


class PlannedFrame(NamedTuple):
    """One frame of the result: its number, the source frame, its start and its duration.

    `time` is in seconds since the first frame of the result, `duration` in seconds.
    """

    number: int
    source: int
    time: Fraction
    duration: Fraction


@dataclass(frozen=True)
class Segment:
    """A run through the source in one direction.

    Source frames `first`, `first + step`, ... (`count` of them); `step` is 1, -1, or 0 for a
    clip of a single frame, which repeats. `number` and `time` are those of its first frame in
    the result.
    """

    first: int
    step: int
    count: int
    number: int
    time: Fraction

    @property
    def bounds(self) -> tuple[int, int]:
        """Source frames as a half-open range (start, stop), whatever the direction."""
        last = self.first + self.step * (self.count - 1)
        return min(self.first, last), max(self.first, last) + 1


@dataclass(frozen=True)
class OutputPlan:
    """The result's frames, as a few segments; times are computed when asked for."""

    segments: tuple[Segment, ...]
    duration: Fraction
    """seconds from the first frame's start to the last frame's end"""
    source_times: Sequence[Fraction]
    source_duration: Fraction

    @property
    def count(self) -> int:
        """Frames in the result."""
        last = self.segments[-1]
        return last.number + last.count

    def frame(self, number: int) -> PlannedFrame:
        """Frame `number` of the result."""
        if not 0 <= number < self.count:
            raise IndexError(f"frame {number} is outside 0 to {self.count}")
        place = bisect_right(self.segments, number, key=lambda s: s.number) - 1
        segment = self.segments[place]
        return self._planned(segment, number - segment.number)

    def frames(self) -> Iterator[PlannedFrame]:
        """All frames of the result in order."""
        for segment in self.segments:
            for offset in range(segment.count):
                yield self._planned(segment, offset)

    def _edge(self, index: int) -> Fraction:
        return self.source_times[index] if index < len(self.source_times) else self.source_duration

    def _planned(self, segment: Segment, offset: int) -> PlannedFrame:
        source = segment.first + segment.step * offset
        duration = self._edge(source + 1) - self._edge(source)
        if segment.step > 0:
            elapsed = self._edge(source) - self._edge(segment.first)
        elif segment.step < 0:
            elapsed = self._edge(segment.first + 1) - self._edge(source + 1)
        else:
            elapsed = duration * offset
        return PlannedFrame(segment.number + offset, source, segment.time + elapsed, duration)


def plan_output(
    source_times: Sequence[Fraction],
    source_duration: Fraction,
    audio_duration: Fraction,
    length: Length = "audio",
) -> OutputPlan:
    """Lay the source's frames over the length of the result.

    Args:
        source_times: start of each source frame in seconds since the first, strictly
            increasing from 0.
        source_duration: end of the last source frame, in the same clock.
        audio_duration: seconds of the new speech.
        length: "audio" is as long as the speech, "video" as the source, "shortest" and
            "longest" as the shorter or longer of them. The last frame's end is never before
            that length and less than one frame after it.

    Raises:
        OptionInvalid: unknown `length`.
        ValueError: no frame, or times that do not increase from 0.
    """
    if not source_times or source_times[0] != 0:
        raise ValueError("source_times must start at 0")
    count = len(source_times)
    if source_duration <= source_times[-1]:
        last = source_times[-1] - source_times[-2] if count > 1 else 1 / FALLBACK_RATE
        source_duration = source_times[-1] + last
    end = _length(source_duration, audio_duration, length)
    if count == 1:
        repeats = max(1, -(-end // source_duration))
        still = Segment(first=0, step=0, count=repeats, number=0, time=Fraction(0))
        return OutputPlan((still,), source_duration * repeats, source_times, source_duration)
    segments: list[Segment] = []
    time = Fraction(0)
    number, first, step = 0, 0, 1
    while not segments or time < end:
        taken, spent = _run_length(source_times, source_duration, first, step, end - time)
        segments.append(Segment(first, step, taken, number, time))
        time += spent
        number += taken
        first, step = (count - 2, -1) if step > 0 else (1, 1)
    return OutputPlan(tuple(segments), time, source_times, source_duration)


def _length(source: Fraction, audio: Fraction, length: Length) -> Fraction:
    lengths = {
        "audio": audio,
        "video": source,
        "shortest": min(source, audio),
        "longest": max(source, audio),
    }
    if length not in lengths:
        raise OptionInvalid(f"length {length!r} is not one of {', '.join(LENGTHS)}")
    return lengths[length]


def _run_length(
    times: Sequence[Fraction], end: Fraction, first: int, step: int, left: Fraction
) -> tuple[int, Fraction]:
    """(frames, seconds) of a run from `first` in direction `step` that covers `left` seconds.

    At least one frame; at most up to the last (or first) frame of the source.
    """

    def edge(index: int) -> Fraction:
        return times[index] if index < len(times) else end

    if step > 0:
        stop = max(first + 1, bisect_left(times, edge(first) + left, lo=first))
        return stop - first, edge(stop) - edge(first)
    # frame i starts once everything from i + 1 to `first` has been shown
    lowest = bisect_right(times, edge(first + 1) - left, hi=first + 2) - 1
    lowest = min(first, max(0, lowest))
    return first - lowest + 1, edge(first + 1) - edge(lowest)


class OutputFrame(NamedTuple):
    """A source frame at its place in the result.

    `pts` is in ticks of the source's time base and starts at the source's own first PTS, so the
    first pass has the source's PTS; `time` and `duration` as in `PlannedFrame`.
    """

    number: int
    pts: int
    time: Fraction
    duration: Fraction
    source: DecodedFrame


def iter_plan(
    reader: VideoReader, plan: OutputPlan, start: int = 0, stop: int | None = None
) -> Iterator[OutputFrame]:
    """Decode frames `start` ... `stop - 1` of `plan` (default: to its end) in order; never more
    than one reverse chunk is in memory."""
    first_pts = reader.index.pts[0]
    stop = plan.count if stop is None else stop
    for segment in plan.segments:
        low = max(start - segment.number, 0)
        high = min(stop - segment.number, segment.count)
        if low >= high:
            continue
        numbers = range(segment.number + low, segment.number + high)
        for number, source in zip(numbers, _decoded(reader, segment, low, high), strict=True):
            entry = plan.frame(number)
            pts = first_pts + round(entry.time / reader.time_base)
            yield OutputFrame(entry.number, pts, entry.time, entry.duration, source)


def _decoded(reader: VideoReader, segment: Segment, low: int, high: int) -> Iterator[DecodedFrame]:
    """Frames `low` ... `high - 1` of a run, counted from its own beginning."""
    first, last = segment.first + segment.step * low, segment.first + segment.step * (high - 1)
    if segment.step < 0:
        return reader.iter_reverse(last, first + 1)
    if segment.step > 0:
        return reader.read_range(first, last + 1)
    frame = next(reader.read_range(first, first + 1))
    return (frame for _ in range(low, high))
