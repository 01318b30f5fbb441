"""Runs a batch: what is to do, in which order, on which engine, with the journal beside it."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict
from dataclasses import replace as replaced
from pathlib import Path
from typing import Any

from dubbing.batch import storage
from dubbing.batch.engine import Engine
from dubbing.batch.engines import choose_engine
from dubbing.batch.jobs import Job
from dubbing.batch.journal import Journal, read_journal
from dubbing.batch.options import BatchOptions
from dubbing.batch.personas import persona_key, persona_tasks
from dubbing.batch.plan import Plan, make_plan
from dubbing.batch.sharing import shared_jobs
from dubbing.batch.state import BatchState, apply, replay
from dubbing.batch.summary import Summary, summarise
from dubbing.batch.tasks import DUB, FACES, INDEX, PLAN, SEGMENT, Result, Task, WorkerSetup
from dubbing.errors import BatchInvalid, InputNotFound, OptionInvalid, OutputUnwritable
from dubbing.report import save_bytes
from dubbing.weights import checkpoint_hashes

HIDDEN = ".dub-batch"
JOURNAL = "journal.jsonl"
SUMMARY = "summary.json"

_DONE = {INDEX: "indexed", PLAN: "planned"}  # what the journal calls it

Listener = Callable[[Result, int, int], None]
"""Called after each job with what came of it, the number of jobs that are finished or failed, and
the number of all."""


def run_batch(
    jobs: Sequence[Job],
    output_dir: str | Path,
    options: BatchOptions | None = None,
    *,
    checkpoint: str = "default",
    device: str = "auto",
    listener: Listener | None = None,
) -> Summary:
    """Dub all jobs into `output_dir` (a local folder or a URL).

    A job that fails is part of the summary and stops nothing else.

    Raises:
        OptionInvalid: options that contradict each other or this machine.
        OutputUnwritable: the folder can't be written, holds a batch and `options.resume` is not
            set, or another process is at work on it.
        BatchInvalid: the batch there was begun with other weights, or its journal is damaged.
        CheckpointNotFound, CheckpointCorrupt: the networks can't be loaded.
    """
    options = options or BatchOptions()
    folder = _output_folder(output_dir)
    weights = checkpoint_hashes(checkpoint)
    hidden = _state_folder(folder, options)
    with Journal(hidden / JOURNAL) as journal:
        records = read_journal(hidden / JOURNAL)
        if records and not options.resume:
            raise OutputUnwritable(
                "a batch was begun here", path=folder,
                hint="use --resume to go on with it, or another folder",
            )  # fmt: skip
        state = replay(records)
        if state.weights not in ({}, weights):
            raise BatchInvalid(
                "the batch was begun with other weights", path=folder,
                hint="use the same --checkpoint, or another folder",
            )  # fmt: skip
        plan = make_plan(jobs, folder, state)
        batch = _Batch(journal, state, folder, options, listener)
        batch.note(
            "batch", jobs={job.output: job.digest for job in jobs}, again=plan.again,
            weights=weights, engine=options.engine, workers=options.workers,
            options={k: str(v) for k, v in asdict(options).items()},
        )  # fmt: skip
        scratch = hidden / "work"
        _keep(scratch, {job.digest for job in plan.todo})
        batch.refuse(plan)
        if plan.todo:
            here = not storage.is_url(folder) or options.engine == "local"
            setup = WorkerSetup(checkpoint, device, options.threads, str(scratch) if here else None)
            with choose_engine(setup, options, plan.pieces) as engine:
                batch.note("ready", workers=engine.workers)
                batch.work(engine, plan, share=here)
        batch.note("end")
        with suppress(OSError):  # what failed and may pass has left its work there
            scratch.rmdir()
        summary = summarise(state)
        save_bytes(hidden / SUMMARY, summary.to_json().encode())
    return summary


def batch_status(folder: str | Path) -> Summary:
    """The state of the batch in an output folder (or state folder), at work or not.

    Raises:
        InputNotFound: no batch was begun there.
        BatchInvalid: its journal is damaged.
    """
    records = read_journal(Path(folder) / HIDDEN / JOURNAL)
    if not records:
        raise InputNotFound("no batch was begun here", path=folder)
    return summarise(replay(records))


class _Batch:
    """Keeps the journal and the state in memory together while tasks run."""

    def __init__(
        self,
        journal: Journal,
        state: BatchState,
        folder: str,
        options: BatchOptions,
        listener: Listener | None,
    ):
        self.journal, self.state, self.folder = journal, state, folder
        self.options, self.listener = options, listener
        self.finished = 0

    def note(self, kind: str, **facts: Any) -> None:
        apply(self.state, self.journal.append(kind, **facts))

    def refuse(self, plan: Plan) -> None:
        """Jobs that fail before they begin."""
        self.finished = len(plan.jobs) - len(plan.todo) - len(plan.refused)
        for name, error in plan.refused.items():
            self._finish(Result(name, "", 0.0, error=error), 0)

    def work(self, engine: Engine, plan: Plan, share: bool) -> None:
        """Personas that several jobs share come first, then short jobs as a whole and the indices
        of long ones; of these the faces, stretch by stretch, the plans, the segments, which are
        joined at last."""
        personas, failed = self._personas(engine, plan)
        shared = set()
        if share:
            shared = shared_jobs(
                plan.seconds, plan.todo, engine.workers, self.options.segment_minutes
            )
        tasks = []
        for job in plan.todo:
            key = persona_key(job)
            if key in failed:
                self._finish(Result(job.output, "", 0.0, error=failed[key]), 0)
                continue
            place = storage.join(self.folder, job.output)
            replace = job.options.overwrite or job.output in self.state.owned
            kind = INDEX if job.output in shared else DUB
            tasks.append(Task(kind, job.output, job.to_dict(), place, replace, personas.get(key)))
        looks, plans = self._begun(engine, tasks, PLAN)
        self._parts(engine, looks, FACES)
        segments, joins = self._begun(engine, plans, DUB)
        self._parts(engine, segments, SEGMENT)
        self._begun(engine, joins, "")

    def _begun(
        self, engine: Engine, tasks: Sequence[Task], following: str
    ) -> tuple[list[tuple[Task, int]], list[Task]]:
        """Do tasks of jobs; whole jobs end with it.

        Returns:
            parts: (task, number) of what it found to be missing before the rest of a shared job.
            rest: tasks of the kind `following` for the shared jobs.
        """
        by_key = {task.key: task for task in tasks}
        parts: list[tuple[Task, int]] = []
        rest: list[Task] = []
        for result, attempt, final in self._tries(engine, tasks, begins=True):
            task = by_key[result.key]
            if task.kind == DUB or result.error is not None:
                self._ended(result, attempt, final)
                continue
            self.note(_DONE[task.kind], job=task.key, worker=result.worker, seconds=result.seconds,
                      facts=result.facts)  # fmt: skip
            parts += [(task, number) for number in result.facts["missing"]]
            rest.append(replaced(task, kind=following))
        return parts, rest

    def _parts(self, engine: Engine, parts: Sequence[tuple[Task, int]], kind: str) -> None:
        """Do parts of shared jobs. What fails is done, or told, by the task that follows them."""
        tasks = [replaced(task, kind=kind, key=f"{task.key}#{n}", number=n) for task, n in parts]
        for result, _, _ in self._tries(engine, tasks, begins=False):
            self.note(kind, part=result.key, worker=result.worker, seconds=result.seconds,
                      facts=result.facts, error=result.error)  # fmt: skip

    def _ended(self, result: Result, attempt: int, final: bool) -> None:
        if final:
            self._finish(result, attempt)
        else:
            self.note("retry", job=result.key, attempt=attempt, worker=result.worker,
                      seconds=result.seconds, error=result.error)  # fmt: skip

    def _personas(
        self, engine: Engine, plan: Plan
    ) -> tuple[dict[str, str], dict[str, dict[str, Any]]]:
        """Locations of the shared personas, and the errors of those that could not be made."""
        places = storage.join(self.folder, f"{HIDDEN}/personas")
        ready, tasks = persona_tasks(plan.jobs, plan.todo, places, self.state)
        failed: dict[str, dict[str, Any]] = {}
        targets = {task.key: task.target for task in tasks}
        for result, _, final in self._tries(engine, tasks, begins=False):
            if result.error is None:
                ready[result.key] = targets[result.key]
                self.note("persona", key=result.key, worker=result.worker, seconds=result.seconds,
                          facts=result.facts)  # fmt: skip
            elif final:
                failed[result.key] = result.error
        return ready, failed

    def _tries(
        self, engine: Engine, tasks: Sequence[Task], begins: bool
    ) -> Iterator[tuple[Result, int, bool]]:
        """(result, number of the try, whether it is the last) of every task, round by round:
        what failed and may pass is tried again after all others had their turn."""
        for attempt in range(1, self.options.retries + 2):
            if not tasks:
                return
            time.sleep(self.options.wait_before(attempt))
            if begins:
                self.note("begin", jobs=[task.key for task in tasks], attempt=attempt)
            again = []
            by_key = {task.key: task for task in tasks}
            for result in engine.run(tasks):
                error = result.error
                final = not error or error["permanent"] or attempt > self.options.retries
                if not final:
                    again.append(by_key[result.key])
                yield result, attempt, final
            tasks = again

    def _finish(self, result: Result, attempt: int) -> None:
        facts: dict[str, Any] = {"job": result.key, "attempt": attempt, "worker": result.worker}
        facts["seconds"] = result.seconds
        if result.error is None:
            self.note("done", **facts, facts=result.facts)
        else:
            self.note("failed", **facts, error=result.error)
        self.finished += 1
        if self.listener is not None:
            self.listener(result, self.finished, len(self.state.jobs))


def _output_folder(output_dir: str | Path) -> str:
    text = str(output_dir)
    if storage.is_url(text):
        storage.check_protocol(text)
        return text.rstrip("/")
    path = Path(text).absolute()
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputUnwritable(
            f"can't be made: {error.strerror or error}", path=output_dir
        ) from error
    return str(path)


def _state_folder(folder: str, options: BatchOptions) -> Path:
    if storage.is_url(folder):
        if options.state_dir is None:
            raise OptionInvalid(
                "the journal can't be kept at a URL", hint="name a local folder with --state-dir"
            )
        return options.state_dir.absolute() / HIDDEN
    if options.state_dir is not None:
        raise OptionInvalid(
            "--state-dir is for an output folder that is a URL",
            hint="the journal of a local one is kept in it",
        )
    return Path(folder) / HIDDEN


def _keep(folder: Path, names: set[str]) -> None:
    """Remove from a folder what killed workers left there, but for `names`."""
    folder.mkdir(parents=True, exist_ok=True)
    for left in folder.iterdir():
        if left.name not in names:
            shutil.rmtree(left, ignore_errors=True)
