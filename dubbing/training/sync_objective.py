"""What a sync expert is trained on: picking the right moment, the right clip, the right size."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dubbing.models.sync_net import MIN_SHIFT, MouthSyncNet, SyncNet, eroded
from dubbing.training.sync_data import MARGIN, WINDOW, SyncBatch

SMOOTH = (0, 2, 6, 12)  # frames on either side over which a similarity is averaged, one per term
CLIP_WEIGHT = 0.3  # of picking the right clip against picking the right moment
SIZE_WEIGHT = 0.3  # of preferring motion of the right size, likewise
FIRST_SCALE = 10.0  # of the similarities in a softmax; learned from there


class SyncObjective(nn.Module):
    """The expert and the learned scales of its similarities; with `bf16` its towers run in
    bfloat16.

    Four terms ask which of the 2 MARGIN + 1 moments of sound belongs to a mouth and the other way
    round, each from similarities averaged over another stretch of time: single frames teach
    detail, long stretches teach from clips where few frames tell. A fifth asks which clip of the
    batch the sound is from. Where motion can be made larger or smaller, a last one asks that the
    sound fits that less, or a loss made of the expert would let lips move too little.
    """

    def __init__(self, net: SyncNet | MouthSyncNet, bf16: bool = False):
        super().__init__()
        self.net, self.bf16 = net, bf16
        self.scales = nn.Parameter(torch.full((len(SMOOTH) + 2,), FIRST_SCALE).log())

    def forward(
        self, batch: SyncBatch, motion: Tensor, tolerance: int, resized: Tensor | None = None
    ) -> dict[str, Tensor]:
        """Terms and their weighted sum under "loss", and "accuracy".

        Args:
            motion: [B, WINDOW, ...] what the net's `motion` takes.
            tolerance: frames by which the lags of the batch may be wrong: any moment so near is
                right.
            resized: the same motion of a wrong size.
        """
        heard = self._vectors(self.net.audio, batch.audio)
        seen = self._vectors(self.net.motion, motion)
        valid = eroded(batch.seen, self.net.reach)
        scales = self.scales.clamp_max(4.6).exp()
        place = torch.arange(WINDOW, device=seen.device)[:, None] + torch.arange(
            2 * MARGIN + 1, device=seen.device
        )
        index = place.expand(len(seen), -1, -1)
        near = torch.einsum("bte,bse->bts", seen, heard).gather(2, index)
        known = valid[:, :, None] & batch.heard[:, None].expand(-1, WINDOW, -1).gather(2, index)
        moment, right = [], []
        for reach, scale in zip(SMOOTH, scales[2:], strict=True):
            mean, there = _averaged(near, known, reach)
            for scores, candidates in ((mean, there), _by_sound(mean, there)):
                loss, accuracy = _pick_moment(scores * scale, candidates, tolerance)
                moment.append(loss)
                right.append(accuracy)
        clip = self._pick_clip(seen, heard[:, MARGIN:-MARGIN], valid, batch, scales[0])
        shift = torch.stack(moment).mean()
        size = torch.zeros_like(shift)
        if resized is not None:
            own = batch.heard[:, MARGIN:-MARGIN] & valid
            wrong = self._vectors(self.net.motion, resized)
            gain = ((wrong - seen) * heard[:, MARGIN:-MARGIN]).sum(-1)[own]
            size = F.softplus(gain * scales[1]).mean() if own.any() else size
        return {
            "loss": shift + CLIP_WEIGHT * clip + SIZE_WEIGHT * size,
            "moment": shift,
            "clip": clip,
            "size": size,
            "accuracy": torch.stack(right[-2:]).mean(),
        }

    def _vectors(self, tower: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
        with torch.autocast(x.device.type, torch.bfloat16, enabled=self.bf16):
            vectors = tower(x)
        return vectors.float()

    def _pick_clip(
        self, seen: Tensor, heard: Tensor, valid: Tensor, batch: SyncBatch, scale: Tensor
    ) -> Tensor:
        """Cross-entropy of a window's sound among those of the batch, and of its mouth."""
        there = batch.heard[:, MARGIN:-MARGIN].to(seen)
        weight = valid.to(seen)
        total = torch.einsum("bte,cte->bc", seen * weight[..., None], heard * there[..., None])
        count = weight @ there.T
        own = torch.eye(len(seen), dtype=torch.bool, device=seen.device)
        wrong = (count < WINDOW // 4) | (batch.same & ~own)
        logits = (total / count.clamp_min(1) * scale).masked_fill(wrong & ~own, -torch.inf)
        rows = count.diagonal() >= WINDOW // 4
        if not rows.any():
            return total.sum() * 0
        target = own.nonzero()[:, 1]
        both = F.cross_entropy(logits[rows], target[rows]) + F.cross_entropy(
            logits.T[rows], target[rows]
        )
        return both / 2


def _averaged(values: Tensor, known: Tensor, reach: int) -> tuple[Tensor, Tensor]:
    """Means of [B, T, D] over T within `reach`, of what is known, and where the middle is."""
    if reach == 0:
        return values, known
    weight = known.to(values)

    def pooled(x: Tensor) -> Tensor:
        return F.avg_pool1d(x.transpose(1, 2), 2 * reach + 1, 1, reach).transpose(1, 2)

    return pooled(values * weight) / pooled(weight).clamp_min(1e-6), known


def _by_sound(values: Tensor, known: Tensor) -> tuple[Tensor, Tensor]:
    """The same [B, T, D], where t counts sounds: column d holds the mouth d - MARGIN frames
    before."""
    time = torch.arange(values.shape[1], device=values.device)[:, None]
    shift = torch.arange(values.shape[2], device=values.device)[None] - MARGIN
    place = time - shift
    inside = (place >= 0) & (place < values.shape[1])
    index = place.clamp(0, values.shape[1] - 1).expand(len(values), -1, -1)
    return values.gather(1, index), known.gather(1, index) & inside


def _pick_moment(logits: Tensor, known: Tensor, tolerance: int) -> tuple[Tensor, Tensor]:
    """Cross-entropy of the middle column (any within `tolerance`), and how often it is best."""
    shift = (torch.arange(logits.shape[2], device=logits.device) - MARGIN).abs()
    right = known & (shift <= tolerance)
    wrong = known & (shift >= tolerance + MIN_SHIFT)
    rows = right.any(2) & wrong.any(2)
    if not rows.any():
        return logits.sum() * 0, logits.new_zeros(())
    logits, right, wrong = logits[rows], right[rows], wrong[rows]
    hit = logits.masked_fill(~right, -torch.inf)
    miss = logits.masked_fill(~wrong, -torch.inf)
    best = hit.logsumexp(1)
    loss = torch.logaddexp(best, miss.logsumexp(1)) - best
    return loss.mean(), (hit.amax(1) > miss.amax(1)).float().mean()
