"""A short fuzz run; `scripts/fuzz.py` does thousands."""

from __future__ import annotations

from pathlib import Path

import pytest

from dubbing.evaluation.fuzz.mutations import MUTATIONS, mutated
from dubbing.evaluation.fuzz.runner import DUBS, MEDIA, WEIGHTS, Job, _Worker, run_fuzz


@pytest.mark.parametrize("kind", [MEDIA, WEIGHTS])
def test_damaged_files_do_no_harm(kind: str, tmp_path: Path) -> None:
    result = run_fuzz(kind, 32, tmp_path, seed=100)
    assert result.cases == 32
    assert [str(failure) for failure in result.failures] == []
    assert result.outcomes["read"] and sum(result.outcomes.values()) > result.outcomes["read"]


@pytest.mark.long
def test_damaged_files_do_no_harm_in_whole_dubs(tmp_path: Path) -> None:
    result = run_fuzz(DUBS, 30, tmp_path)
    assert [str(failure) for failure in result.failures] == []


def test_the_same_number_makes_the_same_damage() -> None:
    data = bytes(range(256)) * 40
    made = [mutated(data, number) for number in range(60)]
    assert made == [mutated(data, number) for number in range(60)]
    assert len({content for content, _ in made}) > 55
    names = {name for _, damage in made for name in damage.split("+")}
    assert names == {damage.__name__ for damage in MUTATIONS}


@pytest.mark.parametrize("size", [0, 1, 2, 7])
def test_tiny_files_are_damaged_too(size: int) -> None:
    for number in range(50):
        mutated(bytes(size), number)


class _Killer(Job):
    """A job that ends the worker when it looks at its path."""

    def __getattribute__(self, name: str) -> object:
        if name == "path":
            import os
            import signal

            os.kill(os.getpid(), signal.SIGSEGV)
        return super().__getattribute__(name)


class _Breaker(Job):
    def __getattribute__(self, name: str) -> object:
        if name == "path":
            raise IndexError("a bug")
        return super().__getattribute__(name)


@pytest.mark.parametrize(("kind", "problem"), [(_Killer, "crash"), (_Breaker, "bug")])
def test_a_worker_that_dies_or_breaks_is_noticed(
    kind: type[Job], problem: str, tmp_path: Path
) -> None:
    worker = _Worker(WEIGHTS, tmp_path, {})
    try:
        _, failure = worker.run(kind(WEIGHTS, 0, "x", "none", tmp_path / "x"))
        assert failure is not None and failure.problem == problem
        (tmp_path / "y.persona").write_bytes(b"no persona")
        outcome, failure = worker.run(Job(WEIGHTS, 1, "y", "none", tmp_path / "y.persona"))
        assert outcome == ["PersonaInvalid"] and failure is None
    finally:
        worker.stop()


def test_a_worker_that_hangs_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dubbing.evaluation.fuzz.runner.START_LIMIT_S", 0.5)
    worker = _Worker(WEIGHTS, tmp_path, {})
    _, failure = worker.run(_Sleeper(WEIGHTS, 0, "x", "none", tmp_path / "x"))
    assert failure is not None and failure.problem == "hang"
    assert worker._process is None


class _Sleeper(Job):
    def __getattribute__(self, name: str) -> object:
        if name == "path":
            import time

            time.sleep(30)
        return super().__getattribute__(name)
