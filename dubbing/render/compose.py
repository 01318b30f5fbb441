"""Putting the rendered lower face back: the colour match along the border."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from dubbing.render.smooth import smoothed

GAMMA = 2.2  # of the pictures: code values to the power of it are light
LARGEST = 1.25  # gain in light that a border may ask for; more is not light but another thing
FLOOR = 2e-3  # light: keeps the gain of what is black at 1
BAND = 0.1  # what of 4 m (1 - m) is no border yet: a mask of 0.97 is the inside
STILL = 1.5  # window pixels: where geometry moved farther, border colours tell nothing


def match_colour(made: Tensor, source: Tensor, mask: Tensor, moved: Tensor) -> Tensor:
    """Light a rendered region so that it meets the source along the mask's border.

    The ratio of source and made, in linear light, is read in the border band of the mask where
    geometry has not moved, and continued smoothly inwards. A gain in light is a gain in code
    values too (a power law turns one into the other), so texture keeps its contrast.

    Args:
        made, source: [3, h, w] in 0..1.
        mask: [1, h, w] blending weight.
        moved: [1, h, w] distance in face-window pixels between source and target geometry.

    Returns:
        [3, h, w].
    """
    band = (4 * mask * (1 - mask) - BAND).clamp_min(0)
    trusted = band * torch.exp(-((moved / STILL) ** 2))
    height, width = mask.shape[-2:]
    grid = (max(height // 8, 1), max(width // 8, 1))
    half = F.avg_pool2d(torch.cat([source, made, trusted])[None], 2, ceil_mode=True)
    light, trusted = half[:, :6].clamp(0, 1) ** GAMMA * half[:, 6:], half[:, 6:]
    shrunk = F.interpolate(torch.cat([light, trusted], 1), grid, mode="area")
    wide = smoothed(shrunk, 2.0) + 0.1 * smoothed(shrunk, 6.0)
    floor = FLOOR * (wide[:, 6:] + 1e-3)  # where nothing is trusted the gain is 1
    gain = ((wide[:, :3] + floor) / (wide[:, 3:6] + floor)).clamp(1 / LARGEST, LARGEST)
    gain = F.interpolate(gain ** (1 / GAMMA), (height, width), mode="bilinear", align_corners=False)
    return (made * gain[0]).clamp(0, 1)
