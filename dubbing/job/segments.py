"""Where a result is cut into segments, and what is kept of a finished one."""

from __future__ import annotations

import dataclasses
import json
from array import array
from bisect import bisect_left, bisect_right
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from dubbing.analysis import SpeakerTrack
from dubbing.checksums import file_sha256
from dubbing.media.timeline import OutputPlan
from dubbing.report import PassThrough, save_bytes

NEAR = 0.2  # of a segment's length: a shot cut so near to the nominal end is taken instead


@dataclass(frozen=True)
class Span:
    """Output frames [start, stop) of segment `number`."""

    number: int
    start: int
    stop: int


def cut_segments(plan: OutputPlan, speaker: SpeakerTrack, seconds: float) -> list[Span]:
    """Cut a result into pieces of about `seconds` each.

    A piece ends where the speaker's face track begins or ends (a shot cut, a face that leaves) if
    that is near; the last one takes what is too little for a piece of its own. The cut depends on
    nothing but the arguments.
    """
    starts, places = array("d"), array("q")
    previous: int | None = None
    for frame in plan.frames():
        part = speaker.part.get(frame.source)
        if frame.number and part != previous:
            places.append(frame.number)
        previous = part
        starts.append(float(frame.time))
    edges = [0]
    end = float(plan.duration)
    while end - starts[edges[-1]] > seconds * (1 + NEAR):
        nominal = starts[edges[-1]] + seconds
        cut = max(bisect_left(starts, nominal - 1e-9), edges[-1] + 1)
        low = bisect_left(starts, nominal - NEAR * seconds)
        high = bisect_right(starts, nominal + NEAR * seconds)
        near = places[bisect_left(places, low) : bisect_left(places, high)]
        cut = min(near, key=lambda place: abs(starts[place] - nominal), default=cut)
        if cut <= edges[-1] or cut >= plan.count:
            break
        edges.append(cut)
    edges.append(plan.count)
    return [Span(number, *edge) for number, edge in enumerate(pairwise(edges))]


@dataclass(frozen=True)
class SegmentRecord:
    """A finished segment.

    Attributes:
        number, start, stop: see `Span`.
        size, sha256: of its file.
        delay: see `VideoWriter.delay`.
        seconds: that it took to decode, render and encode.
        passed: intervals of output frames that passed through, and why.
    """

    number: int
    start: int
    stop: int
    size: int
    sha256: str
    delay: int
    seconds: float
    passed: list[PassThrough]

    @property
    def span(self) -> Span:
        return Span(self.number, self.start, self.stop)

    def save(self, path: Path) -> None:
        """Write it by atomic rename.

        Raises:
            OutputUnwritable, DiskFull: see `save_bytes`.
        """
        save_bytes(path, json.dumps(dataclasses.asdict(self)).encode())

    @classmethod
    def load(cls, path: Path) -> SegmentRecord | None:
        """The record in that file; None where there is none that can be read."""
        try:
            values = json.loads(path.read_text())
            values["passed"] = [PassThrough(**item) for item in values["passed"]]
            return cls(**values)
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def fits(self, span: Span, video: Path, whole: bool = False) -> bool:
        """Whether `video` is this segment's file, of that span; `whole` looks at its content."""
        try:
            same = self.span == span and video.stat().st_size == self.size
            return same and (not whole or file_sha256(video) == self.sha256)
        except OSError:
            return False
