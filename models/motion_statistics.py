"""Mean, spread and pace of windows of motion, and what a map of the motion makes of them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

WINDOW = 100  # frames at 25 Hz, 4 s: a style is read from windows of that length
HOP = 50
LEAST = 1e-5  # of a variance


@dataclass(frozen=True)
class MotionStatistics:
    """Statistics of windows [B] of motion components [T, K].

    Attributes:
        mean: [B, K]; covariance: [B, K, K].
        pace: [B, K, K] covariance of the steps from frame to frame.
    """

    mean: Tensor
    covariance: Tensor
    pace: Tensor

    @classmethod
    def of(cls, components: Tensor, known: Tensor) -> MotionStatistics:
        """From low-passed components [B, T, K] where `known` [B, T] (0 or 1) is 1."""
        pairs = known[:, 1:] * known[:, :-1]
        mean, covariance = _moments(components, known)
        return cls(mean, covariance, _moments(torch.diff(components, dim=1), pairs)[1])

    def moved(self, about: Tensor, shift: Tensor, matrix: Tensor) -> MotionStatistics:
        """Statistics of components x that became about + shift + (x - about) @ matrix.

        Args:
            about, shift: [K]; matrix: [K, K].
        """
        return MotionStatistics(
            about + shift + (self.mean - about) @ matrix,
            matrix.T @ self.covariance @ matrix,
            matrix.T @ self.pace @ matrix,
        )

    def described(self, coupled: int) -> Tensor:
        """Mean, amplitude, speed (logarithms) and correlations of the first `coupled` components,
        [B, 3 K + coupled (coupled - 1) / 2]."""
        deviation, speed = (
            m.diagonal(dim1=1, dim2=2).add(LEAST).sqrt() for m in (self.covariance, self.pace)
        )
        few = deviation[:, :coupled]
        correlation = self.covariance[:, :coupled, :coupled] / (few[:, :, None] * few[:, None])
        row, column = torch.triu_indices(coupled, coupled, 1, device=few.device)
        amplitudes = [2 * (deviation + 0.05).log(), 2 * (speed + 0.02).log() + 2]
        return torch.cat([self.mean, *amplitudes, 2 * correlation[:, row, column]], -1)


def window_starts(frames: int) -> list[int]:
    """First frames of windows of `WINDOW` frames that cover `frames` at steps of `HOP`."""
    starts = list(range(0, max(frames - WINDOW, 0) + 1, HOP))
    if starts[-1] + WINDOW < frames:
        starts.append(frames - WINDOW)
    return starts


def described_size(components: int, coupled: int) -> int:
    """Columns of `MotionStatistics.described`."""
    return 3 * components + coupled * (coupled - 1) // 2


def _moments(x: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """Mean [B, K] and covariance [B, K, K] over time of x [B, T, K] under weights [B, T]."""
    share = (weight / weight.sum(1, keepdim=True).clamp_min(1))[..., None]
    mean = (x * share).sum(1)
    away = x - mean[:, None]
    return mean, away.transpose(1, 2) @ (away * share)
