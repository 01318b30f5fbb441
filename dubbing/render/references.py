"""Which frames serve as references (paper section 3.2)."""

from __future__ import annotations

import random
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

N_FACE = 5  # face references, training and inference
N_LIP_TRAINING = 5
N_LIP = 25  # at inference: attention takes any number


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
