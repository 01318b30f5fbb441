"""What workers are given and what they give back: plain data that fits into JSON."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field
from typing import Any

from dubbing.errors import (
    DiskFull,
    DubbingError,
    InputChanged,
    MediaFailed,
    OutputBusy,
    StorageFailed,
    UnfinishedJob,
    WorkerDied,
)

DUB, PERSONA, INDEX, FACES, PLAN, SEGMENT = "dub", "persona", "index", "faces", "plan", "segment"

PASSING = (
    DiskFull, InputChanged, MediaFailed, OutputBusy, StorageFailed, UnfinishedJob, WorkerDied
)  # fmt: skip
"""Failures that another try may not meet; so may every exception that is not the engine's own.
All others lie in the job itself: they are not tried again within a run."""


@dataclass(frozen=True)
class Task:
    """One piece of work.

    Attributes:
        kind: DUB a whole job (or what is left of it), PERSONA a speaker that jobs share. Of a job
            that several workers share: INDEX the times of its frames, FACES what is seen in a
            stretch of them, PLAN what else comes before the first frame of the result, SEGMENT one
            of its segments after that.
        key: names the task within its batch.
        job: `Job.to_dict()` of the job; a persona's task has one of the jobs that share it.
        target: where the result goes.
        replace: whether a file there may be replaced.
        persona: location of a prepared persona, for DUB, INDEX and PLAN.
        number: of the SEGMENT, or of the stretch of FACES.
    """

    kind: str
    key: str
    job: dict[str, Any]
    target: str
    replace: bool = False
    persona: str | None = None
    number: int = -1

    def to_json(self) -> str:
        return json.dumps(dataclasses.asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Task:
        return cls(**json.loads(text))


@dataclass(frozen=True)
class Result:
    """How a task ended: `facts` where it succeeded, else `error`.

    `error` has kind (name of the exception), message, exit_code, permanent, and trace for what is
    not an error of the input.
    """

    key: str
    worker: str
    seconds: float
    facts: dict[str, Any] = field(default_factory=dict)
    error: dict[str, Any] | None = None

    def to_json(self) -> str:
        return json.dumps(dataclasses.asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Result:
        return cls(**json.loads(text))


@dataclass(frozen=True)
class WorkerSetup:
    """How a worker starts.

    Attributes:
        checkpoint, device: see `Dubber.from_pretrained`.
        threads: processor threads for the networks and OpenCV.
        scratch: folder for work that is not finished, seen by all workers; None where there is
            none, then each has its own temporary files.
    """

    checkpoint: str
    device: str
    threads: int
    scratch: str | None


def describe(error: BaseException, trace: str = "") -> dict[str, Any]:
    """An exception as the `error` of a `Result`."""
    kind = type(error).__name__
    described = {
        "kind": kind,
        "message": str(error) or kind,
        "exit_code": error.exit_code if isinstance(error, DubbingError) else 1,
        "permanent": isinstance(error, DubbingError) and not isinstance(error, PASSING),
    }
    return described | ({"trace": trace} if trace else {})
