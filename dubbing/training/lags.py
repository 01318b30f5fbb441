"""Offsets between sound and lips, from two movements that should be the same."""

from __future__ import annotations

import torch
from torch import Tensor

MAX_LAG = 8  # frames at 25 Hz searched for the offset between sound and lips
MIN_LAG_FRAMES = 75  # shorter clips don't show their offset
MIN_PEAK = 0.3  # correlation at the best lag below which a clip is left out


def correlation(a: Tensor, b: Tensor) -> float:
    """Pearson correlation of two sequences, 0 where one is constant."""
    a, b = a - a.mean(), b - b.mean()
    return float((a * b).sum() / (a.norm() * b.norm()).clamp_min(1e-9))


def best_lag(
    predicted: Tensor, seen: Tensor, limit: int = MAX_LAG, weight: Tensor | None = None
) -> tuple[int, float]:
    """Frames by which `seen` [T] lags behind `predicted` [T], and the correlation there.

    Args:
        weight: [T] above 0 where `seen` counts; None: everywhere.
    """
    counts = torch.ones_like(seen, dtype=torch.bool) if weight is None else weight > 0
    scores = {}
    for lag in range(-limit, limit + 1):
        late = slice(max(lag, 0), len(seen) - max(-lag, 0))
        early = slice(max(-lag, 0), len(predicted) - max(lag, 0))
        kept = counts[late]
        scores[lag] = correlation(predicted[early][kept], seen[late][kept])
    lag = max(scores, key=lambda k: scores[k])
    return lag, scores[lag]
