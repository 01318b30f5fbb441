"""Where the time goes: timers around the engine's own functions, each second counted once."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch


class StageTimer:
    """Seconds per stage. Blocks may nest: the inner stage's time is not the outer one's.

    Where CUDA is used, the device is waited for at every border, so that work is counted in the
    stage that asked for it.

    Attributes:
        seconds: {stage: seconds so far}.
    """

    def __init__(self, device: torch.device | str = "cpu"):
        self.device = torch.device(device)
        self.seconds: dict[str, float] = {}
        self._open: list[str] = []
        self._since = 0.0

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Count a block as `name`."""
        self._switch()
        self._open.append(name)
        self.seconds.setdefault(name, 0.0)
        try:
            yield
        finally:
            self._switch()
            self._open.pop()

    def reset(self) -> None:
        """Forget what was counted (after a warm-up)."""
        self.seconds = dict.fromkeys(self.seconds, 0.0)

    def wrapped(self, function: Callable[..., Any], name: str) -> Callable[..., Any]:
        """`function`, whose calls count as `name`."""

        @functools.wraps(function)
        def timed(*positional: Any, **values: Any) -> Any:
            with self.stage(name):
                return function(*positional, **values)

        return timed

    @contextmanager
    def around(self, *places: tuple[object, str, str]) -> Iterator[None]:
        """Time functions where they are: (module or class, attribute, stage) each, until the
        block ends."""
        kept = [(owner, name, getattr(owner, name)) for owner, name, _ in places]
        for (owner, name, function), (_, _, stage) in zip(kept, places, strict=True):
            setattr(owner, name, self.wrapped(function, stage))
        try:
            yield
        finally:
            for owner, name, function in kept:
                setattr(owner, name, function)

    def _switch(self) -> None:
        """Give the time since the last border to the innermost open stage."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        now = time.perf_counter()
        if self._open:
            self.seconds[self._open[-1]] += now - self._since
        self._since = now
