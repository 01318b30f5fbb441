"""A worker: loads the networks once, then does one task after the other."""

from __future__ import annotations

import os
import shutil
import socket
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import cv2
import torch

from dubbing.batch import storage
from dubbing.batch.identity import input_identity
from dubbing.batch.jobs import Job
from dubbing.batch.tasks import (
    DUB,
    FACES,
    INDEX,
    PERSONA,
    PLAN,
    SEGMENT,
    Result,
    Task,
    WorkerSetup,
    describe,
)
from dubbing.dubber import Dubber
from dubbing.errors import DubbingError, UnfinishedJob
from dubbing.job import Job as PlannedJob
from dubbing.job import JobFolder, SegmentRenderer, SharedFaces, state_path
from dubbing.options import DubOptions
from dubbing.persona import Persona, fingerprint
from dubbing.report import DubReport

Done = TypeVar("Done")

SEEN = "faces"  # folder of what is seen in a video before its job is planned


@dataclass(frozen=True)
class _Given:
    """What a job gives to the engine, all of it on the local disk.

    Attributes:
        audio: the speech, or {speaker: speech} of several speakers; mix: the result's sound then.
        options: of the job, which goes on from where another try stopped.
    """

    video: Path
    audio: Path | dict[str, str | Path]
    mix: Path | None
    output: Path
    options: DubOptions
    persona: Persona | None

    def dub(self, dubber: Dubber, options: DubOptions) -> DubReport:
        if isinstance(self.audio, dict):
            return dubber.dub_speakers(self.video, self.audio, self.output, options, self.mix)
        return dubber.dub(self.video, self.audio, self.output, options, self.persona)

    def plan(
        self, dubber: Dubber, options: DubOptions, faces: Path
    ) -> AbstractContextManager[PlannedJob]:
        return dubber.plan(
            self.video, self.audio, self.output, options, self.persona, sound=self.mix, faces=faces
        )

    @property
    def needs_faces(self) -> bool:
        """Whether planning looks for faces in the video."""
        if JobFolder(state_path(self.output)).planned:
            return False
        return self.persona is None or self.persona.source != fingerprint(self.video)


class Worker:
    """Does tasks. What goes wrong with a task becomes its result; the next one is not harmed.

    Raises:
        CheckpointNotFound, CheckpointCorrupt, OptionInvalid: the networks can't be loaded.
    """

    def __init__(self, setup: WorkerSetup):
        torch.set_num_threads(setup.threads)
        cv2.setNumThreads(setup.threads)
        self.dubber = Dubber.from_pretrained(setup.checkpoint, device=setup.device)
        self.name = f"{socket.gethostname()}:{os.getpid()}"
        self._scratch = Path(setup.scratch) if setup.scratch else None
        self._renderer: SegmentRenderer | None = None

    def run(self, task: Task) -> Result:
        """Do one task to its end, good or bad."""
        start = time.perf_counter()
        facts: dict[str, Any] = {}
        failure = None
        work = {DUB: self._dub, PERSONA: self._persona, INDEX: self._index, FACES: self._faces,
                PLAN: self._plan, SEGMENT: self._segment}  # fmt: skip
        if task.kind != SEGMENT:
            self._forget_renderer()
        try:
            job = Job.from_dict(task.job)
            with self._home(task, job) as home:
                facts = work[task.kind](task, job, home)
        except DubbingError as error:
            failure = describe(error)
        except Exception as error:  # one job's bug must not end the others; its trace is kept
            failure = describe(error, traceback.format_exc())
        seconds = round(time.perf_counter() - start, 3)
        return Result(task.key, self.name, seconds, facts, failure)

    @contextmanager
    def _home(self, task: Task, job: Job) -> Iterator[Path]:
        """A folder for what is not finished.

        Where a scratch folder is known it is the job's own, in which another try, another worker
        or a resumed batch goes on; it is removed with the end of the job.
        """
        if self._scratch is None or task.kind == PERSONA:
            with tempfile.TemporaryDirectory(prefix="dub-", dir=self._scratch) as folder:
                yield Path(folder)
            return
        home = self._scratch / job.digest
        home.mkdir(parents=True, exist_ok=True)
        try:
            yield home
        except DubbingError as error:
            if describe(error)["permanent"]:
                shutil.rmtree(home, ignore_errors=True)
            raise
        if task.kind == DUB:
            shutil.rmtree(home, ignore_errors=True)

    def _dub(self, task: Task, job: Job, home: Path) -> dict[str, Any]:
        given = self._given(task, job, home)
        report = _resumed(lambda asked: given.dub(self.dubber, asked), given.options)
        stored = storage.publish(given.output, task.target, task.replace)
        if job.report is not None:
            self._publish_report(report, job, task, home)
        return {
            "sha256": stored.sha256,
            "bytes": stored.bytes,
            "token": stored.token,
            "inputs": {place: input_identity(place) for place in job.inputs},
            "frames": report.output.frames,
            "frames_dubbed": report.frames_dubbed,
            "duration_s": round(report.output.duration_s, 3),
            "passed_through": report.pass_through_counts,
            "warnings": report.warnings,
            "device": report.device,
            "engine_version": report.engine_version,
        }

    def _index(self, task: Task, job: Job, home: Path) -> dict[str, Any]:
        """Which stretches of the video are to be looked through before the job is planned."""
        given = self._given(task, job, home)
        if not given.needs_faces:
            return {"missing": []}
        shared = self.dubber.share_faces(given.video, home / SEEN, given.options)
        missing = shared.missing()
        return {"missing": missing if len(missing) > 1 else [], "frames": shared.index.count}

    def _faces(self, task: Task, job: Job, home: Path) -> dict[str, Any]:
        """One stretch of a video that was indexed."""
        shared = SharedFaces.load(home / SEEN)
        if shared is None:
            raise UnfinishedJob("the video is not indexed", path=job.video)
        return {"frames": shared.find(task.number, self.dubber.model)}

    def _plan(self, task: Task, job: Job, home: Path) -> dict[str, Any]:
        """Everything before the first frame; its state stays in `home` for SEGMENT and DUB."""
        given = self._given(task, job, home)
        facts: dict[str, Any] = {}

        def plan(asked: DubOptions) -> None:
            with given.plan(self.dubber, asked, home / SEEN) as planned:
                facts.update(missing=planned.missing(), frames=planned.plan.count)
                shutil.rmtree(home / SEEN, ignore_errors=True)
                raise _StateKeptError

        try:
            _resumed(plan, given.options)
        except _StateKeptError:
            return facts
        raise RuntimeError("unreachable: plan() raises in any case")

    def _segment(self, task: Task, job: Job, home: Path) -> dict[str, Any]:
        """One segment of a job that was planned."""
        state = state_path(home / storage.base_name(task.target))
        if self._renderer is None or self._renderer.job.folder.path != state:
            self._forget_renderer()
            self._renderer = SegmentRenderer(self.dubber, PlannedJob.load(state))
        record = self._renderer.render(task.number)
        return {"frames": record.stop - record.start, "bytes": record.size}

    def _forget_renderer(self) -> None:
        if self._renderer is not None:
            self._renderer.__exit__(None, None, None)
            self._renderer = None

    def _persona(self, task: Task, job: Job, home: Path) -> dict[str, Any]:
        made = home / "speaker.persona"
        video = storage.fetch(job.video, home / "video")
        persona = self.dubber.prepare(video, job.options)
        persona.save(made)
        stored = storage.publish(made, task.target, replace=True)
        return {
            "sha256": stored.sha256,
            "bytes": stored.bytes,
            "token": stored.token,
            "inputs": {job.video: input_identity(job.video)},
            "frames": persona.frames,
        }

    def _given(self, task: Task, job: Job, home: Path) -> _Given:
        video = storage.fetch(job.video, home / "video")
        audio: Path | dict[str, str | Path] = {
            who: storage.fetch(place, home / f"speech-{number}")
            for number, (who, place) in enumerate(job.speeches.items())
        }
        if job.audio is not None:
            audio = storage.fetch(job.audio, home / "audio")
        mix = storage.fetch(job.mix, home / "mix") if job.mix else None
        # the file in `home` is nobody's but the batch's
        options = replace(job.options, overwrite=True, resume=True, clean=False)
        if job.style is not None:
            options = replace(options, style=storage.fetch(job.style, home / "style"))
        known = job.persona or task.persona
        persona = Persona.load(storage.fetch(known, home / "persona")) if known else None
        output = home / storage.base_name(task.target)
        return _Given(video, audio, mix, output, options, persona)

    def _publish_report(self, report: DubReport, job: Job, task: Task, home: Path) -> None:
        """The report names what the job named, not the worker's temporary files."""
        named = replace(
            report,
            video=replace(report.video, path=job.video),
            audio=replace(report.audio, path=job.sound),
            output=replace(report.output, path=task.target),
        )
        made = home / "report.json"
        named.save(made)
        place = task.target[: -len(job.output)] + str(job.report)
        storage.publish(made, place, replace=True)


class _StateKeptError(Exception):
    """Leaves `Dubber.plan` in a way that keeps the state."""


def _resumed(work: Callable[[DubOptions], Done], options: DubOptions) -> Done:
    """`work`, from where an earlier try stopped; anew if what that left is of another job (an
    input was changed)."""
    try:
        return work(options)
    except UnfinishedJob:
        return work(replace(options, resume=False, clean=True))
