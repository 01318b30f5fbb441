"""How a speaker moves: what the style of a dub is taken from."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from dubbing.moments import MAX_HOLE, interpolated

RATE = 25  # Hz of the motion model
MAX_FRAMES = 500  # expressions that are kept, 20 s
PIECE = 50  # frames of which a long video gives one piece each


@dataclass(frozen=True)
class StyleReference:
    """Pieces of a speaker's own motion.

    Attributes:
        expressions: [N, E] at 25 Hz; starts: rows at which a piece begins, ascending, the first 0.
    """

    expressions: Tensor
    starts: list[int]

    @property
    def pieces(self) -> list[tuple[int, int]]:
        """First row and end of every piece."""
        return list(pairwise([*self.starts, len(self.expressions)]))

    @property
    def follows(self) -> Tensor:
        """[N - 1] whether row k + 1 is the moment after row k."""
        follows = torch.ones(max(len(self.expressions) - 1, 0), dtype=torch.bool)
        follows[[s - 1 for s in self.starts if s > 0]] = False
        return follows

    @classmethod
    def of(cls, times: Tensor, beta: Tensor) -> StyleReference:
        """Pieces taken evenly over a track.

        Args:
            times: [T] seconds, strictly increasing; beta: [T, E] expressions there.

        Returns:
            at most `MAX_FRAMES` expressions, at least one.
        """
        breaks = (times.diff() > MAX_HOLE).nonzero()[:, 0] + 1
        edges = [0, *breaks.tolist(), len(times)]
        pieces: list[tuple[Tensor, bool]] = []  # and whether it goes on from the one before
        for start, end in pairwise(edges):
            split = torch.split(_at_rate(times[start:end], beta[start:end]), PIECE)
            pieces += [(part, k > 0) for k, part in enumerate(split)]
        kept = _evenly([len(part) for part, _ in pieces])
        starts, rows = [], 0
        for k in kept:
            part, goes_on = pieces[k]
            if not (goes_on and k - 1 in kept):
                starts.append(rows)
            rows += len(part)
        return cls(torch.cat([pieces[k][0] for k in kept]), starts)


def _at_rate(times: Tensor, beta: Tensor) -> Tensor:
    """A track without holes at 25 Hz from its first moment on: [N, E]."""
    count = int((times[-1] - times[0]) * RATE + 1e-6) + 1
    moments = times[0] + torch.arange(count, dtype=times.dtype) / RATE
    return interpolated(times, beta, moments)[0]


def _evenly(lengths: list[int]) -> list[int]:
    """Numbers of pieces, spread evenly, that hold `MAX_FRAMES` together at most."""
    if sum(lengths) <= MAX_FRAMES:
        return list(range(len(lengths)))
    count = max(MAX_FRAMES // PIECE, 1)
    places = torch.linspace(0, len(lengths) - 1, count)
    return sorted({int(p) for p in places.round()})
