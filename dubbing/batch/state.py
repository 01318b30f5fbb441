"""Where every job of a batch stands, replayed from its journal."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from dubbing.batch.journal import Record
from dubbing.batch.storage import Stored

WAITING, BEGUN, DONE, FAILED = "waiting", "begun", "done", "failed"


@dataclass
class JobState:
    """One job: `facts` of its result where it is DONE, `error` of its last try where it FAILED."""

    digest: str
    status: str = WAITING
    attempts: int = 0
    facts: dict[str, Any] = field(default_factory=dict)
    error: dict[str, Any] = field(default_factory=dict)

    @property
    def stored(self) -> Stored:
        return Stored(self.facts["bytes"], self.facts["sha256"], self.facts["token"])


@dataclass
class Run:
    """One start of the command and what it did itself: `began` and `last` are the times of day, in
    seconds, when its first task began and its last one ended."""

    engine: str
    workers: int
    kept: int  # jobs that were done before and are unchanged
    began: float | None = None
    last: float = 0.0
    done: int = 0
    frames: int = 0
    ended: bool = False


@dataclass
class BatchState:
    """The whole batch. `owned` are the names that only this batch may have written."""

    jobs: dict[str, JobState] = field(default_factory=dict)
    personas: dict[str, dict[str, Any]] = field(default_factory=dict)
    owned: set[str] = field(default_factory=set)
    weights: dict[str, str] = field(default_factory=dict)
    run: Run | None = None


def replay(records: Iterable[Record]) -> BatchState:
    """State after the records."""
    state = BatchState()
    for record in records:
        apply(state, record)
    return state


def apply(state: BatchState, record: Record) -> None:
    """Bring `state` forward by one record."""
    kind = record["kind"]
    if kind == "batch":
        old = state.jobs
        state.jobs = {}
        for name, digest in record["jobs"].items():
            known = old.get(name)
            state.jobs[name] = known if known and known.digest == digest else JobState(digest)
        state.weights = record["weights"]
        for name in record["again"]:
            state.jobs[name] = JobState(state.jobs[name].digest)
        kept = sum(job.status == DONE for job in state.jobs.values())
        state.run = Run(record["engine"], record["workers"], kept)
    elif kind == "persona":
        state.personas[record["key"]] = record["facts"]
    elif kind == "begin":
        for name in record["jobs"]:
            state.owned.add(name)
            state.jobs[name].status = BEGUN
            state.jobs[name].attempts = record["attempt"]
    elif kind in ("done", "failed"):
        job = state.jobs[record["job"]]
        job.status = kind
        job.facts, job.error = record.get("facts", {}), record.get("error", {})
    if state.run is not None:
        _count(state.run, record)


def _count(run: Run, record: Record) -> None:
    kind = record["kind"]
    if kind == "ready":
        run.workers = record["workers"]
    elif kind == "end":
        run.ended = True
    elif "seconds" in record:  # a task that ended; loading the networks is not part of the pace
        start = record["time"] - record["seconds"]
        run.began = start if run.began is None else min(run.began, start)
        run.last = record["time"]
    if kind == "done":
        run.done += 1
        run.frames += record["facts"]["frames"]
