"""The small movements beside opening, width and jaw, taken from the speaker.

Speech tells how far a mouth opens. How its corners, its rounding and its crookedness go along it
hardly tells, and a network answers with their mean over all speakers. The speaker's own reference
shows them: every made moment attends to the reference's moments with a like opening, width and jaw
that follow each other as made moments do, and takes over what goes along with them there. It is the
paper's attention to the reference style (section 3.1) at work on the motion itself; ours.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from dubbing.chain import posterior
from dubbing.geometry.lower_face import (
    add_expressions,
    lower_expressions,
    speech_directions,
)
from dubbing.geometry.morphable import MorphableModel
from dubbing.style_reference import StyleReference

SHARE = 0.65  # of the speaker's small movements; the rest stays as the network made it
MIN_FRAMES = 50  # of the reference, 2 s: fewer show no manner
PACE = 1.5  # weight of the speed of opening, width and jaw beside their size
LEAP = 3.0  # cost of going on elsewhere in the reference, in squared deviations
WINDOW = 1000  # frames that are looked at together
REACH = 100  # frames on either side of a window that are looked at, too
FLOOR = 0.1  # least deviation that counts, in that of speech in general
RIDGE = 1e-4  # of the covariance


def take_on_nuances(
    model: MorphableModel,
    lower: Tensor,
    index: Tensor,
    reference: StyleReference,
    strength: float = 1.0,
    out: Tensor | None = None,
) -> Tensor:
    """Made motion with the speaker's own small movements.

    Args:
        lower: [N, L, 3] made displacements of the vertices `index` [L] at 25 Hz.
        reference: of the speaker whose style it is.
        strength: of the style: 0 changes nothing, 1 is the speaker's own.
        out: where the result goes, which may be `lower` itself; None: a new tensor.

    Returns:
        [N, L, 3] with the opening, width and jaw of `lower`; `lower` itself where the reference is
        too short. Attention is computed on the CPU, whatever the device.
    """
    share = min(SHARE * strength, 1.0)
    if share == 0.0 or len(reference.expressions) < MIN_FRAMES:
        return lower
    made = lower_expressions(model, lower, index).cpu()
    speaker = _Speaker(reference, speech_directions(model))
    change = share * (speaker.small_movements(made) - speaker.rest_of(made))
    return add_expressions(model, lower, index, change.to(lower.device), out)


class _Speaker:
    """A reference as pairs of what speech decides and what goes along with it.

    Args:
        directions: [3, E] of opening, width and jaw.
    """

    def __init__(self, reference: StyleReference, directions: Tensor):
        own = reference.expressions.cpu()
        spread = torch.cov(own.T) + RIDGE * torch.eye(own.shape[1])
        self.directions = directions
        self.along = spread @ directions.T @ torch.linalg.inv(directions @ spread @ directions.T)
        known = own @ directions.T
        self.small = self.rest_of(own)
        usual = directions.norm(dim=1)
        self._unit = torch.maximum(known.std(0), FLOOR * usual)
        self._shown = self._described(known, reference.pieces)
        self._go_on = self._transitions(known / self._unit, reference.follows)

    def rest_of(self, expressions: Tensor) -> Tensor:
        """Expressions [N, E] less what goes along with their opening, width and jaw."""
        decided: Tensor = expressions @ self.directions.T @ self.along.T
        return expressions - decided

    def small_movements(self, made: Tensor) -> Tensor:
        """Expected small movements [N, E] for made expressions [N, E]."""
        wanted = self._described(made @ self.directions.T, [(0, len(made))])
        parts = []
        for start in range(0, len(made), WINDOW):
            before = min(start, REACH)
            part = wanted[start - before : start + WINDOW + REACH]
            weights = self._attention(part)[before : before + WINDOW]
            parts.append(weights @ self.small)
        return torch.cat(parts)

    def _described(self, known: Tensor, pieces: list[tuple[int, int]]) -> Tensor:
        """Opening, width and jaw [N, 3] with their speeds, smoothed, as [N, 6]."""
        rows = []
        for start, end in pieces:
            piece = (known[start:end] / self._unit).T[None]
            smooth = F.avg_pool1d(F.pad(piece, (1, 1), "replicate"), 2, 1)
            smooth = F.avg_pool1d(smooth, 2, 1)[0].T
            speed = torch.cat([smooth.diff(dim=0), smooth.new_zeros(1, 3)])
            rows.append(torch.cat([smooth, PACE * speed], 1))
        return torch.cat(rows)

    def _transitions(self, known: Tensor, follows: Tensor) -> Tensor:
        """How readily [N, N] a made moment follows row i of the reference with row j."""
        deviation = self.small.std(0).clamp_min(FLOOR) * self.small.shape[1] ** 0.5
        state = torch.cat([known, self.small / deviation], 1)
        after = torch.where(F.pad(follows, (0, 1))[:, None], state.roll(-1, 0), state)
        cost = LEAP * (1 + torch.cdist(after, state).square())
        rows = follows.nonzero()[:, 0]
        cost[rows, rows + 1] = 0.0
        return torch.exp(-cost)

    def _attention(self, wanted: Tensor) -> Tensor:
        """Weights [T, N] of the reference's rows at every moment of `wanted` [T, 6], given all of
        them."""
        cost = torch.cdist(wanted, self._shown).square()
        likely = torch.exp(cost.amin(1, keepdim=True) - cost)
        return posterior(likely, self._go_on)
