"""Style encoder of the StyleSim figure: lower-face motion to a code of the manner of speaking.

The paper measures style by the cosine of codes of expression-only vertices from a separately
trained encoder (design after DiffPoseTalk's: a transformer over motion, trained by contrast). It is
a ruler, not a part of the engine: nothing that it judges is trained with it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

SMOOTHING_REACH = 4  # frames on either side that the low-pass filter looks at


@dataclass(frozen=True)
class StyleEncoderConfig:
    """Sizes of the style encoder; stored in its checkpoint."""

    lower_vertices: int = 177  # L
    components: int = 16  # directions of motion that are looked at
    coupled: int = 8  # of them, the largest, whose correlations are looked at
    width: int = 64
    heads: int = 4
    layers: int = 2
    code_size: int = 64  # D
    dropout: float = 0.1
    rate: float = 25.0  # Hz of the motion
    half_response: float = 6.0  # Hz at which the low-pass filter lets one half through


class StyleEncoder(nn.Module):
    """Motion of the lower face [B, T, L, 3] -> unit code [B, D].

    Steps: projection on the main directions of speech motion and a low-pass filter (both take away
    landmark noise, by which cameras and clips could be told apart), convolutions that halve the
    rate, transformer layers, statistics over time. The layers get no time code: beyond the 0.4 s
    that the convolutions see, the order of movements is the words, not the manner. Besides the
    layers' output, amplitudes, speeds and correlations of the components themselves go into the
    code (ours): with few speakers to learn from they carry over to unseen ones well.

    Buffers (set by the builder, stored in the checkpoint): `basis` [3 L, K], scaled so that each
    component of real speech has a mean square of 1; `lower` [L] vertex indices.
    """

    basis: Tensor
    lower: Tensor
    kernel: Tensor

    def __init__(self, config: StyleEncoderConfig):
        super().__init__()
        self.config = c = config
        self.register_buffer("basis", torch.zeros(3 * c.lower_vertices, c.components))
        self.register_buffer("lower", torch.zeros(c.lower_vertices, dtype=torch.int64))
        deviation = math.sqrt(math.log(2) / 2) / (math.pi * c.half_response) * c.rate
        steps = torch.arange(-SMOOTHING_REACH, SMOOTHING_REACH + 1).float()
        kernel = torch.exp(-0.5 * (steps / deviation).square())
        self.register_buffer("kernel", kernel / kernel.sum(), persistent=False)
        self.first = nn.Conv1d(2 * c.components + 1, c.width, 5, padding=2)
        self.halve = nn.Conv1d(c.width, c.width, 5, stride=2, padding=2)
        layer = nn.TransformerEncoderLayer(
            c.width, c.heads, 3 * c.width, c.dropout, "gelu", batch_first=True, norm_first=True
        )
        self.layers = nn.TransformerEncoder(layer, c.layers, enable_nested_tensor=False)
        self.norm = nn.LayerNorm(c.width)
        couplings = c.coupled * (c.coupled - 1) // 2
        self.out = nn.Sequential(
            nn.Dropout(c.dropout),
            nn.Linear(2 * c.width + 3 * c.components + couplings, c.code_size),
        )

    def set_motion(self, lower: Tensor, motion: Tensor) -> None:
        """Fill the buffers from real motion.

        Args:
            lower: [L] vertex indices; motion: [N, L, 3] displacements from the template.
        """
        flat = motion.flatten(1).double()
        power, directions = torch.linalg.eigh(flat.T @ flat / len(flat))
        kept = slice(-self.config.components, None)
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

    def forward(self, motion: Tensor, mask: Tensor | None = None) -> Tensor:
        """Unit style codes.

        Args:
            motion: [B, T, L, 3] displacements of the lower vertices from the template at 25 Hz, in
                the morphable model's unit; windows of 1 to 6 s.
            mask: [B, T] False where the motion is unknown or padding.

        Returns:
            [B, D] of length 1.
        """
        return self.encode(self.components(motion), mask)

    def encode(self, components: Tensor, mask: Tensor | None = None) -> Tensor:
        """`forward` from `components` [B, T, K] on."""
        known = components.new_ones(components.shape[:2]) if mask is None else mask.to(components)
        found = self.smooth(components, known)
        pairs = F.pad(known[:, 1:] * known[:, :-1], (1, 0))
        steps = F.pad(torch.diff(found, dim=1), (0, 0, 1, 0)) * pairs[..., None]
        x = torch.cat([found, 2 * steps, known[..., None]], -1).transpose(1, 2)
        x = F.gelu(self.first(x)) * known[:, None]  # unknown frames are zeros, as beyond the ends
        x = F.gelu(self.halve(x)).transpose(1, 2)
        seen = F.max_pool1d(known[:, None], 2, ceil_mode=True)[:, 0] > 0
        x = self.norm(self.layers(x, src_key_padding_mask=~seen))
        plain = self._plain(found, known, steps, pairs)
        code = self.out(torch.cat([*_statistics(x, seen.to(x)), plain], -1))
        return F.normalize(code, dim=-1)

    def _plain(self, found: Tensor, known: Tensor, steps: Tensor, pairs: Tensor) -> Tensor:
        """Mean, amplitude, speed (logarithms) and correlations of the components, [B, 3 K + C]."""
        mean, deviation = _statistics(found, known)
        speed = _statistics(steps, pairs)[1]
        few = self.config.coupled
        unit = ((found - mean[:, None]) / deviation[:, None])[..., :few] * known[..., None]
        correlation = unit.transpose(1, 2) @ unit / known.sum(1).clamp_min(1)[:, None, None]
        row, column = torch.triu_indices(few, few, 1, device=found.device)
        amplitudes = [2 * (deviation + 0.05).log(), 2 * (speed + 0.02).log() + 2]
        return torch.cat([mean, *amplitudes, 2 * correlation[:, row, column]], -1)


def _statistics(x: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and deviation [B, C] over time of x [B, T, C] under weights [B, T]."""
    share = (weight / weight.sum(1, keepdim=True).clamp_min(1))[..., None]
    mean = (x * share).sum(1)
    deviation = ((x - mean[:, None]).square() * share).sum(1).add(1e-5).sqrt()
    return mean, deviation
