"""Rendering of single segments of a planned job, in any order and any process."""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from dubbing.analysis import easing
from dubbing.checksums import file_sha256
from dubbing.closing import Closing
from dubbing.errors import OutputUnwritable, UnfinishedJob
from dubbing.job.job import Job, Voice
from dubbing.job.segments import SegmentRecord, Span
from dubbing.media.reader import VideoReader
from dubbing.media.timeline import OutputFrame, OutputPlan, iter_plan
from dubbing.media.writer import VideoWriter
from dubbing.overlap import done_behind, made_ahead
from dubbing.report import join_pass_through
from dubbing.shot_sessions import ShotSessions
from dubbing.stream import AHEAD, DoneFrame, DubbedFrames, StreamFrame
from dubbing.tail import Tail

if TYPE_CHECKING:
    from dubbing.dubber import Dubber


class SegmentRenderer(Closing):
    """Renders segments of one job with the networks of a `Dubber`.

    Which segments were rendered before makes no difference to a later one: each is decoded from a
    key frame of its own with the neighbours that its first and last frames refer to, and gets a
    fresh encoder.

    Raises:
        UnfinishedJob: the job was planned with other networks.
    """

    def __init__(self, dubber: Dubber, job: Job):
        if dubber.weights.digests != job.description.weights:
            raise UnfinishedJob("the job was planned with other weights", path=job.folder.job)
        self.job, self._dubber = job, dubber
        self._reader = job.open_video()
        self._reach = AHEAD * len(job.voices)
        self._source = _Source(self._reader, job.plan, self._reach)
        self._tail = Tail()
        if job.options.tail == "original":
            self._tail = Tail.original(job.plan, job.findings.audio_seconds)
        self._faces = [_VoiceRenderer(dubber, job, voice) for voice in job.voices]

    def close(self) -> None:
        self._source.close()

    def render(self, number: int, advance: Callable[[], None] = lambda: None) -> SegmentRecord:
        """Render segment `number` into the job's folder; it appears there by atomic rename.

        Args:
            advance: called after every frame; an exception from it stops the work.

        Raises:
            InputChanged: an input is not what the job was planned for.
            OutputUnwritable: the state folder has vanished.
            DiskFull, MediaFailed, OptionInvalid: encoding failed.
        """
        job = self.job
        span = job.spans[number]
        start = time.perf_counter()
        video = job.folder.segment(number)
        part = video.with_name(f"{video.name}.{os.getpid()}.part")
        try:
            delay, passed = self._encode(span, part, advance)
            job.description.check_inputs()
            record = SegmentRecord(
                span.number, span.start, span.stop, part.stat().st_size, file_sha256(part), delay,
                time.perf_counter() - start, join_pass_through(passed),
            )  # fmt: skip
            _flushed(part)
            os.replace(part, video)
            record.save(job.folder.record(number))
        except Exception as error:
            job.description.check_inputs()  # a file that changes while it is read fails anyhow
            if not job.folder.path.is_dir():
                raise OutputUnwritable(
                    "the folder was removed during the run", path=job.folder.path
                ) from error
            raise
        finally:
            part.unlink(missing_ok=True)
        return record

    def _encode(
        self, span: Span, path: Path, advance: Callable[[], None]
    ) -> tuple[int, dict[int, str]]:
        """(decoding delay, {output frame: why it passed through})."""
        job, reader, options = self.job, self._reader, self.job.options
        count = job.plan.count
        around = self._source.frames(
            max(span.start - self._reach, 0), min(span.stop + self._reach, count)
        )
        planned = (
            StreamFrame(
                f.number, f.source, float(f.time), f.pts, f.duration, self._tail.share(f.number)
            )
            for f in around
        )
        first = job.pts[span.start]
        writer = VideoWriter(
            path, reader.video, options.codec, crf=float(options.crf), preset=options.preset
        )

        def encode(done: DoneFrame) -> None:
            ticks = max(round(done.source.duration / reader.time_base), 1)
            writer.write(done.frame, done.source.pts - first, ticks)

        with writer, made_ahead(planned) as frames, done_behind(encode) as encoded:
            # each speaker is drawn into the pictures of the one before, who therefore needs as
            # many neighbours finished as the rest refer to
            reach = self._reach
            for face in self._faces[:-1]:
                reach -= AHEAD
                frames = face.drawn(
                    frames, max(span.start - reach, 0), min(span.stop + reach, count)
                )
            for done in self._faces[-1].finished(frames, span.start, span.stop):
                encoded(done)
                advance()
        passed = {
            number: " / ".join(dict.fromkeys(face.passed[number] for face in self._faces))
            for number in range(span.start, span.stop)
            if all(number in face.passed for face in self._faces)
        }
        return writer.delay, passed


class _VoiceRenderer:
    """Draws one of a job's speakers.

    Attributes:
        passed: {output frame: why it passed through} of the last segment.
    """

    def __init__(self, dubber: Dubber, job: Job, voice: Voice):
        self._lower, self._job, self._voice = dubber.lower, job, voice
        persona = voice.persona
        self._session = dubber.session(persona)
        self._shots = ShotSessions(
            self._session, persona.shot_banks, lambda bank: dubber.session(persona, bank)
        )
        speaker = voice.speaker
        self._weights = easing(speaker.reasons, job.findings.index.count, cuts=speaker.cuts)
        self.passed: dict[int, str] = {}

    def finished(self, frames: Iterable[StreamFrame], start: int, stop: int) -> Iterator[DoneFrame]:
        """Output frames `start` ... `stop - 1`; `frames` has the neighbours they refer to."""
        voice = self._voice
        self.passed = {}
        dubbed = DubbedFrames(
            self._session, self._lower, voice.motion(self._job.plan, start, stop),
            voice.speaker, self._weights, self._shots,
        )  # fmt: skip
        for done in dubbed.run(frames, start, stop):
            if done.reason:
                self.passed[done.source.number] = done.reason
            yield done

    def drawn(self, frames: Iterable[StreamFrame], start: int, stop: int) -> Iterator[StreamFrame]:
        """The same with this speaker drawn in, for the next one."""
        for done in self.finished(frames, start, stop):
            picture = replace(done.source.source, frame=done.frame)
            yield replace(done.source, source=picture)


class _Source:
    """Decoded frames of a plan, piece by piece.

    Where the source can be sought, every piece is decoded for itself. Where it can't, decoding
    starts at the beginning of the file anyhow, so one decode is kept going over neighbouring
    pieces.
    """

    def __init__(self, reader: VideoReader, plan: OutputPlan, reach: int):
        self._reader, self._plan = reader, plan
        self._running: Iterator[OutputFrame] | None = None
        self._held: deque[OutputFrame] = deque(maxlen=2 * reach)
        self._next = 0

    def frames(self, start: int, stop: int) -> Iterator[OutputFrame]:
        """Frames `start` ... `stop - 1` of the plan."""
        if self._reader.index.seekable:
            yield from iter_plan(self._reader, self._plan, start, stop)
            return
        held = [frame for frame in self._held if frame.number >= start]
        if self._running is None or self._next - len(held) != start:
            self._running = iter_plan(self._reader, self._plan, start)
            self._next, held = start, []
        yield from held
        while self._next < stop:
            frame = next(self._running)
            self._held.append(frame)
            self._next += 1
            yield frame

    def close(self) -> None:
        """End a decode that is still going."""
        self._running = None
        self._held.clear()


def _flushed(path: Path) -> None:
    """Bring a file's data to the disk, so that its record never precedes it."""
    with path.open("rb") as file:
        os.fsync(file.fileno())
