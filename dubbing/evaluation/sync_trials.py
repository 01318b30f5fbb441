"""How well a sync expert tells true sound from wrong sound, over many clips."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from dubbing.models.sync_net import MouthSyncNet, SyncNet
from dubbing.sync import (
    MAX_OFFSET,
    MAX_SURE_OFFSET,
    MIN_FRAMES,
    SURE,
    best_offset,
    offset_distances,
    score,
)

SECOND = 25  # frames of a short window
WRONG_SHIFT = 5  # frames from which on a shifted sound counts as wrong
OTHERS = 6  # clips whose sound is tried in place of the own one


@dataclass(frozen=True)
class CheckClip:
    """audio [2 T, A] and motion [T, ...] of one clip as the expert takes them, usable [T] bool."""

    name: str
    audio: Tensor
    motion: Tensor
    usable: Tensor


@dataclass(frozen=True)
class ClipTrial:
    """What one clip shows.

    Attributes:
        offset, confidence, distance: its score; errors: standard errors behind the offset.
        sure: whether `clip_offset` would call the offset sure.
        shifted, other: share of trials over windows of a second in which the true sound is nearer
            than the same sound 5 to 15 frames away, and than another clip's sound.
        shifted_clip, other_clip: the same over the whole clip.
        aligned: `shifted` with the clip's own best offset taken as true.
    """

    name: str
    frames: int
    offset: int
    confidence: float
    distance: float
    errors: float
    sure: bool
    shifted: float
    other: float
    shifted_clip: float
    other_clip: float
    aligned: float


def trials(expert: SyncNet | MouthSyncNet, clips: Sequence[CheckClip]) -> list[ClipTrial]:
    """Try an expert on clips; those too short to be scored are left out."""
    tables = []
    for clip in clips:
        rows = offset_distances(expert, clip.audio, clip.motion, clip.usable)
        if int(rows.isfinite().sum(0).min()) >= MIN_FRAMES:
            tables.append((clip, rows))
    out = []
    for k, (clip, rows) in enumerate(tables):
        others = [tables[(k + j) % len(tables)][0] for j in range(1, min(OTHERS + 1, len(tables)))]
        out.append(_trial(expert, clip, rows, others))
    return out


def _trial(
    expert: SyncNet | MouthSyncNet, clip: CheckClip, rows: Tensor, others: Sequence[CheckClip]
) -> ClipTrial:
    found = score(rows)
    offset, errors = best_offset(rows)
    wrong = [
        offset_distances(expert, o.audio, clip.motion, clip.usable, limit=0)[:, 0] for o in others
    ]
    foreign = torch.stack([_padded(w, len(rows)) for w in wrong], 1)
    true = rows[:, MAX_OFFSET]
    return ClipTrial(
        clip.name,
        found.frames,
        found.offset,
        found.confidence,
        found.distance,
        errors,
        errors >= SURE and abs(offset) <= MAX_SURE_OFFSET,
        _wins(true, _shifted(rows, 0), SECOND),
        _wins(true, foreign, SECOND),
        _wins(true, _shifted(rows, 0), len(rows)),
        _wins(true, foreign, len(rows)),
        _wins(rows[:, MAX_OFFSET + offset], _shifted(rows, offset), SECOND),
    )


def _padded(x: Tensor, length: int) -> Tensor:
    return torch.cat([x, x.new_full((max(length - len(x), 0),), float("nan"))])[:length]


def _shifted(rows: Tensor, offset: int) -> Tensor:
    """The columns [T, N] of `offset_distances` that are wrong if `offset` is right."""
    shift = (torch.arange(rows.shape[1]) - MAX_OFFSET - offset).abs()
    return rows[:, shift >= WRONG_SHIFT]


def _wins(true: Tensor, wrong: Tensor, window: int) -> float:
    """Share of pairs (window of up to `window` frames, wrong sound) in which the true one [T] is
    nearer than the wrong one [T, N]; NaN without a pair of at least `MIN_FRAMES` frames."""
    frames = true.isfinite().nonzero()[:, 0]
    won, count = 0.0, 0
    for part in torch.split(frames, window):
        gain = wrong[part] - true[part, None]
        known = gain.isfinite().sum(0) >= MIN_FRAMES
        won += float((gain.nanmean(0)[known] > 0).sum())
        count += int(known.sum())
    return won / count if count else float("nan")


def summary(rows: Sequence[ClipTrial]) -> dict[str, float]:
    """Means over clips (NaN left out), and how the offsets lie."""

    def mean(values: list[float]) -> float:
        return float(torch.tensor(values).nanmean()) if values else float("nan")

    sure = [r for r in rows if r.sure]
    return {
        "clips": len(rows),
        "shifted": mean([r.shifted for r in rows]),
        "other": mean([r.other for r in rows]),
        "shifted_clip": mean([r.shifted_clip for r in rows]),
        "other_clip": mean([r.other_clip for r in rows]),
        "aligned": mean([r.aligned for r in rows]),
        "within_1": mean([float(abs(r.offset) <= 1) for r in rows]),
        "sure": mean([float(r.sure) for r in rows]),
        "sure_within_1": mean([float(abs(r.offset) <= 1) for r in sure]),
        "confidence": mean([r.confidence for r in rows]),
        "distance": mean([r.distance for r in rows]),
    }
