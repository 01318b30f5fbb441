"""How sure a mean over clips is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

RESAMPLES = 1000
LEVEL = 95.0  # per cent


@dataclass(frozen=True)
class Estimate:
    """A mean over cases with its 95 % bootstrap interval, and how many cases had the figure."""

    mean: float
    low: float
    high: float
    cases: int


def bootstrap(values: Sequence[float], groups: Sequence[str], seed: int = 0) -> Estimate | None:
    """Mean of values with the percentile interval of 1,000 resamples.

    Whole groups (speakers) are drawn, with replacement: clips of one speaker resemble each other,
    and drawing clips would make the interval too narrow.

    Args:
        values: one per case; groups: the speaker of each.

    Returns:
        None without a value; of a single speaker there is no interval: low and high are the mean.
    """
    if not values:
        return None
    members: dict[str, list[float]] = {}
    for value, group in zip(values, groups, strict=True):
        members.setdefault(group, []).append(value)
    mean = float(np.mean(values))
    if len(members) < 2:
        return Estimate(mean, mean, mean, len(values))
    totals = np.array([sum(m) for m in members.values()])
    counts = np.array([len(m) for m in members.values()])
    drawn = np.random.default_rng(seed).integers(0, len(totals), (RESAMPLES, len(totals)))
    means = totals[drawn].sum(1) / counts[drawn].sum(1)
    low, high = np.percentile(means, [(100 - LEVEL) / 2, (100 + LEVEL) / 2])
    return Estimate(mean, float(low), float(high), len(values))
