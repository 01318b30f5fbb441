"""Inspection facts as tables on a terminal, and as files."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from dubbing.errors import OutputUnwritable
from dubbing.report import save_bytes

MAX_ROWS = 20


@dataclass(frozen=True)
class SavedInspection:
    """Where an inspection was saved: preview sheet (PNG) and facts (JSON)."""

    sheet: Path
    facts: Path


def save_inspection(
    facts: dict[str, Any], preview: NDArray[np.uint8], folder: Path
) -> SavedInspection:
    """Write `preview` ([H, W, 3] uint8, RGB) and `facts` into `folder`, which is made if needed.

    Raises:
        OutputUnwritable: the folder can't be made or written.
        DiskFull: no room left.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputUnwritable(f"can't be made: {error.strerror}", path=folder) from error
    saved = SavedInspection(sheet=folder / "preview.png", facts=folder / "inspection.json")
    _, png = cv2.imencode(".png", cv2.cvtColor(preview, cv2.COLOR_RGB2BGR))
    save_bytes(saved.sheet, png.tobytes())
    save_bytes(saved.facts, (json.dumps(facts, indent=2, ensure_ascii=False) + "\n").encode())
    return saved


def print_facts(facts: dict[str, Any], title: str, console: Console | None = None) -> None:
    """Print nested facts: values of one level as one table, lists of objects as a table each."""
    console = console or Console()
    plain = {k: v for k, v in facts.items() if not _is_nested(v)}
    if plain:
        console.print(_pairs(plain, title))
    for name, value in facts.items():
        if isinstance(value, dict) and value:
            console.print(_pairs(value, name.replace("_", " ")))
        elif _is_nested(value):
            console.print(_rows(value, name.replace("_", " ")))


def _is_nested(value: object) -> bool:
    if isinstance(value, list):
        return bool(value) and isinstance(value[0], dict)
    return isinstance(value, dict) and bool(value)


def _pairs(values: dict[str, Any], title: str) -> Table:
    table = Table(title=title, title_justify="left", show_header=False)
    for name, value in values.items():
        table.add_row(name.replace("_", " "), _cell(value))
    return table


def _rows(items: list[dict[str, Any]], title: str) -> Table:
    table = Table(title=title, title_justify="left")
    names = list(items[0])
    for name in names:
        table.add_column(name.replace("_", " "))
    for item in items[:MAX_ROWS]:
        table.add_row(*(_cell(item.get(name)) for name in names))
    if len(items) > MAX_ROWS:
        table.caption = f"and {len(items) - MAX_ROWS} more"
    return table


def _cell(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.3f}".rstrip("0").rstrip(".")
    if isinstance(value, list):
        return ", ".join(_cell(item) for item in value)
    return "-" if value is None else str(value)
