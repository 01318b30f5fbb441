"""Stretches of a clip that are held back in turn, to tell what was learned from what was only
remembered."""

from __future__ import annotations

import torch
from torch import Tensor

GUARD = 8  # frames on either side of what is held back that nothing is learned from
MIN_GAIN = 0.01  # of the held-back correlation; less is chance


def best_look(gains: Tensor) -> tuple[int, bool]:
    """The moment of learning to take, and whether it is good enough to be taken.

    Args:
        gains: [F, K] gain of each held-back stretch at each look.

    Returns:
        the look with the highest mean gain among those at which no stretch gets worse and the
        mean is at least `MIN_GAIN`; where there is none, the best of all and False.
    """
    mean = gains.mean(0)
    fit = (gains.amin(0) >= 0) & (mean >= MIN_GAIN)
    accepted = bool(fit.any())
    look = int(torch.where(fit, mean, -torch.inf).argmax() if accepted else mean.argmax())
    return look, accepted


def richest(usable: Tensor, frames: int) -> slice:
    """The `frames` neighbouring frames, or all, that hold the most usable ones of [T]."""
    if len(usable) <= frames:
        return slice(0, len(usable))
    done = torch.cat([torch.zeros(1, dtype=torch.int64), usable.long().cumsum(0)])
    start = int((done[frames:] - done[:-frames]).argmax())
    return slice(start, start + frames)


def stretches(weight: Tensor, count: int) -> list[tuple[int, int]]:
    """[0, T) cut into `count` stretches that hold about as many frames with a weight each."""
    done = weight.gt(0).cumsum(0)
    cuts = [int((done <= done[-1] * k // count).sum()) for k in range(1, count)]
    return list(zip([0, *cuts], [*cuts, len(weight)], strict=True))


def hold_back(weight: Tensor, count: int) -> tuple[list[Tensor], Tensor]:
    """What is judged and what is learned from while each stretch of [T] is held back.

    Returns:
        the frames with a weight of each stretch, and the weights [count, T] of the others: 0 in
        the stretch and within `GUARD` frames of it.
    """
    held, learned = [], weight.repeat(count, 1)
    for row, (start, end) in zip(learned, stretches(weight, count), strict=True):
        held.append((weight[start:end] > 0).nonzero()[:, 0] + start)
        row[max(start - GUARD, 0) : end + GUARD] = 0
    return held, learned
