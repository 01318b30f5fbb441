"""Workers on a Ray cluster: a pool of actors behind a streaming `ray.data` pipeline."""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import replace
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from dubbing.batch.options import BatchOptions
from dubbing.batch.resources import this_machine, worker_count
from dubbing.batch.tasks import Result, Task, WorkerSetup, describe
from dubbing.errors import OptionInvalid, WorkerDied

try:
    import ray
    import ray.data
    import ray.exceptions
    from ray.data import ActorPoolStrategy, DataContext
except ImportError as missing:
    raise OptionInvalid(
        "Ray is not installed", hint="pip install 'persona-dub[ray]', or use --engine local"
    ) from missing

FREE_CPUS = 1  # an actor pool that holds every CPU starves the pipeline's own tasks


class RayActor:
    """One worker in a Ray actor; rows of tasks in, rows of results out."""

    def __init__(self, setup: WorkerSetup):
        from dubbing.batch.worker import Worker

        self._worker = Worker(setup)

    def __call__(self, rows: dict[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        done = [self._worker.run(Task.from_json(str(text))).to_json() for text in rows["task"]]
        return {"result": np.array(done, dtype=object)}


class RayEngine:
    """See `Engine`. Nodes of a cluster need this package installed, and see the files by the names
    that the jobs give them (a shared folder, or URLs).

    Args:
        setup: of every worker; `threads` 0 is one.
        options: address, workers, gpus_per_worker.
        tasks: how many tasks there are at most; more workers than that are not started.
    """

    def __init__(self, setup: WorkerSetup, options: BatchOptions, tasks: int):
        self._on_gpu = options.gpus_per_worker > 0
        if setup.device == "cuda" and not self._on_gpu:
            raise OptionInvalid("--engine ray needs --gpus-per-worker with --device cuda")
        if setup.device == "cpu" and self._on_gpu:
            raise OptionInvalid("--gpus-per-worker contradicts --device cpu")
        self._setup = replace(
            setup, threads=setup.threads or 1, device="cuda" if self._on_gpu else "cpu"
        )
        self._options, self._tasks = options, tasks
        self._workers = options.workers

    @property
    def workers(self) -> int:
        return self._workers

    def __enter__(self) -> Self:
        """Raises:
        OptionInvalid: there is no cluster at the address, or it has no place for a worker.
        WorkerDied: Ray does not start on this machine.
        """
        address = self._options.address
        os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")  # deaths of workers are results
        logging.getLogger("ray.data").setLevel(logging.ERROR)
        if address is None:
            wanted = self._workers or worker_count(this_machine(), self._on_gpu)
            self._workers = min(wanted, self._tasks)
            self._start_here()
        else:
            try:
                ray.init(address=address, logging_level=logging.ERROR, log_to_driver=False)
            except ConnectionError as error:
                raise OptionInvalid(f"no Ray cluster at {address!r}: {error}") from error
            fitting = self._fitting(_resources())
            self._workers = min(self._workers or fitting, fitting, self._tasks)
        try:
            self._check_place()
        except BaseException:
            ray.shutdown()
            raise
        context = DataContext.get_current()
        context.enable_progress_bars = False
        context.max_errored_blocks = -1  # a dead actor costs its own task only
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        ray.shutdown()

    def run(self, tasks: Sequence[Task]) -> Iterator[Result]:
        """See `Engine`. One block per task, so that each result comes as soon as it is there and
        a worker that dies takes no other result with it."""
        waiting = {task.key: task for task in tasks}
        rows = ray.data.from_items(
            [{"task": task.to_json()} for task in tasks], override_num_blocks=len(tasks)
        )
        pool = ActorPoolStrategy(
            size=min(self._workers, len(tasks)), max_tasks_in_flight_per_actor=1
        )
        with warnings.catch_warnings():
            # the only way to say that a task which kills its actor is not tried for ever
            warnings.filterwarnings("ignore", message=".*ray_remote_args")
            results = rows.map_batches(
                RayActor,
                fn_constructor_args=(self._setup,),
                batch_size=1,
                compute=pool,
                num_cpus=self._setup.threads,
                num_gpus=self._options.gpus_per_worker or None,
                max_task_retries=0,
            )
        for row in results.iter_rows():
            result = Result.from_json(row["result"])
            del waiting[result.key]
            yield result
        for task in waiting.values():
            error = WorkerDied(
                "its worker was killed or crashed",
                path=task.job["video"],
                hint="if memory ran out, use fewer --workers",
            )
            yield Result(task.key, "", 0.0, error=describe(error))

    def _start_here(self) -> None:
        try:
            ray.init(
                address="local",  # not the cluster that RAY_ADDRESS may name
                num_cpus=self._workers * self._setup.threads + FREE_CPUS,
                include_dashboard=False, logging_level=logging.ERROR, log_to_driver=False,
            )  # fmt: skip
        except Exception as error:  # Ray raises this very class when a node takes too long
            ray.shutdown()
            raise WorkerDied(
                f"Ray did not start on this machine: {error}", hint="use --engine local"
            ) from error

    def _fitting(self, resources: dict[str, float]) -> int:
        """Workers that the cluster's processors and GPUs allow."""
        places = (resources.get("CPU", 0.0) - FREE_CPUS) / self._setup.threads
        if self._on_gpu:
            places = min(places, resources.get("GPU", 0.0) / self._options.gpus_per_worker)
        return int(places)

    def _check_place(self) -> None:
        if self._fitting(_resources()) < max(self._workers, 1):
            raise OptionInvalid(
                f"the Ray cluster has no place for {max(self._workers, 1)} workers of "
                f"{self._setup.threads} CPUs and {self._options.gpus_per_worker} GPUs, "
                f"with {FREE_CPUS} CPU free: {_resources()}"
            )


def _resources() -> dict[str, float]:
    """What the whole cluster has, by name of the resource."""
    ask: Any = ray.cluster_resources
    return dict(ask())
