"""A planned job: what to render, and which of it is done."""

from __future__ import annotations

import time
from array import array
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

from dubbing.analysis import SpeakerTrack
from dubbing.errors import UnfinishedJob
from dubbing.job.description import JobDescription
from dubbing.job.findings import Findings, load_motion
from dubbing.job.folder import JobFolder
from dubbing.job.segments import SegmentRecord, Span, cut_segments
from dubbing.media.reader import VideoReader
from dubbing.media.timeline import Length, OutputPlan, plan_output
from dubbing.motion import Motion
from dubbing.options import DubOptions
from dubbing.persona import Persona

SPEECH_OF = "speech of speaker "
"""Role of an input that is the speech of one of several speakers, before the speaker's name."""


@dataclass(frozen=True)
class Voice:
    """One of the speakers that a job dubs.

    Attributes:
        persona, speaker: who, and where in the video.
        motion_file: of the whole result, see `load_motion`.
    """

    persona: Persona
    speaker: SpeakerTrack
    motion_file: Path

    def motion(self, plan: OutputPlan, start: int, stop: int) -> Motion:
        """The lower face's motion while output frames `start` ... `stop - 1` are shown."""
        first, last = plan.frame(start), plan.frame(stop - 1)
        return load_motion(self.motion_file, float(first.time), float(last.time))


@dataclass(frozen=True)
class Job:
    """A job whose analysis is done and lies in its state folder.

    Attributes:
        folder: the state.
        target: the output.
        description: what decides the result.
        findings: of the analysis.
        resumed: whether an earlier run had planned it.
        reused: segments that an earlier run had finished.
        started: `time.perf_counter` when this run began.
    """

    folder: JobFolder
    target: Path
    description: JobDescription
    findings: Findings
    resumed: bool = False
    reused: frozenset[int] = frozenset()
    started: float = field(default_factory=time.perf_counter)

    @classmethod
    def load(cls, folder: str | Path, target: str | Path | None = None) -> Job:
        """The job in a state folder, in any process.

        Raises:
            UnfinishedJob: there is none, or it can't be read.
        """
        state = JobFolder(Path(folder))
        try:
            text = state.job.read_text()
        except OSError as error:
            raise UnfinishedJob(f"no planned job here: {error.strerror}", path=folder) from error
        description = JobDescription.from_json(text, state.job)
        place = Path(target) if target else state.path
        return cls(state, place, description, Findings.load(state.findings))

    @cached_property
    def options(self) -> DubOptions:
        return self.description.dub_options

    @cached_property
    def persona(self) -> Persona:
        return Persona.load(self.folder.persona)

    @cached_property
    def plan(self) -> OutputPlan:
        """Which source frame stands where in the result."""
        index = self.findings.index
        length: Length = self.options.length  # type: ignore[assignment]
        return plan_output(index.times, index.duration, self.findings.audio_seconds, length)

    @cached_property
    def spans(self) -> list[Span]:
        """The segments, in order."""
        return cut_segments(self.plan, self.findings.speaker, self.options.segment_seconds)

    @cached_property
    def pts(self) -> array[int]:
        """PTS of every frame of the result in ticks of the source's time base; the first pass has
        the source's own."""
        index = self.findings.index
        first = index.pts[0]
        times = (round(frame.time / index.time_base) for frame in self.plan.frames())
        return array("q", (first + ticks for ticks in times))

    @property
    def last_duration(self) -> int:
        """Ticks for which the last frame stands."""
        last = self.plan.frame(self.plan.count - 1)
        return max(round(last.duration / self.findings.index.time_base), 1)

    def _input(self, role: str) -> Path:
        found = self.description.input(role)
        if found is None:
            raise UnfinishedJob(f"the state names no {role}", path=self.folder.job)
        return Path(found.path)

    @property
    def audio(self) -> Path:
        """The new speech."""
        return self._input("audio")

    def open_video(self) -> VideoReader:
        """The source with the numbering of the analysis."""
        options = self.options
        reader = VideoReader(self._input("video"), limits=options.limits, decoder=options.decoder)
        reader.use_index(self.findings.index)
        return reader

    @property
    def speeches(self) -> dict[str, Path]:
        """{speaker: speech} where several are dubbed, else empty."""
        return {
            item.role.removeprefix(SPEECH_OF): Path(item.path)
            for item in self.description.inputs
            if item.role.startswith(SPEECH_OF)
        }

    @cached_property
    def voices(self) -> list[Voice]:
        """The speakers, the one whose face lies on top of the others' last."""
        found = [Voice(self.persona, self.findings.speaker, self.folder.motion)]
        for number in range(1, len(self.speeches)):
            persona, findings, motion = self.folder.voice(number)
            voice = Voice(Persona.load(persona), Findings.load(findings).speaker, motion)
            found.append(voice)
        return found

    def motion(self, span: Span) -> Motion:
        """The (first) speaker's lower face while `span` is shown."""
        return self.voices[0].motion(self.plan, span.start, span.stop)

    def record(self, span: Span, whole: bool = False) -> SegmentRecord | None:
        """What is known of a finished segment; None while it is to be done.

        Args:
            whole: also compare the content of its file with the checksum.
        """
        record = SegmentRecord.load(self.folder.record(span.number))
        if record is None or not record.fits(span, self.folder.segment(span.number), whole):
            return None
        return record

    def missing(self, whole: bool = False) -> list[int]:
        """Numbers of the segments that are still to be rendered."""
        return [span.number for span in self.spans if self.record(span, whole) is None]

    def records(self) -> Iterator[SegmentRecord]:
        """All segments' records, each file compared with its checksum.

        Raises:
            UnfinishedJob: one is not finished, or was damaged.
        """
        for span in self.spans:
            record = self.record(span, whole=True)
            if record is None:
                raise UnfinishedJob(
                    f"segment {span.number} is missing or damaged",
                    path=self.folder.segment(span.number),
                    hint="--resume renders it again",
                )
            yield record


def resumed_job(folder: JobFolder, target: Path, now: JobDescription, started: float) -> Job:
    """The job that an earlier run has planned in `folder`.

    Segments whose content does not fit their checksum count as not done.

    Raises:
        UnfinishedJob: it is not the job that `now` describes; the message says what differs.
    """
    job = Job.load(folder.path, target)
    found = job.description.differences(now)
    if found:
        raise UnfinishedJob(
            f"the unfinished job there is another one: {'; '.join(found)}",
            path=folder.path,
            hint="run it as before, or start afresh with --clean",
        )
    missing = set(job.missing(whole=True))
    for number in missing:
        folder.record(number).unlink(missing_ok=True)
    reused = frozenset(range(len(job.spans))) - missing
    # the inputs are watched where they lie now, which may be another place, under today's limits
    described = replace(job.description, inputs=now.inputs, options=now.options)
    return replace(job, description=described, resumed=True, reused=reused, started=started)
