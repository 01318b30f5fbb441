"""Level of speech: how loud it is where it is loud, and the gain to a common level."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

LEVEL_FRAME = 512  # samples, 32 ms at 16 kHz
PART = 8192 * LEVEL_FRAME  # samples that are copied at a time, about four minutes
ACTIVE_SHARE = 0.99  # quantile of the frames' levels that counts as the level of the speech
SILENCE_RMS = 1e-5  # -100 dBFS: what is weaker is silence and gets no gain
TARGET_RMS = 0.1  # -20 dBFS
MAX_GAIN = 1000.0  # 60 dB


def frame_levels(samples: Tensor) -> Tensor:
    """RMS of [N] samples per frame of 32 ms: [ceil(N / 512)] float32; the last is filled up with
    zeros."""
    levels = [torch.zeros(0, device=samples.device)]
    for start in range(0, samples.numel(), PART):
        part = samples[start : start + PART].float()
        count = -(-part.numel() // LEVEL_FRAME)
        filled = F.pad(part, (0, count * LEVEL_FRAME - part.numel()))
        levels.append(filled.view(count, LEVEL_FRAME).square().mean(dim=1).sqrt())
    return torch.cat(levels)


def quantile(values: Tensor, share: float) -> float:
    """The member of [n] values, n > 0, below which `share` (0..1) of the others lie."""
    rank = round(share * (values.numel() - 1))
    return float(values.kthvalue(rank + 1).values)


def active_rms(samples: Tensor) -> float:
    """RMS of the loud frames of [N] samples (full scale 1.0): the 99 % quantile over frames of
    32 ms, so that a single click does not set it and pauses do not lower it."""
    if samples.numel() == 0:
        return 0.0
    return quantile(frame_levels(samples), ACTIVE_SHARE)


def is_silent(samples: Tensor) -> bool:
    """Whether [N] samples hold nothing above -100 dBFS, measured by `active_rms`."""
    return active_rms(samples) < SILENCE_RMS


def level_gain(samples: Tensor) -> float:
    """The factor, at most 60 dB, that brings [N] samples to -20 dBFS where they are loud; 1 for
    silence."""
    level = active_rms(samples)
    return 1.0 if level < SILENCE_RMS else min(TARGET_RMS / level, MAX_GAIN)
