"""Progress as data: the library reports, the caller decides what to show."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypedDict


class ProgressEvent(TypedDict):
    """One progress report.

    Keys:
        stage: name of the stage: "analyse" (decode and track), "fit" (face model, references),
            "geometry" (speech to motion), "render" (draw and encode) or "mux". The first two come
            once more for a clip that lends its style, and not at all for a known persona.
        done: units finished in this stage (frames, or 0/1 for stages without frames).
        total: units in this stage where known, else None.
        fps: units per second in this stage so far, 0.0 before the first.
        eta_s: seconds left in this stage where known, else None.
    """

    stage: str
    done: int
    total: int | None
    fps: float
    eta_s: float | None


ProgressCallback = Callable[[ProgressEvent], None]


@dataclass
class StageProgress:
    """Counts one stage and calls `callback` at most every `interval_s` seconds and at the end.

    An exception raised by the callback stops the job and reaches the caller: that is the way to
    cancel.
    """

    callback: ProgressCallback | None
    stage: str
    total: int | None = None
    interval_s: float = 0.1
    before: int = 0  # units that an earlier run did: they count as done, but not for the speed

    def __post_init__(self) -> None:
        self._start = time.perf_counter()
        self._last = -1e9
        self.done = self.before
        self._report(force=True)

    def advance(self, units: int = 1) -> None:
        self.done += units
        self._report()

    def finish(self) -> None:
        self._report(force=True)

    def _report(self, force: bool = False) -> None:
        if self.callback is None:
            return
        now = time.perf_counter()
        if not force and now - self._last < self.interval_s:
            return
        self._last = now
        spent = now - self._start
        fps = (self.done - self.before) / spent if spent > 0 else 0.0
        eta = (self.total - self.done) / fps if self.total is not None and fps > 0 else None
        self.callback(
            ProgressEvent(stage=self.stage, done=self.done, total=self.total, fps=fps, eta_s=eta)
        )
