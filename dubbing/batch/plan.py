"""Which jobs of a batch are still to do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from dubbing.batch import storage
from dubbing.batch.identity import input_identity
from dubbing.batch.jobs import Job
from dubbing.batch.sharing import pieces, result_seconds
from dubbing.batch.state import DONE, BatchState, JobState
from dubbing.batch.tasks import describe
from dubbing.errors import DubbingError, OutputUnwritable


@dataclass(frozen=True)
class Plan:
    """Attributes:
    jobs: all of them; todo: those to do now, the longest first.
    again: names of jobs that were done, but whose result or inputs are not what they were.
    refused: errors of jobs whose place is taken by another file, by name.
    """

    jobs: list[Job]
    todo: list[Job]
    again: list[str]
    refused: dict[str, dict[str, Any]]
    seconds: dict[str, float]

    @property
    def pieces(self) -> int:
        """About how many workers could be busy at once."""
        return sum(pieces(job, self.seconds.get(job.output, 0.0)) for job in self.todo)


def make_plan(jobs: Sequence[Job], folder: str, state: BatchState) -> Plan:
    """Compare the jobs with what the journal knows and with what lies in `folder`."""
    todo: list[Job] = []
    again: list[str] = []
    refused: dict[str, dict[str, Any]] = {}
    for job in jobs:
        known = state.jobs.get(job.output)
        place = storage.join(folder, job.output)
        try:
            if known and known.status == DONE and known.digest == job.digest:
                if _unchanged(job, known, place):
                    continue
                again.append(job.output)
            owned = job.options.overwrite or job.output in state.owned
            if not owned and storage.exists(place):
                raise OutputUnwritable(
                    "the file exists", path=place, hint="set overwrite, or use another name"
                )
        except DubbingError as error:
            refused[job.output] = describe(error)
            continue
        todo.append(job)
    seconds = result_seconds(todo)
    # a long job that comes last keeps one worker busy alone; those of one video stay together
    todo.sort(key=lambda job: (-seconds.get(job.output, 0.0), job.video))
    return Plan(list(jobs), todo, again, refused, seconds)


def _unchanged(job: Job, known: JobState, place: str) -> bool:
    """Whether a finished job's inputs and result are what they were."""
    inputs: dict[str, str] = known.facts["inputs"]
    if any(input_identity(location) != inputs.get(location) for location in job.inputs):
        return False
    return storage.verify(place, known.stored)
