"""What a sync expert sees of a clip: plain, or lightly disturbed for training."""

from __future__ import annotations

from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from dubbing.geometry.morphable import MorphableModel
from dubbing.training.sync_data import mirror_map

MOTION_NOISE = 0.08  # deviations of expression
MOTION_GAIN = 0.2  # octave-like: people open their mouths by exp(+-0.2) times as much
SOUND_TONE = 0.15  # deviations of a channel; see `disturb_sound`
HIDDEN_SHARE = 0.3  # of the windows in which a short stretch of sound is hidden
CUT_SIZE = 0.12  # mouths are cut exp(+-0.12) times as large
CUT_SHIFT = 0.08  # of half the picture
CUT_ROLL = 0.1  # radians
CUT_GAMMA = 0.3
CUT_NOISE = 0.03
BLUR_SHARE = 0.2
WRONG_SIZE = (0.7, 2.0)  # octaves
SMALLER_SHARE = 0.7  # lips that move too little are the likelier fault
HIDDEN_FRAMES = 10  # its length at 50 Hz


class View(Protocol):
    """How a clip's `mouth` becomes what the net's `motion` takes."""

    def plain(self, mouth: Tensor) -> Tensor:
        """[B, T, ...] as stored -> [B, T, ...] as the net takes it."""
        ...

    def disturbed(self, mouth: Tensor) -> Tensor:
        """The same, at random a little different."""
        ...


class MotionView:
    """Expressions [B, T, E] to displacements of the lower vertices [B, T, L, 3]."""

    def __init__(self, model: MorphableModel, seed: int):
        self.index = model.lower.gt(0).nonzero()[:, 0]
        self.basis = model.expression[:, self.index]
        self.mirror = mirror_map(model.mean, self.index)
        self.generator = torch.Generator().manual_seed(seed)

    def plain(self, mouth: Tensor) -> Tensor:
        return torch.einsum("bte,elc->btlc", mouth.float(), self.basis)

    def disturbed(self, mouth: Tensor) -> Tensor:
        """Noise of the tracker, another size of movement, another smoothness, mirrored."""

        def rand(*size: int) -> Tensor:
            return torch.rand(*size, generator=self.generator)

        rows = len(mouth)
        noise = torch.randn(mouth.shape, generator=self.generator)
        beta = mouth.float() + noise * MOTION_NOISE * rand(rows, 1, 1)
        side = rand(rows, 1, 1) * 0.3 * (rand(rows, 1, 1) < 0.5)
        before = torch.cat([beta[:, :1], beta[:, :-1]], 1)
        after = torch.cat([beta[:, 1:], beta[:, -1:]], 1)
        beta = beta * (1 - 2 * side) + (before + after) * side
        beta = beta * ((2 * rand(rows, 1, 1) - 1) * MOTION_GAIN).exp()
        lower = self.plain(beta)
        flipped = lower[:, :, self.mirror] * torch.tensor([-1.0, 1.0, 1.0])
        return torch.where(rand(rows, 1, 1, 1) < 0.5, flipped, lower)


class PictureView:
    """Stored mouths [B, T, H, W] uint8 to grey 0..1."""

    def __init__(self, seed: int):
        self.generator = torch.Generator().manual_seed(seed)

    def plain(self, mouth: Tensor) -> Tensor:
        return mouth.float() / 255

    def disturbed(self, mouth: Tensor) -> Tensor:
        """Moved, turned, of another size, mirrored, of another light and contrast, blurred or with
        noise; the same for all frames of a window."""
        rows = len(mouth)

        def spread(reach: float) -> Tensor:
            return (2 * torch.rand(rows, generator=self.generator) - 1) * reach

        grey = self.plain(mouth)
        side = torch.where(spread(1) < 0, -1.0, 1.0)
        scale, roll = spread(CUT_SIZE).exp(), spread(CUT_ROLL)
        ratio = mouth.shape[2] / mouth.shape[3]  # grid_sample counts both axes from -1 to 1
        across = torch.stack([side * scale * roll.cos(), -scale * roll.sin() * ratio,
                              spread(CUT_SHIFT)], 1)  # fmt: skip
        below = torch.stack([side * scale * roll.sin() / ratio, scale * roll.cos(),
                             spread(CUT_SHIFT)], 1)  # fmt: skip
        grid = F.affine_grid(torch.stack([across, below], 1), [rows, 1, *mouth.shape[2:]],
                             align_corners=False)  # fmt: skip
        grey = F.grid_sample(grey, grid, padding_mode="border", align_corners=False)
        for row in (spread(1) > 1 - 2 * BLUR_SHARE).nonzero()[:, 0].tolist():
            grey[row] = F.avg_pool2d(grey[row], 3, 1, 1, count_include_pad=False)
        gamma = spread(CUT_GAMMA).exp()[:, None, None, None]
        grey = grey.clamp(1e-3, 1) ** gamma
        noise = spread(CUT_NOISE).abs()[:, None, None, None]
        return (grey + noise * torch.randn(grey.shape, generator=self.generator)).clamp(0, 1)


def disturb_sound(audio: Tensor, deviation: Tensor) -> Tensor:
    """Features [B, 2 T, A] with another tone (a constant per channel, in units of the channels'
    deviation [A]), and now and then a short stretch hidden."""
    rows, time = audio.shape[:2]
    out = audio + torch.randn(rows, 1, audio.shape[2]) * deviation * SOUND_TONE
    for row in (torch.rand(rows) < HIDDEN_SHARE).nonzero()[:, 0].tolist():
        start = int(torch.randint(0, max(time - HIDDEN_FRAMES, 1), ()))
        out[row, start : start + HIDDEN_FRAMES] = out[row].mean(0)
    return out


def wrong_sizes(rows: int) -> Tensor:
    """Factors [rows] at random by which motion becomes clearly too small or too large."""
    size = (WRONG_SIZE[0] + (WRONG_SIZE[1] - WRONG_SIZE[0]) * torch.rand(rows)).exp2()
    return torch.where(torch.rand(rows) < SMALLER_SHARE, 1 / size, size)
