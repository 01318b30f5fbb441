"""How busy the NVIDIA cards are while a block runs, as their driver tells it."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import IO

EVERY_MS = 250
QUERY = "utilization.gpu,utilization.encoder,utilization.decoder,memory.used"


@dataclass
class GpuUse:
    """Means over the block and over all cards: per cent of the time in which kernels, the encoder
    and the decoder ran; `memory_mib` is the most of one card. All None before the block ends, and
    where there is no card.
    """

    kernels: float | None = None
    encoder: float | None = None
    decoder: float | None = None
    memory_mib: float | None = None
    samples: int = field(default=0, repr=False)

    def take(self, lines: list[str]) -> None:
        """Take in the driver's rows of comma-separated figures; "[N/A]" counts as nothing."""
        columns: list[list[float]] = [[], [], [], []]
        for line in lines:
            cells = [cell.strip() for cell in line.split(",")]
            if len(cells) != len(columns):
                continue  # the last row may be cut off
            self.samples += 1
            for column, cell in zip(columns, cells, strict=True):
                if cell.replace(".", "", 1).isdecimal():
                    column.append(float(cell))
        means = [round(sum(c) / len(c), 1) if c else None for c in columns[:3]]
        self.kernels, self.encoder, self.decoder = means
        self.memory_mib = max(columns[3], default=None)


@contextmanager
def gpu_use() -> Iterator[GpuUse]:
    """Watch the cards while the block runs; nothing is watched where there is no driver."""
    use = GpuUse()
    command = [
        "nvidia-smi", f"--query-gpu={QUERY}", "--format=csv,noheader,nounits", f"-lms={EVERY_MS}"
    ]  # fmt: skip
    try:
        watcher = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
    except OSError:
        yield use
        return
    try:
        yield use
    finally:
        watcher.terminate()
        told: IO[str] | None = watcher.stdout
        use.take(told.read().splitlines() if told else [])
        watcher.wait()
