"""Hidden Markov chains: what is likely at one moment, given all that is seen."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dubbing.compiled import compiled

Floats = NDArray[np.float32]
LEAST = 1e-12  # of a probability


def posterior(likely: Tensor, go_on: Tensor) -> Tensor:
    """Probability of every state at every moment, by a forward and a backward pass.

    Both arguments are on the CPU: a few steps of a small matrix, which as single operations on a
    device would wait for it at each.

    Args:
        likely: [T, N] float32, how well state n explains what is seen at moment t; at least one of
            a moment is well above 0.
        go_on: [N, N] how readily state i is followed by state j.

    Returns:
        [T, N], rows that sum to 1.
    """
    maps = (m.detach().contiguous().numpy() for m in (likely, go_on, go_on.T))
    return torch.from_numpy(_passes(*maps))


@compiled
def _passes(likely: Floats, go_on: Floats, come_from: Floats) -> Floats:
    """`posterior` with the transitions in both directions."""
    moments, states = likely.shape
    forward = np.empty_like(likely)
    forward[0] = likely[0] / likely[0].sum()
    for t in range(1, moments):
        here = np.full(states, LEAST, np.float32)
        for i in range(states):
            share = forward[t - 1, i]
            for j in range(states):
                here[j] += share * go_on[i, j]
        here *= likely[t]
        forward[t] = here / here.sum()
    backward = np.ones(states, np.float32)
    both = np.empty_like(likely)
    both[moments - 1] = forward[moments - 1]
    for t in range(moments - 2, -1, -1):
        here = np.full(states, LEAST, np.float32)
        for j in range(states):
            share = backward[j] * likely[t + 1, j]
            for i in range(states):
                here[i] += share * come_from[j, i]
        backward = here / here.sum()
        shown = forward[t] * backward
        both[t] = shown / shown.sum()
    return both
