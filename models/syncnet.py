"""SyncNet's architecture (Chung and Zisserman 2016), for weights of the user's own.

Two streams to one space: five frames of a face, and 0.2 s of sound as MFCC. The module's tree is
that of the published weights. Evaluation only; nothing is trained on it here.
"""

from __future__ import annotations

from torch import Tensor, nn

FRAMES = 5  # pictures of one window
FACE = 224  # px
COEFFICIENTS = 13  # of the MFCC
STEPS = 20  # MFCC steps (10 ms) of one window


def _head(size: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(512, 512), nn.BatchNorm1d(512), nn.ReLU(), nn.Linear(512, size))


class ChungSyncNet(nn.Module):
    """Embeds windows of pictures and of sound; the distance between both tells how they fit."""

    def __init__(self, size: int = 1024):
        super().__init__()
        self.netcnnaud = nn.Sequential(
            nn.Conv2d(1, 64, 3, padding=1), nn.BatchNorm2d(64), nn.ReLU(),
            nn.MaxPool2d(1, 1),
            nn.Conv2d(64, 192, 3, padding=1), nn.BatchNorm2d(192), nn.ReLU(),
            nn.MaxPool2d(3, (1, 2)),
            nn.Conv2d(192, 384, 3, padding=1), nn.BatchNorm2d(384), nn.ReLU(),
            nn.Conv2d(384, 256, 3, padding=1), nn.BatchNorm2d(256), nn.ReLU(),
            nn.Conv2d(256, 256, 3, padding=1), nn.BatchNorm2d(256), nn.ReLU(),
            nn.MaxPool2d(3, 2),
            nn.Conv2d(256, 512, (5, 4)), nn.BatchNorm2d(512), nn.ReLU(),
        )  # fmt: skip
        self.netfcaud = _head(size)
        self.netfclip = _head(size)
        self.netcnnlip = nn.Sequential(
            nn.Conv3d(3, 96, (5, 7, 7), (1, 2, 2)), nn.BatchNorm3d(96), nn.ReLU(),
            nn.MaxPool3d((1, 3, 3), (1, 2, 2)),
            nn.Conv3d(96, 256, (1, 5, 5), (1, 2, 2), (0, 1, 1)), nn.BatchNorm3d(256), nn.ReLU(),
            nn.MaxPool3d((1, 3, 3), (1, 2, 2), (0, 1, 1)),
            nn.Conv3d(256, 256, (1, 3, 3), padding=(0, 1, 1)), nn.BatchNorm3d(256), nn.ReLU(),
            nn.Conv3d(256, 256, (1, 3, 3), padding=(0, 1, 1)), nn.BatchNorm3d(256), nn.ReLU(),
            nn.Conv3d(256, 256, (1, 3, 3), padding=(0, 1, 1)), nn.BatchNorm3d(256), nn.ReLU(),
            nn.MaxPool3d((1, 3, 3), (1, 2, 2)),
            nn.Conv3d(256, 512, (1, 6, 6)), nn.BatchNorm3d(512), nn.ReLU(),
        )  # fmt: skip
        self.requires_grad_(False)

    def sound(self, mfcc: Tensor) -> Tensor:
        """[B, 1, 13, 20] MFCC -> [B, size]."""
        out: Tensor = self.netfcaud(self.netcnnaud(mfcc).flatten(1))
        return out

    def face(self, pictures: Tensor) -> Tensor:
        """[B, 3, 5, 224, 224] BGR 0..255 -> [B, size]."""
        out: Tensor = self.netfclip(self.netcnnlip(pictures).flatten(1))
        return out
