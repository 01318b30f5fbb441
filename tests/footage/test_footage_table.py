"""Every row of the footage table is a test; long ones run with `make test-long`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from dubbing.evaluation.cases.registry import (
    Bench,
    Case,
    CaseFailed,
    NotInThisBuild,
    check,
    run_case,
)
from dubbing.evaluation.cases.table import all_cases


@pytest.fixture(scope="session")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    yield Bench(tmp_path_factory.mktemp("footage"))


def _parameters() -> list[object]:
    return [
        pytest.param(item, marks=[pytest.mark.long] if item.long else [], id=name)
        for item in all_cases()
        for name in [f"{item.topic}: {item.name}"]
    ]


@pytest.mark.parametrize("item", _parameters())
def test_footage(item: Case, bench: Bench) -> None:
    try:
        figure = item.run(bench.fresh())
    except NotInThisBuild as absence:
        pytest.skip(str(absence))
    assert figure


def test_a_row_tells_what_came_of_its_case(tmp_path: Path) -> None:
    def passes(bench: Bench) -> str:
        assert not list(bench.folder.iterdir())
        return "3 frames"

    def fails(bench: Bench) -> str:
        check(True, "fine")
        check(False, "a frame is missing")
        return "never"

    def breaks(bench: Bench) -> str:
        raise OSError("broken")

    def absent(bench: Bench) -> str:
        raise NotInThisBuild("no encoder")

    bench = Bench(tmp_path)
    rows = [run_case(Case("t", f.__name__, f), bench) for f in (passes, fails, breaks, absent)]
    assert [row.status for row in rows] == ["pass", "FAIL", "FAIL", "skip"]
    assert [row.figure for row in rows][:2] == ["3 frames", "a frame is missing"]
    assert "broken" in rows[2].figure
    with pytest.raises(CaseFailed):
        check(False, "no")
