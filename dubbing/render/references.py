"""Which frames serve as references (paper section 3.2)."""

from __future__ import annotations

import random
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

N_FACE = 5  # face references, training and inference
N_LIP_TRAINING = 5
N_LIP = 25  # at inference: attention takes any number
N_BANK = 50  # of the whole clip: the nearer the nearest mouth, the less has to be made up


def training_face_references(frame: int, total: int, count: int = N_FACE) -> list[int]:
    """`count` frames evenly spaced in [frame - 2 count, frame + 2 count], cut to the clip."""
    spread = np.linspace(frame - 2 * count, frame + 2 * count, count)
    return [int(k) for k in np.clip(np.round(spread), 0, total - 1)]


def training_lip_references(
    total: int, random_: random.Random, count: int = N_LIP_TRAINING, avoid: Sequence[int] = ()
) -> list[int]:
    """`count` random frames of the whole clip, none of `avoid` while others exist."""
    allowed = sorted(set(range(total)) - set(avoid)) or list(range(total))
    return random_.choices(allowed, k=count)


def inference_face_references(frame: int, total: int, count: int = N_FACE) -> list[int]:
    """The `count` frames centred on `frame`; near an end of the clip those nearest to it."""
    first = min(max(frame - count // 2, 0), max(total - count, 0))
    return [min(first + k, total - 1) for k in range(count)]


def inference_lip_references(
    opening: NDArray[np.floating], count: int = N_LIP, usable: NDArray[np.bool_] | None = None
) -> list[int]:
    """`count` frames taken evenly from all frames in the order of their mouth opening.

    Args:
        opening: [T] pose-free lip opening.
        usable: [T] False for frames that must not serve (turned away, badly tracked).

    Returns:
        frame indices from the least to the most open, the same set for the whole clip; fewer
        where the clip has fewer usable frames.
    """
    order = np.argsort(opening, kind="stable")
    if usable is not None and usable.any():
        order = order[usable[order]]
    picked = np.linspace(0, len(order) - 1, min(count, len(order))).round().astype(int)
    return [int(order[k]) for k in picked]


def covering_lip_references(lips: Tensor, opening: Tensor, count: int = N_BANK) -> list[int]:
    """`count` frames whose mouths come near those of all frames.

    The paper takes them evenly from the order of opening; mouths of one opening differ in width and
    rounding. Ours: the least and the most open mouth, then always the frame by which the sum of all
    frames' distances to their nearest reference falls most.

    Args:
        lips: [T, L, 3] pose-free lips; opening: [T]. Memory grows with the square of T.

    Returns:
        frame indices from the least to the most open; fewer where there are fewer mouths.
    """
    shapes = lips.flatten(1)
    apart = torch.cdist(shapes, shapes, compute_mode="donot_use_mm_for_euclid_dist")
    chosen = [int(opening.argmin()), int(opening.argmax())]
    nearest = apart[chosen].amin(0)
    while len(chosen) < count and bool(nearest.any()):
        gain = (nearest - apart).clamp_min(0).sum(1)
        chosen.append(int(gain.argmax()))
        nearest = torch.minimum(nearest, apart[chosen[-1]])
    return sorted(set(chosen[:count]), key=lambda frame: (float(opening[frame]), frame))
