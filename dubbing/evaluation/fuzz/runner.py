"""Runs damaged files one after another in a worker process that may die or hang."""

from __future__ import annotations

import multiprocessing
import os
import signal
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from dubbing.evaluation.fuzz.mutations import mutated
from dubbing.evaluation.fuzz.seeds import media_seeds, weight_seeds
from dubbing.evaluation.fuzz.targets import DubTarget, limit_memory, read_media, read_weights

TIME_LIMIT_S = 30.0
START_LIMIT_S = 120.0
"""For the first case of a worker, which imports what it needs."""

MEDIA, WEIGHTS, DUBS = "media", "weights", "dubs"
KINDS = (MEDIA, WEIGHTS, DUBS)


@dataclass(frozen=True)
class Job:
    """One damaged file: which seed file and which number made it."""

    kind: str
    number: int
    source: str
    damage: str
    path: Path


@dataclass(frozen=True)
class Failure:
    """What must not happen: `problem` is "crash", "hang", "bug" or "left behind"."""

    job: Job
    problem: str
    detail: str

    def __str__(self) -> str:
        job = self.job
        return (
            f"{self.problem}: {job.kind} {job.number} ({job.source}, {job.damage}): {self.detail}"
        )


@dataclass
class FuzzResult:
    """Figures of a run."""

    cases: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)
    failures: list[Failure] = field(default_factory=list)


def run_fuzz(
    kind: str,
    count: int,
    folder: Path,
    seed: int = 0,
    progress: Callable[[FuzzResult], None] | None = None,
) -> FuzzResult:
    """Damage seed files `count` times and read them.

    Args:
        kind: MEDIA, WEIGHTS, or DUBS (whole dubs, with damaged video, speech or persona).
        folder: for the files; those that made a failure stay there.
        seed: number of the first case; the same numbers make the same files.
    """
    result = FuzzResult()
    good, targets = _seeds(kind, folder)
    work = folder / "work"
    work.mkdir(exist_ok=True)
    worker = _Worker(kind, work, good)
    try:
        for job in _jobs(kind, targets, count, seed, folder):
            outcome, problem = worker.run(job)
            result.cases += 1
            result.outcomes.update(outcome)
            if problem is not None:
                result.failures.append(problem)
            else:
                job.path.unlink()
            if progress is not None:
                progress(result)
    finally:
        worker.stop()
    return result


def _seeds(kind: str, folder: Path) -> tuple[dict[str, Path], list[Path]]:
    """({name: good file}, files to damage)."""
    place = folder / "seeds"
    place.mkdir(exist_ok=True)
    if kind == WEIGHTS:
        return {}, weight_seeds(place)
    if kind == MEDIA:
        made = media_seeds(place)
        return {"video": made[0], "sound": place / "s.flac"}, made
    from dubbing.evaluation.cases.registry import Bench

    talker = Bench(place).talker
    talker.persona.save(place / "talker.persona")
    good = {"video": talker.video, "sound": talker.speech, "persona": place / "talker.persona"}
    return good, list(good.values())


def _jobs(kind: str, seeds: list[Path], count: int, first: int, folder: Path) -> Iterator[Job]:
    for number in range(first, first + count):
        source = seeds[number % len(seeds)]
        data, damage = mutated(source.read_bytes(), number)
        path = folder / f"{source.stem}-{number}{source.suffix}"
        path.write_bytes(data)
        yield Job(kind, number, source.name, damage, path)


class _Worker:
    """A process that reads files, and is replaced when it dies or hangs."""

    def __init__(self, kind: str, folder: Path, good: dict[str, Path]):
        self._arguments = (kind, folder, good)
        self._process: Any = None
        self._pipe: Connection | None = None

    def run(self, job: Job) -> tuple[list[str], Failure | None]:
        """(outcomes, failure) of one file."""
        limit = TIME_LIMIT_S
        if self._process is None:
            self._start()
            limit = START_LIMIT_S
        assert self._pipe is not None
        self._pipe.send(job)
        if not self._pipe.poll(limit):
            self.stop()
            return ["hang"], Failure(job, "hang", f"no end after {limit:.0f} s")
        try:
            outcome, trace = self._pipe.recv()
        except EOFError:
            self._process.join()
            code = self._process.exitcode
            self.stop()
            return ["crash"], Failure(job, "crash", f"the process ended with {code}")
        if trace:
            return ["bug"], Failure(job, "bug", trace)
        for word in outcome:
            if word.startswith("left behind"):
                return outcome, Failure(job, "left behind", word)
        return outcome, None

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        arguments = (theirs, *self._arguments)
        self._process = context.Process(target=_serve, args=arguments, daemon=True)
        self._process.start()
        theirs.close()

    def stop(self) -> None:
        """End the process and what it started."""
        if self._process is None:
            return
        try:
            os.killpg(self._process.pid, signal.SIGKILL)
        except ProcessLookupError:  # ended, or not yet the leader of a group
            self._process.kill()
        self._process.join()
        self._process = None
        if self._pipe is not None:
            self._pipe.close()


def _serve(pipe: Connection, kind: str, folder: Path, good: dict[str, Path]) -> None:
    """The worker: answers each job with (outcomes, traceback or "")."""
    os.setsid()  # so that an ffmpeg that it waits for ends with it
    limit_memory()
    dub = DubTarget()
    while True:
        try:
            job: Job = pipe.recv()
        except EOFError:
            return
        try:
            if job.kind == WEIGHTS:
                outcome = read_weights(job.path)
            elif job.kind == MEDIA:
                outcome = read_media(job.path, folder, good["sound"], good["video"])
            else:
                given = good | {name: job.path for name in good if good[name].name == job.source}
                outcome = dub(given["video"], given["sound"], given["persona"], folder)
        except Exception:
            pipe.send(([], traceback.format_exc()))
        else:
            pipe.send((outcome, ""))
