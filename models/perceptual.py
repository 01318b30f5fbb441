"""Perceptual distance on VGG16 features (training and evaluation only)."""

from __future__ import annotations

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# (channels, convolutions) of VGG16's first three blocks; each block's last output is compared.
BLOCKS = ((64, 2), (128, 2), (256, 3))


class PerceptualLoss(nn.Module):
    """Mean squared distance of unit-normalised features after relu1_2, relu2_2 and relu3_3.

    Weights come from outside (`load_state_dict`); they are fixed.
    """

    mean: Tensor
    deviation: Tensor

    def __init__(self) -> None:
        super().__init__()
        blocks, previous = [], 3
        for width, count in BLOCKS:
            convs = []
            for _ in range(count):
                convs.append(nn.Conv2d(previous, width, 3, padding=1))
                previous = width
            blocks.append(nn.ModuleList(convs))
        self.blocks = nn.ModuleList(blocks)
        self.register_buffer("mean", torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1))
        self.register_buffer("deviation", torch.tensor([0.229, 0.224, 0.225]).view(1, 3, 1, 1))
        self.requires_grad_(False)

    def features(self, x: Tensor) -> list[Tensor]:
        """[B, 3, H, W] RGB in 0..1 -> one feature map per block."""
        x = (x - self.mean) / self.deviation
        out = []
        for k, convs in enumerate(self.blocks):
            if k:
                x = F.max_pool2d(x, 2)
            for conv in cast(nn.ModuleList, convs):
                x = F.relu(conv(x))
            out.append(x)
        return out

    def forward(self, made: Tensor, truth: Tensor) -> Tensor:
        """Distance (scalar) of two batches [B, 3, H, W] in 0..1."""
        with torch.no_grad():
            goal = self.features(truth)
        parts = []
        for a, b in zip(self.features(made), goal, strict=True):
            difference = F.normalize(a, dim=1) - F.normalize(b, dim=1)
            parts.append(difference.square().sum(1).mean())
        return torch.stack(parts).mean()
