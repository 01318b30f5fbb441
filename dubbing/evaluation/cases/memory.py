"""Memory of programs that this process runs."""

from __future__ import annotations

import threading
from contextlib import suppress
from pathlib import Path

STEP_S = 0.005


class ProgramMemory:
    """Largest resident memory of a program that this process starts inside the block; Linux only.

    Looked at every 5 ms: the kernel remembers the peak, so only the last moments can be missed.

    Attributes:
        peak_mib: 0.0 where no program was seen.
    """

    def __init__(self) -> None:
        self.peak_mib = 0.0
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> ProgramMemory:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._ended.set()
        self._thread.join()

    def _watch(self) -> None:
        tasks = Path("/proc/self/task")
        while tasks.is_dir() and not self._ended.wait(STEP_S):
            for task in tasks.iterdir():
                with suppress(OSError):  # threads and programs end while one looks
                    for child in (task / "children").read_text().split():
                        self._look(Path("/proc") / child)

    def _look(self, process: Path) -> None:
        if process.joinpath("exe").resolve() == Path("/proc/self/exe").resolve():
            return  # still a copy of this process
        for line in process.joinpath("status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                self.peak_mib = max(self.peak_mib, int(line.split()[1]) / 1024)
