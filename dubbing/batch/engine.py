"""What every engine offers, and how many workers fit."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from types import TracebackType
from typing import Protocol, Self

from dubbing.batch.tasks import Result, Task


class Engine(Protocol):
    """Runs tasks on workers. A context manager: workers start on entering and end on leaving."""

    @property
    def workers(self) -> int: ...

    def run(self, tasks: Sequence[Task]) -> Iterator[Result]:
        """One result per task, as they finish. A task whose worker died has the error
        `WorkerDied`; the worker is replaced."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...
