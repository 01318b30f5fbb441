"""Draws the logs of training as curves.

    python scripts/training_curves.py checkpoints/logs/*.csv --output docs/training-curves.svg

One row of the drawing per log, as `dub train ...` writes it; figures of one kind share a panel, and
what a log holds no number of at a step is left out there.
"""

from __future__ import annotations

import argparse
import csv
import math
import sys
from pathlib import Path

import matplotlib as mpl

mpl.use("svg")
import matplotlib.pyplot as plt

STEP = "step"
PANELS = (  # what is drawn together, by the beginnings of the columns' names
    ("losses", ("loss", "vertex", "shape", "sync", "l1", "copied", "perceptual", "temporal")),
    ("parts of the loss", ("adversarial", "matching", "moment", "clip")),
    ("PSNR, dB", ("psnr",)),
    ("judged", ("corr", "amplitude_ratio", "accuracy", "check_acc", "held_", "found", "sharpness")),
)
LINES = 6  # of a panel

Curve = tuple[list[float], list[float]]


def read_log(path: Path) -> dict[str, Curve]:
    """{column: (steps, values)} of a log, without what is not a number."""
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    curves: dict[str, Curve] = {}
    for row in rows:
        for name, text in row.items():
            if name != STEP and math.isfinite(float(text)):
                steps, values = curves.setdefault(name, ([], []))
                steps.append(float(row[STEP]))
                values.append(float(text))
    return curves


def panels(curves: dict[str, Curve]) -> list[tuple[str, list[str]]]:
    """Titles of the panels that a log fills, and the columns in each."""
    found = []
    for title, beginnings in PANELS:
        names = [n for n in curves if n.startswith(beginnings) and "chance" not in n]
        names = [n for n in names if n not in ("held_clips", "held_speakers")]
        if names:
            found.append((title, names[:LINES]))
    return found


def draw(logs: list[Path], output: Path) -> None:
    """One SVG with a row per log."""
    mpl.rcParams.update({"svg.hashsalt": "persona", "svg.fonttype": "none"})
    read = {path.stem: read_log(path) for path in logs}
    columns = max(len(panels(curves)) for curves in read.values())
    size = (3.4 * columns, 2.3 * len(read))
    figure, grid = plt.subplots(len(read), columns, figsize=size, squeeze=False)
    for row, (name, curves) in zip(grid, read.items(), strict=True):
        for axes in row:
            axes.set_visible(False)
        for axes, (title, names) in zip(row, panels(curves), strict=False):
            axes.set_visible(True)
            for column in names:
                axes.plot(*curves[column], label=column, linewidth=1)
            axes.set_title(f"{name}: {title}", fontsize=8)
            axes.tick_params(labelsize=7)
            axes.legend(fontsize=6)
    figure.tight_layout()

    figure.savefig(output, metadata={"Date": None})
    plt.close(figure)


def main(arguments: list[str] | None = None) -> int:
    """Exit status: 0 if the drawing was written."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("logs", nargs="+", type=Path, metavar="LOG", help="CSV of a training")
    parser.add_argument("--output", type=Path, required=True, help="SVG to write")
    args = parser.parse_args(arguments)
    missing = [str(path) for path in args.logs if not path.is_file()]
    if missing:
        parser.error(f"no such log: {', '.join(missing)}")
    draw(args.logs, args.output)
    return 0


if __name__ == "__main__":
    sys.exit(main())
