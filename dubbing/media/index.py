"""Where the frames of one picture stream lie in time: integers only, no pictures."""

from __future__ import annotations

from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import overload

import av

FALLBACK_RATE = Fraction(25)
"""Frames per second assumed for a frame whose duration nothing tells."""


SHORTEST_FRAME = Fraction(1, 2000)
"""Seconds. Time stamps that leave the frames less than this on average are taken for broken."""


class RelativeTimes(Sequence[Fraction]):
    """Times of frames in seconds since the first frame, computed when asked for."""

    def __init__(self, pts: Sequence[int], time_base: Fraction):
        self._pts = pts
        self._time_base = time_base

    def __len__(self) -> int:
        return len(self._pts)

    @overload
    def __getitem__(self, index: int) -> Fraction: ...
    @overload
    def __getitem__(self, index: slice) -> list[Fraction]: ...
    def __getitem__(self, index: int | slice) -> Fraction | list[Fraction]:
        first = self._pts[0]
        if isinstance(index, slice):
            return [(pts - first) * self._time_base for pts in self._pts[index]]
        return (self._pts[index] - first) * self._time_base


@dataclass(frozen=True)
class FrameIndex:
    """PTS of every frame in presentation order, in ticks of `time_base`, strictly increasing.

    Eight bytes per frame: two hours at 30 frames per second take 1.7 MB.
    """

    time_base: Fraction
    pts: array[int]
    keys: array[int]
    """indices of the key frames"""
    last_duration: int
    """ticks for which the last frame stands"""
    seekable: bool
    """False where a time stamp had to be made up: frames are then found by counting only"""

    @property
    def count(self) -> int:
        return len(self.pts)

    @property
    def times(self) -> RelativeTimes:
        """Frame times in seconds since the first frame."""
        return RelativeTimes(self.pts, self.time_base)

    @property
    def duration(self) -> Fraction:
        """Seconds from the first frame's start to the last frame's end."""
        return (self.pts[-1] - self.pts[0] + self.last_duration) * self.time_base

    def find(self, pts: int) -> int | None:
        """Index of the frame with exactly this PTS."""
        place = bisect_left(self.pts, pts)
        return place if place < self.count and self.pts[place] == pts else None

    def keys_until(self, index: int) -> Iterator[int]:
        """Key frames at or before frame `index`, nearest first."""
        for place in range(bisect_right(self.keys, index) - 1, -1, -1):
            yield self.keys[place]


@dataclass
class IndexBuilder:
    """Gives every decoded frame its PTS and collects the index.

    Broken time stamps never stop a job. A frame without PTS takes its DTS where that is later
    than the previous frame, else the previous PTS plus the previous duration. A PTS that is not
    later than the previous one takes the previous plus one tick; a jump back of more than one
    second (a clip joined from several) is instead continued with the previous duration, and
    the frames after it keep their distances. Where hardly any time passes from the first frame to
    the last (all stamps equal), the index spaces the frames evenly by the average rate.
    """

    time_base: Fraction
    average_rate: Fraction | None
    pts: array[int] = field(default_factory=lambda: array("q"))
    keys: array[int] = field(default_factory=lambda: array("q"))
    seekable: bool = True
    _shift: int = 0
    _last_duration: int = 0

    def add(self, frame: av.VideoFrame) -> int:
        """Take in the next frame in presentation order; returns its PTS."""
        pts = self._place(frame)
        if frame.key_frame:
            self.keys.append(len(self.pts))
        self._last_duration = frame.duration or 0
        self.pts.append(pts)
        return pts

    def build(self) -> FrameIndex:
        """The index of all frames taken in so far."""
        if self.pts and not self._plausible():
            step = self._even_step()
            first = self.pts[0]
            self.pts = array("q", (first + number * step for number in range(len(self.pts))))
            return FrameIndex(self.time_base, self.pts, self.keys, step, seekable=False)
        return FrameIndex(self.time_base, self.pts, self.keys, self._step(), self.seekable)

    def _plausible(self) -> bool:
        """Whether frames stand for SHORTEST_FRAME or longer on average."""
        length = (self.pts[-1] - self.pts[0]) * self.time_base
        return length >= SHORTEST_FRAME * (len(self.pts) - 1)

    def _even_step(self) -> int:
        """Ticks of a frame by the average rate."""
        rate = self.average_rate or FALLBACK_RATE
        if rate * SHORTEST_FRAME > 1:
            rate = FALLBACK_RATE
        return max(1, round(1 / (rate * self.time_base)))

    def _place(self, frame: av.VideoFrame) -> int:
        raw = frame.pts if frame.pts is not None else frame.dts
        if frame.pts is None:
            self.seekable = False
        if not self.pts:
            return raw if raw is not None else 0
        previous = self.pts[-1]
        if raw is None:
            return previous + self._step()
        pts = raw + self._shift
        if pts > previous:
            return pts
        self.seekable = False
        if frame.pts is None:
            return previous + self._step()
        if (previous - pts) * self.time_base > 1:
            self._shift += previous + self._step() - pts
            return previous + self._step()
        return previous + 1

    def _step(self) -> int:
        """Duration of the latest frame in ticks: as told, else as its predecessor's, else 1/rate.

        What the stream tells is believed up to four times the distance of the two latest frames
        (some containers give the last frame the rest of the file).
        """
        gap = self.pts[-1] - self.pts[-2] if len(self.pts) > 1 else 0
        told = self._last_duration
        if told > 0 and (gap == 0 or told <= 4 * gap):
            return told
        if gap:
            return gap
        return self._even_step()
