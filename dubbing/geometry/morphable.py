"""Morphable model on the mesh topology: mean + shape + expression (paper section 3.1, ours).

The paper's BFM may not be shipped, so both linear bases are learned from our own tracks.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from dubbing.geometry.topology import (
    INNER_BOTTOM,
    INNER_TOP,
    LEFT_EYE_OUTER,
    MOUTH_LEFT,
    MOUTH_RIGHT,
    RIGHT_EYE_OUTER,
)

PART = 2000  # frames whose vertices are in memory at a time


@dataclass(frozen=True)
class MorphableModel:
    """Linear face model. Unit: half the height of the mean face, origin at its middle.

    Attributes:
        mean: [V, 3] mean neutral face.
        shape: [S, V, 3] basis; a coefficient of 1 is one standard deviation of people.
        expression: [E, V, 3] basis; a coefficient of 1 is one standard deviation of speech.
        triangles: [F, 3] surface, wound alike in the frontal view.
        mouth: [M, 3] triangles that fill the mouth opening.
        lower: [V] 1 for vertices that stage 1 generates, 0 for those kept from the source,
            between on the border.
    """

    mean: Tensor
    shape: Tensor
    expression: Tensor
    triangles: Tensor
    mouth: Tensor
    lower: Tensor

    def vertices(self, template: Tensor, beta: Tensor) -> Tensor:
        """Canonical vertices [..., V, 3] of a template [V, 3] under expressions [..., E]."""
        return template + torch.einsum("...e,evc->...vc", beta, self.expression)

    def shape_vertices(self, alpha: Tensor) -> Tensor:
        """Neutral vertices [..., V, 3] of shape coefficients [..., S]."""
        return self.mean + torch.einsum("...s,svc->...vc", alpha, self.shape)

    def expression_vertices(self, beta: Tensor) -> Tensor:
        """Displacements [..., V, 3] of expressions alone: the {0, beta, 0} of the paper."""
        return torch.einsum("...e,evc->...vc", beta, self.expression)

    def pncc(self) -> Tensor:
        """Colour of each vertex in a PNCC map, [V, 3] in 0.1..1 (0 is left for 'nothing')."""
        low, high = self.mean.amin(0), self.mean.amax(0)
        return 0.1 + 0.9 * (self.mean - low) / (high - low)

    def to(self, device: torch.device | str) -> MorphableModel:
        return MorphableModel(**{k: v.to(device) for k, v in self.state_dict().items()})

    def state_dict(self) -> dict[str, Tensor]:
        return {f.name: getattr(self, f.name) for f in fields(self)}

    @classmethod
    def from_state_dict(cls, state: Mapping[str, Tensor]) -> MorphableModel:
        return cls(**{f.name: state[f.name] for f in fields(cls)})


def lip_opening(vertices: Tensor) -> Tensor:
    """Inner-lip opening [...] of canonical vertices [..., V, 3], in outer-eye distances."""
    return _distance(vertices, INNER_TOP, INNER_BOTTOM) / eye_distance(vertices)


def track_opening(model: MorphableModel, template: Tensor, beta: Tensor) -> Tensor:
    """Lip opening [T] of the expressions [T, E] of a whole track; vertices exist for a part of its
    frames at a time."""
    parts = torch.split(beta, PART)
    return torch.cat([lip_opening(model.vertices(template, part)) for part in parts])


def lip_width(vertices: Tensor) -> Tensor:
    """Distance of the mouth corners [...], in outer-eye distances."""
    return _distance(vertices, MOUTH_LEFT, MOUTH_RIGHT) / eye_distance(vertices)


def eye_distance(vertices: Tensor) -> Tensor:
    """Distance [...] between the outer eye corners of vertices [..., V, 3]."""
    return _distance(vertices, LEFT_EYE_OUTER, RIGHT_EYE_OUTER)


def _distance(vertices: Tensor, a: int, b: int) -> Tensor:
    distance: Tensor = (vertices[..., a, :] - vertices[..., b, :]).norm(dim=-1)
    return distance
