"""Stage timers count each second once; tables and files hold what was measured."""

from __future__ import annotations

import json
import time
from pathlib import Path

import numpy as np
import pytest

from dubbing.evaluation.tables import cell, markdown, save_csv, save_json
from dubbing.evaluation.timing import StageTimer


class Worker:
    def inner(self) -> str:
        time.sleep(0.05)
        return "done"

    def outer(self) -> str:
        time.sleep(0.02)
        return self.inner()


@pytest.fixture
def exact_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only sleeping takes time."""
    now = [100.0]
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])
    monkeypatch.setattr(time, "sleep", lambda seconds: now.append(now.pop() + seconds))


def test_an_inner_stage_is_not_counted_twice(exact_clock: None) -> None:
    timer = StageTimer()
    original = Worker.inner
    with timer.around((Worker, "inner", "in"), (Worker, "outer", "out")):
        assert Worker().outer() == "done"
    assert Worker.inner is original
    assert timer.seconds["in"] == pytest.approx(0.05)
    assert timer.seconds["out"] == pytest.approx(0.02)
    Worker().outer()
    timer.reset()
    assert timer.seconds == {"in": 0.0, "out": 0.0}


def test_an_error_inside_a_stage_ends_it(exact_clock: None) -> None:
    timer = StageTimer()
    with pytest.raises(ValueError, match="no"), timer.stage("a"):
        raise ValueError("no")
    with timer.stage("b"):
        time.sleep(0.02)
    assert timer.seconds["a"] == 0
    assert timer.seconds["b"] == pytest.approx(0.02)


def test_columns_of_a_table_line_up() -> None:
    text = markdown(["clip", "ok", "dB"], [{"clip": "a|b", "ok": False, "dB": 42.0}, {"dB": 7}])
    lines = text.splitlines()
    assert len({len(line) for line in lines}) == 1
    assert lines[1].endswith(":|".replace("|", " |"))
    assert "FAILED" in lines[2]
    assert [cell(v) for v in (None, True, 0.12345, 1234.5)] == ["-", "ok", "0.123", "1234"]


def test_figures_are_saved_and_must_be_finite(tmp_path: Path) -> None:
    save_json(tmp_path / "a.json", {"x": 1.5})
    assert json.loads((tmp_path / "a.json").read_text()) == {"x": 1.5}
    with pytest.raises(ValueError, match="JSON"):
        save_json(tmp_path / "b.json", {"x": float(np.nan)})
    assert not (tmp_path / "b.json").exists()
    save_csv(tmp_path / "a.csv", ["x", "y"], [{"x": 1, "y": "a", "z": 3}])
    assert (tmp_path / "a.csv").read_text() == "x,y\n1,a\n"
