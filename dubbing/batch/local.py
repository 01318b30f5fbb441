"""Worker processes on this machine, each pinned to a device and with the networks loaded once."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from types import TracebackType
from typing import TYPE_CHECKING, Self

from dubbing.batch.tasks import Result, Task, WorkerSetup, describe
from dubbing.errors import WorkerDied

if TYPE_CHECKING:
    from dubbing.batch.worker import Worker

_worker: Worker | None = None  # of a worker's own process


@dataclass
class _Slot:
    """A place for one worker process; a worker that dies is followed by another."""

    setup: WorkerSetup
    gpu: str | None
    pool: ProcessPoolExecutor = field(init=False)
    pid: int = 0

    def start(self) -> Future[int]:
        context = multiprocessing.get_context("spawn")
        self.pool = ProcessPoolExecutor(1, context, initializer=_prepare, initargs=(self.gpu,))
        return self.pool.submit(_load, self.setup)

    def replace(self) -> None:
        """Start another worker in place of one that died.

        Raises:
            WorkerDied: it ended while it loaded the networks.
        """
        self.pool.shutdown(wait=False)
        self.pid = _started(self.start())

    def submit(self, task: Task) -> Future[Result]:
        try:
            return self.pool.submit(_run, task)
        except BrokenProcessPool:  # it died while it had nothing to do
            self.replace()
            return self.pool.submit(_run, task)

    def stop(self) -> None:
        """End the worker at once: what it holds is in the journal, or will be done again."""
        if self.pid:
            with contextlib.suppress(ProcessLookupError):  # it is gone already
                os.kill(self.pid, signal.SIGKILL)
        self.pool.shutdown(wait=True, cancel_futures=True)


class LocalEngine:
    """See `Engine`.

    Args:
        setup: of every worker.
        workers: how many.
        gpus: what CUDA_VISIBLE_DEVICES calls the GPUs; workers are dealt out over them in turn.
    """

    def __init__(self, setup: WorkerSetup, workers: int, gpus: Sequence[str] = ()):
        self._slots = [_Slot(setup, gpus[k % len(gpus)] if gpus else None) for k in range(workers)]

    @property
    def workers(self) -> int:
        return len(self._slots)

    def __enter__(self) -> Self:
        """Raises:
        DubbingError: a worker can't load the networks.
        WorkerDied: a worker ended while starting.
        """
        starting = [slot.start() for slot in self._slots]
        try:
            for slot, future in zip(self._slots, starting, strict=True):
                slot.pid = _started(future)
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stop()

    def run(self, tasks: Sequence[Task]) -> Iterator[Result]:
        """See `Engine`."""
        waiting = deque(tasks)
        idle = list(self._slots)
        running: dict[Future[Result], tuple[_Slot, Task]] = {}
        while waiting or running:
            while waiting and idle:
                slot, task = idle.pop(0), waiting.popleft()
                running[slot.submit(task)] = slot, task
            done, _ = wait(running, return_when=FIRST_COMPLETED)
            for future in done:
                slot, task = running.pop(future)
                try:
                    result = future.result()
                except BrokenProcessPool:
                    result = _death(task, slot.pid)
                    slot.replace()
                idle.append(slot)
                yield result

    def _stop(self) -> None:
        for slot in self._slots:
            slot.stop()


def _started(future: Future[int]) -> int:
    try:
        return future.result()
    except BrokenProcessPool as error:
        raise WorkerDied(
            "a worker ended while it loaded the networks", hint="try fewer --workers"
        ) from error


def _death(task: Task, pid: int) -> Result:
    error = WorkerDied(
        f"worker {pid} was killed or crashed",
        path=task.job["video"],
        hint="if memory ran out, use fewer --workers",
    )
    return Result(task.key, str(pid), 0.0, error=describe(error))


def _prepare(gpu: str | None) -> None:
    """First thing in a worker's process: its device, and an end when the batch's process ends."""
    if gpu is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = gpu
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _load(setup: WorkerSetup) -> int:
    global _worker
    from dubbing.batch.worker import Worker  # imports the networks: not in the batch's process

    _worker = Worker(setup)
    return os.getpid()


def _run(task: Task) -> Result:
    if _worker is None:
        raise RuntimeError("_load() comes first")
    return _worker.run(task)
