"""The main directions of speech motion, and a low-pass filter: what a style is read from."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

SMOOTHING_REACH = 4  # frames on either side that the low-pass filter looks at


class MotionBasis(nn.Module):
    """Projection on the main directions of speech motion and a low-pass filter: both take away
    landmark noise, by which cameras and clips could be told apart.

    Args:
        lower_vertices: L; components: K directions that are looked at.
        rate: Hz of the motion; half_response: Hz at which the filter lets one half through.

    Raises:
        ValueError: a rate that is not above zero.

    Buffers (set by the builder, stored in the checkpoint): `basis` [3 L, K], scaled so that each
    component of real speech has a mean square of 1; `lower` [L] vertex indices.
    """

    basis: Tensor
    lower: Tensor
    kernel: Tensor

    def __init__(self, lower_vertices: int, components: int, rate: float, half_response: float):
        super().__init__()
        if not (0 < rate < math.inf and 0 < half_response < math.inf):
            raise ValueError(f"no filter of {half_response} Hz for motion at {rate} Hz")
        self.register_buffer("basis", torch.zeros(3 * lower_vertices, components))
        self.register_buffer("lower", torch.zeros(lower_vertices, dtype=torch.int64))
        deviation = math.sqrt(math.log(2) / 2) / (math.pi * half_response) * rate
        steps = torch.arange(-SMOOTHING_REACH, SMOOTHING_REACH + 1).float()
        kernel = torch.exp(-0.5 * (steps / deviation).square())
        self.register_buffer("kernel", kernel / kernel.sum(), persistent=False)

    def set_motion(self, lower: Tensor, motion: Tensor) -> None:
        """Fill the buffers from real motion.

        Args:
            lower: [L] vertex indices; motion: [N, L, 3] displacements from the template.
        """
        flat = motion.flatten(1).double()
        power, directions = torch.linalg.eigh(flat.T @ flat / len(flat))
        kept = slice(-self.basis.shape[1], None)
        scale = power[kept].clamp_min(1e-12).sqrt()
        self.basis.copy_((directions[:, kept] / scale).flip(1))
        self.lower.copy_(lower)

    def components(self, motion: Tensor) -> Tensor:
        """Motion [..., L, 3] as components [..., K], each about 1 in size."""
        return motion.flatten(-2) @ self.basis

    def smooth(self, components: Tensor, known: Tensor) -> Tensor:
        """Low-passed components [B, T, K], zero where `known` [B, T] (0 or 1) is 0."""
        both = torch.cat([components * known[..., None], known[..., None]], -1).transpose(1, 2)
        kernel = self.kernel.expand(both.shape[1], 1, -1)
        both = F.conv1d(both, kernel, padding=SMOOTHING_REACH, groups=both.shape[1]).transpose(1, 2)
        return both[..., :-1] / both[..., -1:].clamp_min(1e-6) * known[..., None]
