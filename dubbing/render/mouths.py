"""Which mouths of the reference bank a moment shows: a way through the bank, not a new choice every
time.

Geometry tells the nearest mouth of a moment, but teeth and tongue are not in it, and the nearest
of the next moment may show others. So a mouth is followed by itself or by one like it where the
moments allow that: the bank is a hidden Markov chain, and what a moment shows is its posterior
given the moments around. One mouth then fades into the next instead of jumping.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from dubbing.chain import posterior
from dubbing.geometry.pose import rotation_matrix, turn_between
from dubbing.geometry.topology import LIPS
from dubbing.models.geometry_net import VERTEX_SCALE
from dubbing.render.scene import FaceStates, mouths_apart

FADE = 2  # moments on either side over which one mouth fades into the next
SWITCH = 0.1  # what going on with another mouth costs, in what a moment with the other mouth costs
LEAST = 1e-12  # of a share


@dataclass(frozen=True)
class Moments:
    """A moment and those around it at even times, J in all (odd), itself in the middle.

    Attributes:
        displacement: [J, V, 3] of the face from the template (canonical).
        pose: [J, 6] of the head.
    """

    displacement: Tensor
    pose: Tensor


@dataclass(frozen=True)
class MouthBank:
    """The mouths of a reference bank.

    Attributes:
        lips: [N, L, 3] displacements of the references' lips; rotation: [N, 3, 3] of their heads.
        scale: logit per difference between whole mouths (see `mouths_apart`).
        go_on: [N, N] how readily one mouth is followed by another.
    """

    lips: Tensor
    rotation: Tensor
    scale: Tensor
    go_on: Tensor

    @classmethod
    def of(cls, states: FaceStates, scale: Tensor) -> MouthBank:
        """The bank of N references; `scale` is Lip-Attention's own."""
        lips = states.displacement[:, list(LIPS)]
        between = _apart(lips, states.rotation[:, None], lips, states.rotation[None])
        return cls(lips, states.rotation, scale, torch.exp(-SWITCH * scale * between))

    def shown(self, moments: Moments, count: int) -> tuple[Tensor, Tensor]:
        """Which mouths of the bank the middle one of `moments` shows.

        Which ones are looked at is decided by geometry, so that they change gradually (the skin
        around is read from them, too); how much each counts, by the chain.

        Returns:
            indices [K] of the `count` mouths that are most alike, or of all where there are fewer,
            and how different each is [K], see `Correspondence.mouth`.
        """
        lips, turned = moments.displacement[:, list(LIPS)], rotation_matrix(moments.pose[:, :3])
        away = _apart(lips, turned[:, None], self.lips, self.rotation[None])
        place, weight = _fade(len(away))
        alike = (-self.scale * away[place]).log_softmax(1) + weight.log()[:, None]
        nearest = alike.logsumexp(0).topk(min(count, away.shape[1])).indices
        likely = torch.exp(self.scale * (away.amin(1, keepdim=True) - away))
        share = (weight @ posterior(likely, self.go_on)[place])[nearest]
        return nearest, -share.clamp_min(LEAST).log() / self.scale


def _fade(count: int) -> tuple[slice, Tensor]:
    """Which of `count` moments the middle one fades from and into, and their weights [K]."""
    middle, reach = count // 2, min(FADE, count // 2)
    away = torch.arange(-reach, reach + 1).abs()
    weight = (reach + 1 - away).float()
    return slice(middle - reach, middle + reach + 1), weight / weight.sum()


def _apart(lips: Tensor, rotation: Tensor, others: Tensor, turned: Tensor) -> Tensor:
    """Differences [J, N] between mouths [J, L, 3] and [N, L, 3] whose heads are at the rotations
    `rotation` and `turned`, which broadcast to [J, N, 3, 3]."""
    away = VERTEX_SCALE * (lips[:, None] - others[None]).norm(dim=-1)
    return mouths_apart(away, turn_between(rotation, turned))
