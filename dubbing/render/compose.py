"""Putting the rendered lower face back: colour match and blending weights."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from dubbing.models.renderer import blurred


def match_colour(made: Tensor, source: Tensor, mask: Tensor, moved: Tensor) -> Tensor:
    """Shift the colours of a rendered region so that it meets the source along the mask's border.

    The difference is read in the border band of the mask, where geometry has not moved, and
    continued smoothly inwards.

    Args:
        made, source: [3, h, w] in 0..1.
        mask: [1, h, w] blending weight.
        moved: [1, h, w] distance in face-window pixels between source and target geometry.

    Returns:
        [3, h, w].
    """
    trusted = 4 * mask * (1 - mask) * torch.exp(-((moved / 1.5) ** 2))
    height, width = mask.shape[-2:]
    grid = (max(height // 8, 1), max(width // 8, 1))
    shrunk = F.interpolate(torch.cat([(source - made) * trusted, trusted])[None], grid, mode="area")
    wide = blurred(shrunk, 2.0) + 0.1 * blurred(shrunk, 6.0)
    shift = wide[:, :3] / (wide[:, 3:] + 1e-3)
    shift = F.interpolate(shift, (height, width), mode="bilinear", align_corners=False)[0]
    return (made + shift.clamp(-0.15, 0.15)).clamp(0, 1)
