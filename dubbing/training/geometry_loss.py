"""Losses of stage 1: vertices with weighted lips, velocity, opening and amplitude."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from dubbing.geometry.morphable import MorphableModel
from dubbing.geometry.topology import INNER_BOTTOM, INNER_LIPS, INNER_TOP, LIPS
from dubbing.models.geometry_net import VERTEX_SCALE


@dataclass(frozen=True)
class GeometryLossWeights:
    vertex: float = 1.0
    velocity: float = 2.0
    opening: float = 1.0  # distance of the inner lips, near-closed frames count more
    amplitude: float = 0.3  # spread of the opening over the window, against mean regression


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

    def gap(self, displacement: Tensor, template: Tensor) -> Tensor:
        """Signed opening [B, T] of displacements [B, T, L, 3] on templates [B, V, 3]."""
        neutral = template[:, INNER_BOTTOM, 1] - template[:, INNER_TOP, 1]
        moved = displacement[..., self.bottom, 1] - displacement[..., self.top, 1]
        return (moved + neutral[:, None]) * VERTEX_SCALE

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
        vertex = ((error.square().sum(-1) * self.vertex).mean(-1) * mask).sum() / count
        pairs = mask[:, 1:] * mask[:, :-1]
        change = torch.diff(error, dim=1)
        velocity = ((change.square().sum(-1) * self.vertex).mean(-1) * pairs).sum() / count
        gap_p, gap_t = self.gap(predicted, template), self.gap(target, template)
        closed = 1 + 2 * torch.exp(-((gap_t / 0.3).clamp_min(0) ** 2))
        opening = ((gap_p - gap_t).square() * closed * mask).sum() / count
        amplitude = (_spread(gap_p, mask) - _spread(gap_t, mask)).abs().mean()
        total = (
            w.vertex * vertex
            + w.velocity * velocity
            + w.opening * opening
            + w.amplitude * amplitude
        )
        return {
            "loss": total,
            "vertex": vertex,
            "velocity": velocity,
            "opening": opening,
            "amplitude": amplitude,
        }


def _spread(value: Tensor, mask: Tensor) -> Tensor:
    count = mask.sum(1).clamp_min(1)
    mean = (value * mask).sum(1) / count
    return (((value - mean[:, None]).square() * mask).sum(1) / count + 1e-6).sqrt()
