"""The drawn tables hold every figure of every system, and no picture."""

from __future__ import annotations

import json
import runpy
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "scripts" / "evaluation_figures.py"


def estimate(mean: float) -> dict[str, float]:
    return {"mean": mean, "low": mean - 0.1, "high": mean + 0.1, "cases": 3}


@pytest.fixture
def report(tmp_path: Path) -> Path:
    definitions = [
        {"name": "opening", "label": "opening r", "better": "higher"},
        {"name": "unknown", "label": "never taken", "better": "lower"},
    ]
    systems = {"ours": {"opening": estimate(0.7)}, "truth": {"opening": estimate(1.0)}}
    curve = {"times": [0.0, 0.5, 1.0], "opening": [0.0, 0.2, 0.1]}
    rows = [
        {"case": f"self-dub-{k}", "protocol": "self-dub", "system": name, "opening": k / 3,
         "curve": curve, "true curve": curve}
        for k in range(3) for name in systems
    ]  # fmt: skip
    folder = tmp_path / "report"
    folder.mkdir()
    tables = [{"protocol": "self-dub", "cases": 3, "systems": systems}]
    facts = {"definitions": definitions, "tables": tables, "rows": rows}
    (folder / "evaluation.json").write_text(json.dumps(facts))
    (folder / "evaluation.md").write_text("the tables")
    return folder


def test_figures_of_a_report(report: Path, tmp_path: Path) -> None:
    main = runpy.run_path(str(SCRIPT))["main"]
    for name in ("one", "two"):
        assert main([str(report), "--output", str(tmp_path / name), "--curves", "2"]) == 0
    table = (tmp_path / "one" / "self-dub.svg").read_text()
    for text in ("self-dub: 3 cases", "opening r (higher)", "ours", "truth"):
        assert text in table
    assert "never taken" not in table
    assert "<image" not in table  # nothing but lines and words
    curves = (tmp_path / "one" / "curves.svg").read_text()
    assert "self-dub-2: correlation 0.67, place 1 of 3" in curves
    assert "self-dub-0: correlation 0.00, place 3 of 3" in curves
    assert "self-dub-1" not in curves
    assert (tmp_path / "one" / "tables.md").read_text() == "the tables"
    for file in (tmp_path / "one").iterdir():  # the same report gives the same files
        assert file.read_bytes() == (tmp_path / "two" / file.name).read_bytes()
