"""Gaussian blur of maps and pictures, where no gradient is wanted."""

from __future__ import annotations

import cv2
import numpy as np
import torch
from torch import Tensor

from dubbing.models.renderer import blurred


def smoothed(maps: Tensor, sigma: float) -> Tensor:
    """`blurred` of [B, C, H, W], by OpenCV's filters on the CPU."""
    if maps.device.type != "cpu" or maps.requires_grad:
        return blurred(maps, sigma)
    size = 2 * max(int(3 * sigma + 0.5), 1) + 1
    planes = maps.float().contiguous().flatten(0, 1).numpy()
    out = np.empty_like(planes)
    for plane, made in zip(planes, out, strict=True):
        cv2.GaussianBlur(plane, (size, size), sigma, made, sigma, cv2.BORDER_REPLICATE)
    return torch.from_numpy(out).view(maps.shape)
