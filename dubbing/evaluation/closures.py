"""Whether lips that close in the truth close in what was made, and only there."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dubbing.evaluation.curves import Curve

CLOSED = 0.15  # of an opening's own range: below it the lips count as closed
OPEN = 0.30  # of the true opening's range: above it the lips are open beyond doubt
REACH = 2  # frames at 25 Hz, 80 ms: by so much a closure may be early or late
RANGE = (2.0, 98.0)  # percentiles of an opening that stand for its lowest and highest value

Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Closures:
    """Counts of one clip.

    Attributes:
        runs: runs of frames in which the true lips are closed; met: of them, those within `REACH`
            frames of which the made lips are closed too.
        open: frames that lie `REACH` frames or more inside true openness; false: of them, those
            in which the made lips are closed. Always closed lips meet every run and are false in
            every open frame.
    """

    runs: int
    met: int
    open: int
    false: int

    @property
    def share(self) -> float | None:
        """Share of the runs that are met; None without a run."""
        return self.met / self.runs if self.runs else None

    @property
    def false_share(self) -> float | None:
        """Share of the open frames in which the made lips are closed; None without such frames."""
        return self.false / self.open if self.open else None

    def __add__(self, other: Closures) -> Closures:
        return Closures(
            self.runs + other.runs,
            self.met + other.met,
            self.open + other.open,
            self.false + other.false,
        )


def compare_closures(truth: Curve, made: Curve, counted: Mask | None = None) -> Closures:
    """Compare two openings [N] on one 25-Hz grid; NaN where one is not known.

    The range of an opening lies between its percentiles `RANGE`. Lips are closed where the opening
    is under the lower end plus 15 % of the range; an opening without any range is never closed.

    Args:
        counted: [N] moments that count; a run counts if one of its frames does. None: all.
    """
    counted = np.ones(len(truth), bool) if counted is None else counted
    known = np.isfinite(made)
    closed, ours = below(truth, CLOSED), below(made, CLOSED)
    spans = [
        (max(first - REACH, 0), end + REACH)
        for first, end in runs(closed)
        if counted[first:end].any()
    ]
    spans = [(first, end) for first, end in spans if known[first:end].any()]
    inside = surrounded(above(truth, OPEN), REACH) & known & counted
    return Closures(
        len(spans),
        sum(bool(ours[first:end].any()) for first, end in spans),
        int(inside.sum()),
        int((inside & ours).sum()),
    )


def span_of(values: Curve) -> tuple[float, float]:
    """Lower end and size of the range of values [N] (percentiles `RANGE` of what is known)."""
    known = values[np.isfinite(values)]
    if len(known) == 0:
        return 0.0, 0.0
    low, high = np.percentile(known, RANGE)
    return float(low), float(high - low)


def below(values: Curve, share: float) -> Mask:
    """[N] where values lie under `share` of their own range; nowhere without a range."""
    low, size = span_of(values)
    mask: Mask = values < low + share * size  # False for NaN
    return mask & (size > 0)


def above(values: Curve, share: float) -> Mask:
    """[N] where values lie over `share` of their own range; nowhere without a range."""
    low, size = span_of(values)
    mask: Mask = values > low + share * size
    return mask & (size > 0)


def runs(mask: Mask) -> list[tuple[int, int]]:
    """(first, end) of every stretch of True in [N]."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], mask, [False]]).astype(np.int8)))
    return [(int(a), int(b)) for a, b in edges.reshape(-1, 2)]


def surrounded(mask: Mask, reach: int) -> Mask:
    """[N] where the mask is True at every frame within `reach`, as far as there are frames."""
    padded = np.pad(mask, reach, constant_values=True)
    windows = np.lib.stride_tricks.sliding_window_view(padded, 2 * reach + 1)
    return np.asarray(windows.all(axis=1), bool)
