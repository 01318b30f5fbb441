"""A worker: loads the networks once, then does one task after the other."""

from __future__ import annotations

import os
import socket
import tempfile
import time
import traceback
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import torch

from dubbing.batch import storage
from dubbing.batch.identity import input_identity
from dubbing.batch.jobs import Job
from dubbing.batch.tasks import PERSONA, Result, Task, WorkerSetup, describe
from dubbing.dubber import Dubber
from dubbing.errors import DubbingError
from dubbing.persona import Persona
from dubbing.report import DubReport


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
        self._scratch = setup.scratch

    def run(self, task: Task) -> Result:
        """Do one task to its end, good or bad."""
        start = time.perf_counter()
        facts: dict[str, Any] = {}
        failure = None
        try:
            with tempfile.TemporaryDirectory(prefix="job-", dir=self._scratch) as folder:
                facts = self._do(task, Path(folder))
        except DubbingError as error:
            failure = describe(error)
        except Exception as error:  # one job's bug must not end the others; its trace is kept
            failure = describe(error, traceback.format_exc())
        seconds = round(time.perf_counter() - start, 3)
        return Result(task.key, self.name, seconds, facts, failure)

    def _do(self, task: Task, folder: Path) -> dict[str, Any]:
        job = Job.from_dict(task.job)
        video = storage.fetch(job.video, folder / "video")
        if task.kind == PERSONA:
            return self._persona(task, job, video, folder)
        audio = storage.fetch(job.audio, folder / "audio")
        options = replace(job.options, overwrite=False)
        if job.style is not None:
            options = replace(options, style=storage.fetch(job.style, folder / "style"))
        given = job.persona or task.persona
        persona = Persona.load(storage.fetch(given, folder / "persona")) if given else None
        made = folder / storage.base_name(task.target)
        report = self.dubber.dub(video, audio, made, options, persona)
        stored = storage.publish(made, task.target, task.replace)
        if job.report is not None:
            self._publish_report(report, job, task, folder)
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
            "weights": report.checkpoint.sha256,
            "engine_version": report.engine_version,
        }

    def _publish_report(self, report: DubReport, job: Job, task: Task, folder: Path) -> None:
        """The report names what the job named, not the worker's temporary files."""
        named = replace(
            report,
            video=replace(report.video, path=job.video),
            audio=replace(report.audio, path=job.audio),
            output=replace(report.output, path=task.target),
        )
        made = folder / "report.json"
        named.save(made)
        place = task.target[: -len(job.output)] + str(job.report)
        storage.publish(made, place, replace=True)

    def _persona(self, task: Task, job: Job, video: Path, folder: Path) -> dict[str, Any]:
        made = folder / "speaker.persona"
        persona = self.dubber.prepare(video, replace(job.options, style=None))
        persona.save(made)
        stored = storage.publish(made, task.target, replace=True)
        return {
            "sha256": stored.sha256,
            "bytes": stored.bytes,
            "token": stored.token,
            "inputs": {job.video: input_identity(job.video)},
            "frames": persona.frames,
        }
