"""From options to an engine."""

from __future__ import annotations

from dataclasses import replace

from dubbing.batch.engine import Engine
from dubbing.batch.local import LocalEngine
from dubbing.batch.options import BatchOptions
from dubbing.batch.resources import this_machine, worker_count
from dubbing.batch.tasks import WorkerSetup
from dubbing.errors import OptionInvalid
from dubbing.options import check_device_name


def choose_engine(setup: WorkerSetup, options: BatchOptions, tasks: int) -> Engine:
    """The engine of the options with as many workers as they say or as fit, at most one per task.

    Raises:
        OptionInvalid: Ray is asked for and not installed, a GPU and there is none.
    """
    check_device_name(setup.device)
    engine: Engine
    if options.engine == "ray":
        from dubbing.batch.ray_engine import RayEngine

        engine = RayEngine(setup, options, tasks)
        return engine
    if options.address is not None or options.gpus_per_worker:
        raise OptionInvalid("--address and --gpus-per-worker belong to --engine ray")
    machine = this_machine()
    on_gpu = setup.device == "cuda" or (setup.device == "auto" and bool(machine.gpus))
    if on_gpu and not machine.gpus:
        raise OptionInvalid("no CUDA device is usable here", hint="use --device cpu")
    workers = min(options.workers or worker_count(machine, on_gpu), tasks)
    threads = setup.threads or max(machine.cores // workers, 1)
    placed = replace(setup, threads=threads, device="cuda" if on_gpu else "cpu")
    return LocalEngine(placed, workers, [name for name, _ in machine.gpus] if on_gpu else [])
