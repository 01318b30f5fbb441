"""Cross-attention from target geometry to reference textures (paper section 3.2).

Two forms of the same attention. `full_attention` is the paper's: every query token against every
token of every reference. `guided_attention` visits only the candidates that geometry allows: a
small window of each reference around the place where the mesh says the target point lies. Under
the same mask both give the same result (`window_mask` builds it); the guided form costs
N * window / (N * tokens) of the full one.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

NEVER = -1e4  # logit of a candidate that does not count; finite, so that a row never becomes NaN


@dataclass(frozen=True)
class Attended:
    """Result of attention over references.

    Attributes:
        value: [B, C, h, w] mixed values.
        reference_logits: [B, N, h, w] log of the unnormalised weight of each reference.
    """

    value: Tensor
    reference_logits: Tensor


def window_offsets(size: int, device: torch.device) -> Tensor:
    """Offsets [size * size, 2] (dx, dy) of a square window, in tokens."""
    reach = torch.arange(size, device=device) - size // 2
    dy, dx = torch.meshgrid(reach, reach, indexing="ij")
    return torch.stack([dx, dy], -1).view(-1, 2)


def candidates(place: Tensor, window: int, height: int, width: int) -> tuple[Tensor, Tensor]:
    """Token index of each candidate.

    Args:
        place: [B, N, h, w, 2] (x, y) position in the reference's token grid, token centres at
            integers; may lie outside.
        window: odd side of the window in tokens.

    Returns:
        index [B, N, h, w, K] int64 into height * width (0 where outside), and whether inside.
    """
    base = place.round().long()[..., None, :] + window_offsets(window, place.device)
    x, y = base[..., 0], base[..., 1]
    inside = (x >= 0) & (x < width) & (y >= 0) & (y < height)
    return torch.where(inside, y * width + x, 0), inside


def guided_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    index: Tensor,
    bias: Tensor,
    active: Tensor | None = None,
) -> Attended:
    """Attention over the candidates only.

    Args:
        query: [B, C, h, w].
        key: [B, N, C, H, W]; value: [B, N, D, H, W], D may be 0.
        index: [B, N, h, w, K] candidates; bias: the same shape, added to the logits.
        active: [B, h, w] bool, queries to compute; the others come out as zeros. None: all.
    """
    count = key.shape[1]
    rows = table_rows(index, key.shape[-2] * key.shape[-1])
    added = query_rows(bias)
    if active is None:
        return attend_rows(query, key, value, rows, added, count)
    chosen = active.reshape(-1).nonzero()[:, 0]
    return attend_rows(query, key, value, rows[chosen], added[chosen], count, chosen)


def attend_rows(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    rows: Tensor,
    bias: Tensor,
    count: int,
    chosen: Tensor | None = None,
) -> Attended:
    """`guided_attention` with its candidates as rows of the token table.

    Args:
        query: [B, C, h, w].
        rows: [Q, N * K] candidates of each query (see `table_rows`); bias: the same shape.
        count: N.
        chosen: [Q] which of the B * h * w queries the rows belong to; None for all in order.
    """
    batch, channels, h, w = query.shape
    q = query.flatten(2).transpose(1, 2).reshape(-1, channels)
    total = q.shape[0]  # not len(), which an export would take for a constant
    q = q if chosen is None else q[chosen]
    logits = torch.bmm(take_rows(key, rows), q[..., None])[..., 0] / channels**0.5 + bias
    if value.shape[2]:
        weights = logits.softmax(-1)[:, None].to(value.dtype)
        mixed = torch.bmm(weights, take_rows(value, rows))[:, 0]
    else:  # there is nothing to mix
        mixed = logits[:, :0]
    per_reference = logits.unflatten(-1, (count, -1)).logsumexp(-1)
    if chosen is not None:
        mixed = mixed.new_zeros(total, mixed.shape[-1]).index_copy(0, chosen, mixed)
        per_reference = per_reference.new_zeros(total, count).index_copy(0, chosen, per_reference)
    return Attended(
        mixed.view(batch, h * w, value.shape[2]).transpose(1, 2).reshape(batch, -1, h, w),
        per_reference.view(batch, h * w, count).transpose(1, 2).reshape(batch, count, h, w),
    )


def query_rows(maps: Tensor) -> Tensor:
    """[B, N, h, w, K] as one row per query: [B * h * w, N * K]."""
    batch, _, h, w, _ = maps.shape
    return maps.permute(0, 2, 3, 1, 4).reshape(batch * h * w, -1)


def table_rows(index: Tensor, tokens: int) -> Tensor:
    """Rows [B * h * w, N * K] of candidates [B, N, h, w, K] in the table of all tokens of all
    references of all pictures."""
    batch, count = index.shape[:2]
    start = torch.arange(batch * count, device=index.device).view(batch, count, 1, 1, 1) * tokens
    return query_rows(index + start)


def take_rows(maps: Tensor, rows: Tensor) -> Tensor:
    """Columns of [B, N, C, H, W] at `table_rows`: [B * h * w, N * K, C]."""
    table = maps.permute(0, 1, 3, 4, 2).reshape(-1, maps.shape[2])  # a view if channels come last
    return table.index_select(0, rows.reshape(-1)).view(*rows.shape, maps.shape[2])


def full_attention(query: Tensor, key: Tensor, value: Tensor, bias: Tensor) -> Attended:
    """The paper's attention: h*w queries against all N*H*W tokens.

    Args:
        query: [B, C, h, w]; key: [B, N, C, H, W]; value: [B, N, D, H, W].
        bias: [B, h*w, N*H*W] added to the logits (zeros for plain attention).
    """
    batch, count, channels = key.shape[:3]
    h, w = query.shape[-2:]
    q = query.flatten(2).transpose(1, 2)
    k = key.flatten(3).transpose(2, 3).flatten(1, 2)
    v = value.flatten(3).transpose(2, 3).flatten(1, 2)
    logits = q @ k.transpose(1, 2) / channels**0.5 + bias
    mixed = logits.softmax(-1) @ v
    per_reference = logits.unflatten(-1, (count, -1)).logsumexp(-1)
    return Attended(
        mixed.transpose(1, 2).reshape(batch, -1, h, w),
        per_reference.transpose(1, 2).reshape(batch, count, h, w),
    )


def window_mask(index: Tensor, bias: Tensor, inside: Tensor, tokens: int) -> Tensor:
    """The full attention's bias [B, h*w, N*tokens] that allows just the guided candidates."""
    batch, count = index.shape[:2]
    flat = index.flatten(2, 3)
    mask = bias.new_full((batch, count, flat.shape[2], tokens), NEVER * 10)
    allowed = torch.where(inside, bias, NEVER * 10).flatten(2, 3)
    mask.scatter_reduce_(-1, flat, allowed, "amax")
    return mask.transpose(1, 2).flatten(2)
