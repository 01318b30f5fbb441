"""Hidden Markov chains: what is likely at one moment, given all that is seen."""

from __future__ import annotations

import torch
from torch import Tensor

LEAST = 1e-12  # of a probability


def posterior(likely: Tensor, go_on: Tensor) -> Tensor:
    """Probability of every state at every moment, by a forward and a backward pass.

    Args:
        likely: [T, N] how well state n explains what is seen at moment t; at least one of a moment
            is well above 0.
        go_on: [N, N] how readily state i is followed by state j.

    Returns:
        [T, N], rows that sum to 1.
    """
    forward, backward = torch.empty_like(likely), torch.ones_like(likely)
    forward[0] = likely[0] / likely[0].sum()
    for t in range(1, len(likely)):
        here = (forward[t - 1] @ go_on + LEAST) * likely[t]
        forward[t] = here / here.sum()
    for t in range(len(likely) - 2, -1, -1):
        here = go_on @ (backward[t + 1] * likely[t + 1]) + LEAST
        backward[t] = here / here.sum()
    both = forward * backward
    return both / both.sum(1, keepdim=True)
