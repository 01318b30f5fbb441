"""Means over clips of what the protocols measured."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from dubbing.evaluation.closures import Closures
from dubbing.evaluation.protocols import REST, Row

Summary = dict[str, float | None]

LMD = "lmd, % of eye distance"


def mean(rows: Sequence[Row], column: str) -> float | None:
    """Mean of a column over the rows that have it; None where none has."""
    values = known(rows, column)
    return float(np.mean(values)) if values else None


def median(rows: Sequence[Row], column: str) -> float | None:
    """Median likewise."""
    values = known(rows, column)
    return float(np.median(values)) if values else None


def largest(rows: Sequence[Row], column: str) -> float | None:
    """Maximum likewise."""
    return max(known(rows, column), default=None)


def share(rows: Sequence[Row], column: str, low: float, high: float) -> float | None:
    """Share of the rows with the column whose value lies in [low, high]."""
    values = known(rows, column)
    return sum(low <= v <= high for v in values) / len(values) if values else None


def percent(value: float | None) -> float | None:
    """A share in per cent."""
    return None if value is None else 100 * value


def known(rows: Sequence[Row], column: str) -> list[float]:
    """Values of a column that are there."""
    return [row[column] for row in rows if row.get(column) is not None]


def closures(rows: Sequence[Row], prefix: str = "") -> Closures:
    """Counts of all rows together."""
    names = ("runs", "met", "open", "false")
    return Closures(*(sum(int(v) for v in known(rows, prefix + name)) for name in names))


def agreement(rows: Sequence[Row], prefix: str = "") -> Summary:
    """Means of the curves' agreement; the lag as mean, median and share within one frame."""
    lag = f"{prefix}lag"
    return {
        "opening": mean(rows, f"{prefix}opening"),
        "width": mean(rows, f"{prefix}width"),
        "jaw": mean(rows, f"{prefix}jaw"),
        "amplitude": mean(rows, f"{prefix}amplitude"),
        "amplitude, median": median(rows, f"{prefix}amplitude"),
        "best": mean(rows, f"{prefix}best"),
        "lag": mean(rows, lag),
        "lag, median": median(rows, lag),
        "lag within 1 frame": share(rows, lag, -1, 1),
    }


def lips(rows: Sequence[Row], prefix: str = "") -> Summary:
    """`agreement`, LMD with how far it lies under that of the resting mouth (ratio of the means),
    and closures counted over all clips."""
    spoken = closures(rows, f"{prefix}speech ")
    everywhere = closures(rows, prefix)
    return agreement(rows, prefix) | {
        LMD: percent(mean(rows, f"{prefix}lmd")),
        "lmd under rest": under_rest(rows, prefix),
        "closures met": everywhere.share,
        "false closures": everywhere.false_share,
        "closures met in speech": spoken.share,
        "false closures in speech": spoken.false_share,
    }


def under_rest(rows: Sequence[Row], prefix: str = "") -> float | None:
    """By what share the mean LMD lies under that of the resting mouth."""
    ours, rest = mean(rows, f"{prefix}lmd"), mean(rows, f"{REST}lmd")
    return None if ours is None or not rest else 1 - ours / rest
