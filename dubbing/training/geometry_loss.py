"""Losses of stage 1: vertices with weighted lips, velocity, and the movements that eyes follow."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from dubbing.geometry.morphable import MorphableModel
from dubbing.geometry.topology import (
    CHIN,
    INNER_BOTTOM,
    INNER_LIPS,
    INNER_TOP,
    LIPS,
    MOUTH_LEFT,
    MOUTH_RIGHT,
)
from dubbing.models.geometry_net import VERTEX_SCALE

CLOSED = 0.3  # scaled units: openings under this count as nearly closed
MIN_SPREAD = 0.05  # scaled units: a movement that hardly moves has no shape to agree with


@dataclass(frozen=True)
class GeometryLossWeights:
    vertex: float = 1.0
    velocity: float = 2.0
    opening: float = 1.0  # distance of the inner lips, near-closed frames count more
    closure: float = 1.0  # lips that stay open where they should meet, beyond `opening`
    jaw: float = 0.3  # height of the chin
    width: float = 0.5  # distance of the mouth's corners
    amplitude: float = 0.6  # spread of the three over the window, against mean regression
    shape: float = 1.0  # one minus the correlation of the three with the truth


class GeometryLoss:
    """Callable loss; all tensors in morphable-model units."""

    def __init__(self, model: MorphableModel, weights: GeometryLossWeights | None = None):
        self.weights = weights or GeometryLossWeights()
        index = model.lower.gt(0).nonzero()[:, 0].tolist()
        where = {v: k for k, v in enumerate(index)}
        vertex = torch.ones(len(index))
        for v in LIPS:
            vertex[where[v]] = 4.0
        for v in INNER_LIPS:
            vertex[where[v]] = 6.0
        self.vertex = (vertex / vertex.mean()).to(model.mean.device)
        self.top, self.bottom = where[INNER_TOP], where[INNER_BOTTOM]
        self.left, self.right = where[MOUTH_LEFT], where[MOUTH_RIGHT]
        self.chin = where[CHIN]

    def gap(self, displacement: Tensor, template: Tensor) -> Tensor:
        """Signed opening [B, T] of displacements [B, T, L, 3] on templates [B, V, 3]."""
        neutral = template[:, INNER_BOTTOM, 1] - template[:, INNER_TOP, 1]
        moved = displacement[..., self.bottom, 1] - displacement[..., self.top, 1]
        return (moved + neutral[:, None]) * VERTEX_SCALE

    def jaw(self, displacement: Tensor) -> Tensor:
        """Height [B, T] by which the chin is lowered."""
        return displacement[..., self.chin, 1] * VERTEX_SCALE

    def width(self, displacement: Tensor) -> Tensor:
        """Widening [B, T] of the mouth against the template."""
        return (displacement[..., self.right, 0] - displacement[..., self.left, 0]) * VERTEX_SCALE

    def __call__(
        self, predicted: Tensor, target: Tensor, template: Tensor, mask: Tensor
    ) -> dict[str, Tensor]:
        """Terms and their weighted sum under "loss".

        Args:
            predicted, target: [B, T, L, 3]; template: [B, V, 3]; mask: [B, T] float 0/1.
        """
        w = self.weights
        error = (predicted - target) * VERTEX_SCALE
        count = mask.sum().clamp_min(1)

        def mean(value: Tensor) -> Tensor:
            return (value * mask).sum() / count

        gap_p, gap_t = self.gap(predicted, template), self.gap(target, template)
        near = torch.exp(-((gap_t / CLOSED).clamp_min(0) ** 2))
        pairs = mask[:, 1:] * mask[:, :-1]
        change = torch.diff(error, dim=1).square().sum(-1) * self.vertex
        curves = [
            (gap_p, gap_t),
            (self.jaw(predicted), self.jaw(target)),
            (self.width(predicted), self.width(target)),
        ]
        spreads = [(_spread(p, mask), _spread(t, mask)) for p, t in curves]
        terms = {
            "vertex": mean((error.square().sum(-1) * self.vertex).mean(-1)),
            "velocity": (change.mean(-1) * pairs).sum() / count,
            "opening": mean((gap_p - gap_t).square() * (1 + 2 * near)),
            "closure": mean((gap_p - gap_t.clamp_min(0)).clamp_min(0).square() * near),
            "jaw": mean((curves[1][0] - curves[1][1]).square()),
            "width": mean((curves[2][0] - curves[2][1]).square()),
            "amplitude": torch.stack([(p - t).abs().mean() for p, t in spreads]).mean(),
            "shape": torch.stack([_disagreement(p, t, mask) for p, t in curves]).mean(),
        }
        total = sum((getattr(w, k) * v for k, v in terms.items()), torch.zeros_like(count))
        return {"loss": total} | terms


def _centred(value: Tensor, mask: Tensor) -> Tensor:
    mean = (value * mask).sum(1) / mask.sum(1).clamp_min(1)
    return (value - mean[:, None]) * mask


def _spread(value: Tensor, mask: Tensor) -> Tensor:
    count = mask.sum(1).clamp_min(1)
    return (_centred(value, mask).square().sum(1) / count + 1e-6).sqrt()


def _disagreement(predicted: Tensor, target: Tensor, mask: Tensor) -> Tensor:
    """Mean over windows [B] of 1 - correlation, each weighted by how much the truth moves."""
    p, t = _centred(predicted, mask), _centred(target, mask)
    count = mask.sum(1).clamp_min(1)
    floor = MIN_SPREAD * count.sqrt()
    norms = (p.square().sum(1) + floor**2).sqrt() * (t.square().sum(1) + floor**2).sqrt()
    off = 1 - ((p * t).sum(1) + floor**2) / norms
    weight = _spread(target, mask).detach() * (mask.sum(1) > 12)
    return (off * weight).sum() / weight.sum().clamp_min(1e-6)
