"""Decoding, device work and encoding at the same time: threads with bounded queues between them.

Order is kept and each step is still done by one thread alone, so results do not depend on timing.
Coders release the interpreter's lock while they work, and so does a wait for the device.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import TypeVar

Item = TypeVar("Item")

DEPTH = 4  # frames waiting between two steps: 4K frames of 10 bits take 25 MB each

_END = object()


class _Failure:
    def __init__(self, error: BaseException):
        self.error = error


@contextmanager
def made_ahead(items: Iterable[Item], depth: int = DEPTH) -> Iterator[Iterator[Item]]:
    """The items of an iterable that a thread of its own runs, up to `depth` ahead.

    An exception of the iterable comes out where its item would have come. When the block ends the
    thread has ended, whether or not all items were taken; a generator is closed by it. Who still
    waits for an item then, in a thread of a later step, gets no more.
    """
    ready: queue.Queue[object] = queue.Queue(maxsize=depth)
    stopped = threading.Event()

    def offer(item: object) -> bool:
        while not stopped.is_set():
            try:
                ready.put(item, timeout=0.1)
            except queue.Full:
                continue
            return True
        return False

    def make() -> None:
        running = iter(items)
        try:
            for item in running:
                if not offer(item):
                    return
            offer(_END)
        except BaseException as error:
            offer(_Failure(error))
        finally:
            close = getattr(running, "close", None)
            if close is not None:
                close()

    def taken() -> Iterator[Item]:
        while True:
            item = ready.get()
            if item is _END:
                return
            if isinstance(item, _Failure):
                raise item.error
            yield item  # type: ignore[misc]

    thread = threading.Thread(target=make, name="made-ahead", daemon=True)
    thread.start()
    try:
        yield taken()
    finally:
        stopped.set()
        thread.join()
        with suppress(queue.Empty):
            while True:
                ready.get_nowait()
        ready.put(_END)


@contextmanager
def done_behind(
    work: Callable[[Item], object], depth: int = DEPTH
) -> Iterator[Callable[[Item], None]]:
    """A function that hands items to a thread which does `work` on one after the other.

    It waits while `depth` items are waiting. An exception of `work` comes out of the next call, or
    at the end of the block; no further item is worked on. When the block ends well all is done.
    """
    waiting: queue.Queue[object] = queue.Queue(maxsize=depth)
    failures: list[BaseException] = []
    dropped = threading.Event()

    def run() -> None:
        while (item := waiting.get()) is not _END:
            if failures or dropped.is_set():
                continue  # the giver must not wait for ever
            try:
                work(item)  # type: ignore[arg-type]
            except BaseException as error:
                failures.append(error)

    def give(item: Item) -> None:
        if failures:
            raise failures[0]
        waiting.put(item)

    thread = threading.Thread(target=run, name="done-behind", daemon=True)
    thread.start()
    try:
        yield give
    except BaseException:
        dropped.set()
        raise
    finally:
        waiting.put(_END)
        thread.join()
    if failures:
        raise failures[0]
