"""What this machine has, within the limits of its container, and how many workers that allows."""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

GIB = 2**30
WORKER_GIB = 1.25  # peak of a 720p dub with its networks, 934 MiB, and a third on top
GPU_WORKER_GIB = 4.0  # CUDA's own context, the networks, references of a large face
CGROUP = Path("/sys/fs/cgroup")


@dataclass(frozen=True)
class Machine:
    """Processor cores, free memory in GiB, and memory in GiB of every GPU, of this process."""

    cores: int
    memory_gib: float
    gpus: tuple[tuple[str, float], ...]  # (what CUDA_VISIBLE_DEVICES calls it, GiB)


def this_machine() -> Machine:
    return Machine(usable_cores(), free_memory_gib(), visible_gpus())


def worker_count(machine: Machine, on_gpu: bool) -> int:
    """Workers that memory and cores allow, at least one."""
    by_memory = int(machine.memory_gib / WORKER_GIB)
    allowed = min(machine.cores, by_memory)
    if on_gpu:
        allowed = min(allowed, sum(int(gib / GPU_WORKER_GIB) for _, gib in machine.gpus))
    return max(allowed, 1)


def usable_cores() -> int:
    """Cores that this process may use, quotas of a container counted."""
    allowed = getattr(os, "sched_getaffinity", None)
    cores = len(allowed(0)) if allowed else os.cpu_count() or 1
    quota, _, period = _read(CGROUP / "cpu.max").partition(" ")
    if quota.isdecimal() and period.strip().isdecimal():
        cores = min(cores, max(int(quota) // int(period), 1))
    return cores


def free_memory_gib() -> float:
    """Memory that is free for new processes; all of it where the system does not say."""
    free = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / GIB
    for line in _read(Path("/proc/meminfo")).splitlines():
        if line.startswith("MemAvailable:"):
            free = int(line.split()[1]) * 1024 / GIB
    limit, used = _read(CGROUP / "memory.max").strip(), _read(CGROUP / "memory.current").strip()
    if limit.isdecimal() and used.isdecimal():
        free = min(free, (int(limit) - int(used)) / GIB)
    return free


def visible_gpus() -> tuple[tuple[str, float], ...]:
    """NVIDIA GPUs as the driver lists them, cut down to CUDA_VISIBLE_DEVICES. No context is
    opened on them."""
    command = ["nvidia-smi", "--query-gpu=index,uuid,memory.total", "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return ()  # no driver, no GPU
    rows = [[cell.strip() for cell in line.split(",")] for line in done.stdout.splitlines()]
    wanted = os.environ.get("CUDA_VISIBLE_DEVICES")
    names = None if wanted is None else [name.strip() for name in wanted.split(",")]
    return tuple(
        (index, float(mib) / 1024)
        for index, uuid, mib in rows
        if names is None or index in names or any(n and uuid.startswith(n) for n in names)
    )


def _read(path: Path) -> str:
    return path.read_text() if path.is_file() else ""
