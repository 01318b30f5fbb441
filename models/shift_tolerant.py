"""ST-LPIPS: perceptual distance that forgives a shift by a pixel (evaluation only).

Kettunen's LPIPS on an AlexNet trunk whose pooling is low-pass filtered and whose first layer keeps
every pixel (Ghildyal and Liu, "Shift-tolerant perceptual similarity metric", ECCV 2022).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

CHANNELS = (64, 192, 384, 256, 256)
EPSILON = 1e-10


class BlurPool(nn.Module):
    """Every second pixel after a binomial 3 x 3 filter, the border reflected two pixels wide."""

    filt: Tensor

    def __init__(self, channels: int):
        super().__init__()
        row = torch.tensor([1.0, 2.0, 1.0])
        kernel = torch.outer(row, row) / 16
        self.register_buffer("filt", kernel.expand(channels, 1, 3, 3).clone())

    def forward(self, x: Tensor) -> Tensor:
        padded = F.pad(x, (2, 2, 2, 2), mode="reflect")
        return F.conv2d(padded, self.filt, stride=2, groups=x.shape[1])


class ShiftTolerantDistance(nn.Module):
    """Distance of pictures; the module's tree follows the published weights (vST0.0, AlexNet)."""

    shift: Tensor
    scale: Tensor

    def __init__(self) -> None:
        super().__init__()
        a, b, c, d, e = CHANNELS
        self.slices = nn.ModuleList(
            [
                nn.Sequential(nn.Conv2d(3, a, 11, 1, 2), BlurPool(a), nn.ReLU()),
                nn.Sequential(
                    nn.MaxPool2d(3, 1), BlurPool(a), nn.Conv2d(a, b, 5, padding=2), nn.ReLU()
                ),
                nn.Sequential(
                    nn.MaxPool2d(3, 1), BlurPool(b), nn.Conv2d(b, c, 3, padding=1), nn.ReLU()
                ),
                nn.Sequential(nn.Conv2d(c, d, 3, padding=1), nn.ReLU()),
                nn.Sequential(nn.Conv2d(d, e, 3, padding=1), nn.ReLU()),
            ]
        )
        self.weights = nn.ParameterList([nn.Parameter(torch.ones(1, n, 1, 1)) for n in CHANNELS])
        self.register_buffer("shift", torch.tensor([-0.030, -0.088, -0.188]).view(1, 3, 1, 1))
        self.register_buffer("scale", torch.tensor([0.458, 0.448, 0.450]).view(1, 3, 1, 1))
        self.requires_grad_(False)

    def features(self, pictures: Tensor) -> list[Tensor]:
        """[B, 3, H, W] RGB in 0..1 -> five maps of unit-length features."""
        x = (2 * pictures - 1 - self.shift) / self.scale
        found = []
        for part in self.slices:
            x = part(x)
            found.append(x / (x.square().sum(1, keepdim=True).sqrt() + EPSILON))
        return found

    def compare(self, a: list[Tensor], b: list[Tensor]) -> Tensor:
        """Distance [B] of two results of `features`; one of them may hold a single picture."""
        parts = [
            ((x - y).square() * w).sum(1).mean((1, 2))
            for x, y, w in zip(a, b, self.weights, strict=True)
        ]
        return torch.stack(parts).sum(0)

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        """Distance [B] of pictures [B, 3, H, W] in 0..1; 0 for equal ones."""
        return self.compare(self.features(a), self.features(b))
