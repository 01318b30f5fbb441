"""Teeth in the mesh: they hang on the skull and on the jaw, not on the lips.

Between the inner lips the mesh knows nothing. Stretched from lip to lip, a picture's teeth would
grow and shrink as the mouth opens. So two rows of points lie there: where the upper teeth end,
which stays where it is while the upper lip moves, and where the lower teeth end, which goes with
the jaw. Each lies on the line from an upper to a lower lip point, as a share of it, so that it
can't leave the mouth: where the lips hide the teeth, a strip is left between.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dubbing.geometry.topology import CHIN, LOWER_INNER_LIP, UPPER_INNER_LIP, strip

UPPER, LOWER = list(UPPER_INNER_LIP[1:-1]), list(LOWER_INNER_LIP[1:-1])
POINTS = 2 * len(UPPER)
UPPER_EDGE = 0.06  # canonical, about 5 mm: from the resting upper lip to the end of its teeth
LOWER_EDGE = 0.0  # the same below
LEAST = 0.12  # of the opening: what is seen of teeth, and what is left beyond them
MOST = 0.94  # of the opening: both rows together
CLOSED = 1e-4  # canonical opening below which there is no inside


def teeth_shares(template: Tensor, moved: Tensor) -> Tensor:
    """Where the teeth end between the lips.

    Args:
        template: [V, 3] the neutral face; moved: [T, V, 3] displacements from it (canonical).

    Returns:
        [T, 2, K] shares of the way from an upper to a lower lip point: of the upper teeth and, no
        smaller, of the lower.
    """
    up, low = moved[:, UPPER, 1], moved[:, LOWER, 1]
    rest = template[LOWER, 1] - template[UPPER, 1]
    opening = (rest + low - up).clamp_min(CLOSED)
    jaw = moved[:, CHIN, 1][:, None]
    shown = torch.stack([UPPER_EDGE - up, LOWER_EDGE + low - jaw], 1) / opening[:, None]
    shown = shown.clamp(LEAST, 1 - LEAST)
    shown = shown * (MOST / shown.sum(1, keepdim=True)).clamp_max(1.0)
    return torch.stack([shown[:, 0], 1 - shown[:, 1]], 1)


def with_teeth(values: Tensor, shares: Tensor) -> Tensor:
    """Values [..., P, C] of the mesh's points with those at the teeth after them.

    Args:
        shares: [..., 2, K] from `teeth_shares`.

    Returns:
        [..., P + 2 K, C].
    """
    up, low = values[..., None, UPPER, :], values[..., None, LOWER, :]
    teeth = torch.lerp(up, low, shares[..., None])
    return torch.cat([values, teeth.flatten(-3, -2)], -2)


def teeth_triangles(first: int) -> NDArray[np.int64]:
    """Triangles [54, 3] that fill the mouth: from the upper lip to the end of its teeth, from there
    to the end of the lower teeth, and on to the lower lip. `first`: number of the first point."""
    corners = UPPER_INNER_LIP[0], UPPER_INNER_LIP[-1]
    middle = first + POINTS // 2
    rows = [
        UPPER_INNER_LIP,
        (corners[0], *range(first, middle), corners[1]),
        (corners[0], *range(middle, first + POINTS), corners[1]),
        LOWER_INNER_LIP,
    ]
    return np.concatenate([strip(a, b) for a, b in pairwise(rows)])
