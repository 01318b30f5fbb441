"""Steps beside each other: order, bounds, and errors that arrive where they belong."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest

from dubbing.overlap import done_behind, made_ahead


class Source:
    """Counts how far it was run, and whether it was closed."""

    def __init__(self, count: int, fail_at: int = -1):
        self.count, self.fail_at = count, fail_at
        self.made = 0
        self.closed = False

    def __iter__(self) -> Iterator[int]:
        try:
            for number in range(self.count):
                if number == self.fail_at:
                    raise ValueError("broken")
                self.made += 1
                yield number
        finally:
            self.closed = True


def settled(source: Source) -> int:
    """How far it runs when nothing is taken any more."""
    before = -1
    while source.made != before:
        before = source.made
        time.sleep(0.1)
    return before


def test_all_items_in_order() -> None:
    source = Source(100)
    with made_ahead(source, depth=3) as items:
        assert list(items) == list(range(100))
    assert source.closed


def test_runs_ahead_but_not_far() -> None:
    source = Source(100)
    with made_ahead(source, depth=3) as items:
        assert next(items) == 0
        assert settled(source) == 5  # one taken, three waiting, one in hand
    assert source.closed
    assert source.made == 5


def test_a_later_step_that_waits_is_let_go() -> None:
    """The block ends while a thread of another step waits for an item that comes no more."""
    go = threading.Event()
    taken: list[int] = []

    def slowly() -> Iterator[int]:
        yield 1
        go.wait()
        yield 2

    with made_ahead(slowly()) as items:
        waiting = threading.Thread(target=lambda: taken.extend(items), daemon=True)
        waiting.start()
        threading.Timer(0.3, go.set).start()  # by then the block has ended
    waiting.join(5)
    assert not waiting.is_alive()
    assert taken == [1]


def test_error_comes_in_its_place() -> None:
    source = Source(10, fail_at=4)
    taken = []
    with pytest.raises(ValueError, match="broken"), made_ahead(source) as items:
        for item in items:
            taken.append(item)
    assert taken == [0, 1, 2, 3]


def test_leaving_by_an_exception_ends_the_thread() -> None:
    before = threading.active_count()
    source = Source(10**9)
    with pytest.raises(KeyError), made_ahead(source) as items:
        next(items)
        raise KeyError
    assert source.closed
    assert threading.active_count() == before


def test_work_is_done_in_order_before_the_block_ends() -> None:
    done: list[int] = []
    with done_behind(done.append, depth=2) as give:
        for number in range(50):
            give(number)
    assert done == list(range(50))


def test_giver_waits_for_a_slow_worker() -> None:
    go = threading.Event()
    given: list[int] = []

    def work(number: int) -> None:
        go.wait()

    def give_all() -> None:
        with done_behind(work, depth=2) as give:
            for number in range(10):
                give(number)
                given.append(number)

    giver = threading.Thread(target=give_all)
    giver.start()
    time.sleep(0.3)
    assert len(given) == 3  # one in hand, two waiting
    go.set()
    giver.join()
    assert len(given) == 10


def test_error_of_the_work_reaches_the_giver_and_stops_it() -> None:
    done: list[int] = []

    def work(number: int) -> None:
        if number == 3:
            raise ValueError("no room")
        done.append(number)

    with pytest.raises(ValueError, match="no room"), done_behind(work, depth=1) as give:
        for number in range(10**6):
            give(number)
    assert done == [0, 1, 2]


def test_error_of_the_last_work_is_not_lost() -> None:
    def work(number: int) -> None:
        raise ValueError("no room")

    with pytest.raises(ValueError, match="no room"), done_behind(work) as give:
        give(1)


def test_work_that_waits_is_dropped_when_the_giver_fails() -> None:
    go = threading.Event()
    done: list[int] = []

    def work(number: int) -> None:
        go.wait(5)
        done.append(number)

    with pytest.raises(KeyError), done_behind(work, depth=4) as give:
        for number in range(3):
            give(number)
        time.sleep(0.1)
        threading.Timer(0.2, go.set).start()
        raise KeyError
    assert done == [0]
