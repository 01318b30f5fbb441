"""Figures as text tables, as JSON and as CSV."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dubbing.report import save_bytes


def markdown(columns: Sequence[str], rows: Sequence[Mapping[str, object]]) -> str:
    """A table whose columns line up in plain text too; numbers stand on the right."""
    cells = [[cell(row.get(column)) for column in columns] for row in rows]
    right = [
        any(isinstance(row.get(c), int | float) for row in rows)
        and not any(isinstance(row.get(c), str | bool) for row in rows)
        for c in columns
    ]
    widths = [
        max(3, *(len(line[k]) for line in [list(columns), *cells])) for k in range(len(right))
    ]
    rule = ["-" * (w - r) + ":" * r for w, r in zip(widths, right, strict=True)]
    return "\n".join(_line(line, widths, right) for line in [list(columns), rule, *cells])


def _line(cells: Sequence[str], widths: Sequence[int], right: Sequence[bool]) -> str:
    padded = (
        text.rjust(width) if to_right else text.ljust(width)
        for text, width, to_right in zip(cells, widths, right, strict=True)
    )
    return f"| {' | '.join(padded)} |"


def cell(value: object) -> str:
    """A value as it stands in a table."""
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "ok" if value else "FAILED"
    if isinstance(value, float):
        return f"{value:.4g}" if abs(value) >= 1000 or abs(value) < 0.01 else f"{value:.3f}"
    return str(value).replace("|", "/")


def save_json(path: str | Path, values: Any) -> None:
    """Write JSON by atomic rename.

    Raises:
        OutputUnwritable, DiskFull: see `save_bytes`.
        ValueError: a value is not finite.
    """
    text = json.dumps(values, indent=2, ensure_ascii=False, allow_nan=False)
    save_bytes(path, (text + "\n").encode())


def save_csv(
    path: str | Path, columns: Sequence[str], rows: Sequence[Mapping[str, object]]
) -> None:
    """Write the columns of `rows` as CSV by atomic rename.

    Raises:
        OutputUnwritable, DiskFull: see `save_bytes`.
    """
    out = io.StringIO()
    writer = csv.DictWriter(out, columns, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    save_bytes(path, out.getvalue().encode())
