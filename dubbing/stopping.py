"""Ctrl-C and SIGTERM turned into one orderly end of a command."""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType
from typing import Any, Self

from dubbing.errors import Cancelled, Terminated
from dubbing.progress import ProgressCallback, ProgressEvent


class StopSignals:
    """While the block runs SIGINT and SIGTERM raise KeyboardInterrupt in the main thread.

    A library that is being imported may swallow that exception or make another of it. So the
    signal is remembered: `watched` progress callbacks raise again, and whatever exception leaves
    the block then, it leaves as `Cancelled` or `Terminated`.
    """

    def __init__(self, left: str = "no output was written") -> None:
        """`left` says what remains after such an end."""
        self._left = left
        self.asked: int | None = None
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Self:
        self.asked = None
        if threading.current_thread() is threading.main_thread():  # others can't handle signals
            for number in (signal.SIGINT, signal.SIGTERM):
                if signal.getsignal(number) is not signal.SIG_IGN:
                    self._before[number] = signal.signal(number, self._stop)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        if error is None or (self.asked is None and not isinstance(error, KeyboardInterrupt)):
            return
        stopped: Cancelled
        if self.asked == signal.SIGTERM:
            stopped = Terminated(f"asked to end; {self._left}")
        else:
            stopped = Cancelled(f"stopped from the keyboard; {self._left}")
        for note in getattr(error, "__notes__", ()):
            stopped.add_note(note)
        raise stopped from error

    def watched(self, progress: ProgressCallback | None) -> ProgressCallback:
        """`progress`, and the end of the job where a signal has come before."""

        def callback(event: ProgressEvent) -> None:
            if self.asked is not None:
                raise KeyboardInterrupt
            if progress is not None:
                progress(event)

        return callback

    def _stop(self, number: int, frame: FrameType | None) -> None:
        self.asked = number
        raise KeyboardInterrupt
