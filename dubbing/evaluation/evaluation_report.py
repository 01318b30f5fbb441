"""The files of an evaluation: JSON, CSV, text tables and the page."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dubbing.evaluation.evaluate import Evaluation
from dubbing.evaluation.evaluation_tables import ProtocolTable, facts, tables_of
from dubbing.evaluation.intervals import Estimate
from dubbing.evaluation.metrics import METRICS, of_protocol
from dubbing.evaluation.page import save_page
from dubbing.evaluation.tables import markdown, save_csv, save_json
from dubbing.report import save_bytes

Row = dict[str, Any]
PLACES = ("case", "protocol", "system", "speaker", "seconds")


def save_report(
    evaluation: Evaluation, rows: Sequence[Row], judged: Sequence[str], baselines: Sequence[str]
) -> str:
    """Write evaluation.json, evaluation.csv, summary.csv, evaluation.md and index.html.

    Args:
        rows: of `Evaluation.run`; judged, baselines: names of the systems.

    Returns:
        the tables as text.

    Raises:
        OutputUnwritable, DiskFull: see `save_bytes`.
    """
    folder = evaluation.folder
    tables = tables_of(evaluation, rows)
    values = facts(evaluation, rows, tables)
    save_json(folder / "evaluation.json", values)
    columns = [*PLACES, *(m.name for m in METRICS), "error"]
    save_csv(folder / "evaluation.csv", columns, rows)
    save_csv(
        folder / "summary.csv",
        ["protocol", "system", "figure", "mean", "low", "high", "cases"],
        [_line(t, s, f, e) for t in tables for s, c in t.systems.items() for f, e in c.items()],
    )
    text = "\n\n".join(table_text(table) for table in tables)
    notes = "\n".join(f"not measured: {line}" for line in evaluation.judges.missing)
    judges = "\n".join(f"{name}: {what}" for name, what in evaluation.judges.versions.items())
    text = f"{text}\n\n{judges}\n{notes}\n"
    save_bytes(folder / "evaluation.md", text.encode())
    save_page(evaluation, folder / "index.html", values, judged, baselines)
    return text


def table_text(table: ProtocolTable) -> str:
    """One protocol as a text table: a line per figure, a column per system."""
    lines: list[Row] = []
    for metric in of_protocol(table.protocol):
        known = {name: c[metric.name] for name, c in table.systems.items() if metric.name in c}
        if known:
            line: Row = {"figure": metric.label}
            line |= {name: _cell(estimate) for name, estimate in known.items()}
            lines.append(line | {"better": metric.better})
    columns = ["figure", *table.systems, "better"]
    return f"{table.protocol}: {table.cases} cases\n\n{markdown(columns, lines)}"


def _cell(estimate: Estimate) -> str:
    mean = _short(estimate.mean)
    if estimate.low == estimate.high:
        return mean
    return f"{mean} ({_short(estimate.low)} to {_short(estimate.high)})"


def _short(value: float) -> str:
    size = abs(value)
    if size >= 100:
        return f"{value:.0f}"
    return f"{value:.1f}" if size >= 10 else f"{value:.2f}" if size >= 0.1 else f"{value:.2g}"


def _line(table: ProtocolTable, system: str, figure: str, estimate: Estimate) -> Row:
    return {
        "protocol": table.protocol, "system": system, "figure": figure, "mean": estimate.mean,
        "low": estimate.low, "high": estimate.high, "cases": estimate.cases,
    }  # fmt: skip


def report_files(folder: Path) -> list[Path]:
    """What `save_report` writes."""
    names = ("evaluation.json", "evaluation.csv", "summary.csv", "evaluation.md", "index.html")
    return [folder / name for name in names]
