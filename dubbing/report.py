"""What a dub did, as data that can be saved as JSON."""

from __future__ import annotations

import dataclasses
import errno
import json
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dubbing.errors import DiskFull, OutputUnwritable
from dubbing.whole_file import whole_file

SCHEMA = 2
"""Of the report's JSON, described in docs/report.md; 1 had neither this field nor checksums."""


@dataclass(frozen=True)
class PictureFacts:
    """A video file. Times are seconds of presentation time; `width` and `height` are upright."""

    path: str
    frames: int
    width: int
    height: int
    start_s: float
    duration_s: float
    codec: str = ""


@dataclass(frozen=True)
class SoundFacts:
    """The speech file. `duration_s` is that of its decoded samples."""

    path: str
    codec: str
    sample_rate: int
    channels: int
    duration_s: float


@dataclass(frozen=True)
class CheckpointFacts:
    """The networks that were used: `sha256` maps each file's name to its hex digest."""

    name: str
    sha256: dict[str, str]


@dataclass(frozen=True)
class PassThrough:
    """Output frames [start_frame, stop_frame) left as the source shows them, and why.

    `start_s` and `stop_s` are seconds from the first frame's start to the interval's start and end.
    """

    reason: str
    start_frame: int
    stop_frame: int
    start_s: float | None = None
    stop_s: float | None = None

    @property
    def frames(self) -> int:
        return self.stop_frame - self.start_frame


@dataclass(frozen=True)
class FaceTrackFacts:
    """One face over time: seen in `frames` of the source frames [start_frame, stop_frame).

    `size_px` is the mean side of its box; `dubbed` marks the speaker. `confidence`, 0 to 1, says
    how surely the mesh lies on the speaker's face (see `dubbing.face.faults.confidence`), on
    average; `agreement` by how many standard errors the lips agree with the video's own sound,
    where `--speaker active` looked at that.
    """

    id: int
    start_frame: int
    stop_frame: int
    frames: int
    size_px: float
    dubbed: bool
    confidence: float | None = None
    agreement: float | None = None


@dataclass(frozen=True)
class AudioAction:
    """How the speech came into the result: `action` is "copied" or "encoded"."""

    action: str
    codec: str


@dataclass(frozen=True)
class StageTime:
    """Wall-clock seconds of one stage, and the units (frames, unless it has none) it did."""

    stage: str
    seconds: float
    units: int

    @property
    def fps(self) -> float:
        return self.units / self.seconds if self.seconds > 0 else 0.0


@dataclass(frozen=True)
class SegmentFacts:
    """In how many pieces the result was rendered, and how many of them an earlier, interrupted run
    had left."""

    count: int
    reused: int


@dataclass
class DubReport:
    """Facts of one finished dub. Frame numbers count from 0; intervals exclude their end."""

    video: PictureFacts
    audio: SoundFacts
    output: PictureFacts
    options: dict[str, Any]
    checkpoint: CheckpointFacts
    device: str
    engine_version: str
    marking: str  # the provenance text that the result carries
    frames_dubbed: int = 0
    passed_through: list[PassThrough] = field(default_factory=list)
    faces: list[FaceTrackFacts] = field(default_factory=list)
    lip_references: list[int] = field(default_factory=list)
    audio_action: AudioAction | None = None
    stages: list[StageTime] = field(default_factory=list)
    total_seconds: float = 0.0
    peak_memory_mib: float = 0.0
    warnings: list[str] = field(default_factory=list)
    adaptation: dict[str, Any] | None = None  # facts of `Adaptation`; None where nobody asked
    sync_offset_s: float | None = None  # by which the source's lips are late; None where unknown
    segments: SegmentFacts | None = None
    checksums: dict[str, str] = field(default_factory=dict)  # SHA-256 of inputs and output
    libraries: dict[str, str] = field(default_factory=dict)  # versions
    schema: int = SCHEMA

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> DubReport:
        """The report of `to_dict`'s values.

        Raises:
            ValueError: of another schema, or not a report.
        """
        if values.get("schema") != SCHEMA:
            raise ValueError(f"report schema {values.get('schema')}, known is {SCHEMA}")
        own = {item.name for item in dataclasses.fields(cls)}
        made = {name: value for name, value in values.items() if name in own}
        try:
            for name, kind in _PARTS.items():
                if made.get(name) is not None:
                    made[name] = kind(**made[name])
            for name, kind in _LISTS.items():
                made[name] = [kind(**_own_fields(kind, item)) for item in made[name]]
            return cls(**made)
        except (TypeError, KeyError) as error:
            raise ValueError(f"not a report: {error}") from error

    @property
    def pass_through_counts(self) -> dict[str, int]:
        """Frames left as they were, per reason."""
        counts: defaultdict[str, int] = defaultdict(int)
        for item in self.passed_through:
            counts[item.reason] += item.frames
        return dict(counts)

    @property
    def fps(self) -> float:
        """Output frames per second of wall-clock time, end to end."""
        return self.output.frames / self.total_seconds if self.total_seconds > 0 else 0.0

    def to_dict(self) -> dict[str, Any]:
        """JSON values: the fields, and the counts and rates that follow from them."""
        values = dataclasses.asdict(self)
        values["pass_through_counts"] = self.pass_through_counts
        values["fps"] = round(self.fps, 3)
        for stage, facts in zip(values["stages"], self.stages, strict=True):
            stage["fps"] = round(facts.fps, 3)
        return values

    def to_json(self) -> str:
        return json.dumps(self.to_dict(), indent=2, ensure_ascii=False) + "\n"

    def save(self, path: str | Path) -> None:
        """Write the report as JSON; the file appears whole or not at all.

        Raises:
            OutputUnwritable: the folder is missing or can't be written.
            DiskFull: no room left.
        """
        save_bytes(path, self.to_json().encode())


_PARTS: dict[str, type[Any]] = {
    "video": PictureFacts,
    "audio": SoundFacts,
    "output": PictureFacts,
    "checkpoint": CheckpointFacts,
    "audio_action": AudioAction,
    "segments": SegmentFacts,
}
_LISTS: dict[str, type[Any]] = {
    "passed_through": PassThrough,
    "faces": FaceTrackFacts,
    "stages": StageTime,
}


def _own_fields(kind: type[Any], values: dict[str, Any]) -> dict[str, Any]:
    names = {item.name for item in dataclasses.fields(kind)}
    return {name: value for name, value in values.items() if name in names}


def save_bytes(path: str | Path, data: bytes) -> None:
    """Write `data` to `path` by atomic rename, replacing what is there.

    Raises:
        OutputUnwritable: the folder is missing or can't be written.
        DiskFull: no room left.
    """
    path = Path(path)
    try:
        with whole_file(path) as partial:
            partial.write_bytes(data)
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise DiskFull("no room left on the disk", path=path) from error
        reason = error.strerror or str(error)
        raise OutputUnwritable(f"can't be written: {reason}", path=path) from error


def join_pass_through(reasons: dict[int, str]) -> list[PassThrough]:
    """Intervals of equal reason from {frame: reason}, in order of frames."""
    return joined_intervals(PassThrough(reasons[k], k, k + 1) for k in sorted(reasons))


def joined_intervals(pieces: Iterable[PassThrough]) -> list[PassThrough]:
    """Intervals in order, those that touch and have one reason made one."""
    joined: list[PassThrough] = []
    for piece in pieces:
        last = joined[-1] if joined else None
        if last and (last.stop_frame, last.reason) == (piece.start_frame, piece.reason):
            joined[-1] = dataclasses.replace(last, stop_frame=piece.stop_frame)
        else:
            joined.append(piece)
    return joined


def timed_intervals(
    intervals: Iterable[PassThrough], time: Callable[[int], float]
) -> list[PassThrough]:
    """Intervals with their times; `time` gives the start of a frame in seconds, and for the number
    after the last one its end."""
    return [
        dataclasses.replace(
            p, start_s=round(time(p.start_frame), 6), stop_s=round(time(p.stop_frame), 6)
        )
        for p in intervals
    ]
