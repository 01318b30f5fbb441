"""Draws the tables of an evaluation, and some of its lip curves, without a single face.

    python scripts/evaluation_figures.py REPORT --output DIR [--curves 6]

REPORT is the folder of a `dub evaluate`. DIR receives one SVG per protocol (every figure with its
bootstrap interval, a colour per system), curves.svg (lip opening over time, made and true, of the
cases at even places from best to worst), and tables.md.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np

mpl.use("svg")
import matplotlib.pyplot as plt

from dubbing.evaluation.evaluate import TRUTH
from dubbing.evaluation.protocol_names import SELF

COLUMNS = 4
COLOURS = ("#d1495b", "#8d99ae", "#577590", "#edae49", "#43aa8b", "#6a4c93", "#f3722c")
TRUTH_COLOUR = "#222222"
METADATA = {"Date": None, "Creator": None}

Table = dict[str, Any]


def main(arguments: list[str] | None = None) -> int:
    """Exit status."""
    args = _parse(arguments)
    report = json.loads((args.report / "evaluation.json").read_text())
    args.output.mkdir(parents=True, exist_ok=True)
    mpl.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "persona-dub", "font.size": 8})
    for table in report["tables"]:
        draw_table(table, report["definitions"], args.output / f"{table['protocol']}.svg")
    draw_curves(report["rows"], args.system, args.curves, args.output / "curves.svg")
    text = (args.report / "evaluation.md").read_text()
    (args.output / "tables.md").write_text(text)
    return 0


def draw_table(table: Table, definitions: Sequence[Table], path: Path) -> None:
    """One panel per figure, one line per system."""
    systems = list(table["systems"])
    shown = [d for d in definitions if any(d["name"] in c for c in table["systems"].values())]
    rows = math.ceil(len(shown) / COLUMNS)
    figure, axes = plt.subplots(
        rows, COLUMNS, figsize=(11, 0.55 * rows + 0.2 * rows * len(systems)), squeeze=False
    )
    for panel in axes.flat[len(shown) :]:
        panel.axis("off")
    for panel, definition in zip(axes.flat, shown, strict=False):
        for place, system in enumerate(systems):
            found = table["systems"][system].get(definition["name"])
            if found is None:
                continue
            colour = colour_of(system, systems)
            panel.plot([found["low"], found["high"]], [-place] * 2, color=colour, lw=2)
            panel.plot(found["mean"], -place, "o", color=colour, ms=4)
        panel.set_title(f"{definition['label']} ({definition['better']})", fontsize=8)
        panel.set_yticks([-k for k in range(len(systems))], systems)
        if panel not in axes[:, 0]:
            panel.set_yticklabels([])
        panel.set_ylim(0.6 - len(systems), 0.4)
        panel.margins(x=0.15)
        panel.grid(axis="x", lw=0.3)
    figure.suptitle(f"{table['protocol']}: {table['cases']} cases, means and 95 % intervals")
    figure.tight_layout()
    figure.savefig(path, metadata=METADATA)
    plt.close(figure)


def draw_curves(rows: Sequence[Table], system: str, count: int, path: Path) -> None:
    """Lip opening of self-dubs beside the truth's, from the best to the worst."""
    known = [r for r in rows if r["system"] == system and r["protocol"] == SELF]
    known = sorted((r for r in known if "opening" in r), key=lambda r: -r["opening"])
    places = np.linspace(0, len(known) - 1, min(count, len(known))).round().astype(int)
    if not len(places):
        return
    figure, axes = plt.subplots(len(places), 1, figsize=(11, 1.4 * len(places)), squeeze=False)
    for panel, place in zip(axes[:, 0], places, strict=True):
        row = known[place]
        for key, colour, label in (
            ("true curve", TRUTH_COLOUR, TRUTH), ("curve", COLOURS[0], system),
        ):  # fmt: skip
            panel.plot(row[key]["times"], row[key]["opening"], color=colour, lw=1, label=label)
        panel.set_title(
            f"{row['case']}: correlation {row['opening']:.2f}, place {place + 1} of {len(known)}",
            fontsize=8, loc="left",
        )  # fmt: skip
        panel.set_ylabel("opening")
    axes[0, 0].legend(loc="upper right", fontsize=7)
    axes[-1, 0].set_xlabel("seconds")
    figure.tight_layout()
    figure.savefig(path, metadata=METADATA)
    plt.close(figure)


def colour_of(system: str, systems: Sequence[str]) -> str:
    """The same colour for a system in every panel; black for the truth."""
    if system == TRUTH:
        return TRUTH_COLOUR
    return COLOURS[[s for s in systems if s != TRUTH].index(system) % len(COLOURS)]


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("report", type=Path, help="folder that dub evaluate wrote")
    parser.add_argument("--output", type=Path, required=True, help="folder for the figures")
    parser.add_argument("--system", default="ours", help="whose curves are drawn")
    parser.add_argument("--curves", type=int, default=6, help="cases whose curves are drawn")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
