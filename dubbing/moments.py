"""A track of faces at other moments than those of its pictures."""

from __future__ import annotations

import torch
from torch import Tensor

MAX_HOLE = 0.12  # s: over a longer hole (frames without a face) nothing is known


def interpolated(times: Tensor, values: Tensor, at: Tensor) -> tuple[Tensor, Tensor]:
    """What a track shows at other moments, linear between its own.

    Args:
        times: [T] seconds, strictly increasing; values: [T, E] there; at: [N] seconds.

    Returns:
        values [N, E], before the first and after the last time those there; and whether each is
        known [N]: it lies between two times that are no farther apart than `MAX_HOLE`, or at one.
    """
    if len(times) < 2:
        return values.expand(len(at), -1), at == times[0]
    right = torch.searchsorted(times, at).clamp(1, len(times) - 1)
    left = right - 1
    span = times[right] - times[left]
    share = (at - times[left]) / span
    known = (share >= 0) & (share <= 1) & (span <= MAX_HOLE)
    known |= (at == times[left]) | (at == times[right])
    return torch.lerp(values[left], values[right], share.clamp(0, 1).to(values)[:, None]), known
