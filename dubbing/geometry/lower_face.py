"""Made motion of the lower face as expressions, and changes of it by expressions."""

from __future__ import annotations

import torch
from torch import Tensor

from dubbing.geometry.morphable import MorphableModel
from dubbing.geometry.topology import (
    CHIN,
    INNER_BOTTOM,
    INNER_TOP,
    MOUTH_LEFT,
    MOUTH_RIGHT,
    SUBNASALE,
)

PART = 10_000  # frames whose vertices are moved at a time


def lower_expressions(model: MorphableModel, lower: Tensor, index: Tensor) -> Tensor:
    """Expressions [N, E] nearest to displacements `lower` [N, L, 3] of the vertices `index` [L]."""
    basis = model.expression[:, index].flatten(1)
    found: Tensor = lower.flatten(1) @ torch.linalg.pinv(basis)
    return found


def add_expressions(
    model: MorphableModel,
    lower: Tensor,
    index: Tensor,
    change: Tensor,
    out: Tensor | None = None,
) -> Tensor:
    """Displacements [N, L, 3] of the vertices `index` [L], changed by expressions [N, E].

    Args:
        out: where the result goes, which may be `lower` itself; None: a new tensor.
    """
    basis = model.expression[:, index].flatten(1)
    moved = torch.empty_like(lower) if out is None else out
    for start in range(0, len(lower), PART):
        part = slice(start, start + PART)
        step = change[part] @ basis
        torch.add(lower[part], step.view_as(lower[part]), out=moved[part])
    return moved


def speech_directions(model: MorphableModel) -> Tensor:
    """Opening, width and jaw [3, E] as linear functions of an expression."""
    moved = model.expression.cpu()
    return torch.stack(
        [
            moved[:, INNER_BOTTOM, 1] - moved[:, INNER_TOP, 1],
            moved[:, MOUTH_RIGHT, 0] - moved[:, MOUTH_LEFT, 0],
            moved[:, CHIN, 1] - moved[:, SUBNASALE, 1],
        ]
    )
