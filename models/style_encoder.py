"""Style encoder of the StyleSim figure: lower-face motion to a code of the manner of speaking.

The paper measures style by the cosine of codes of expression-only vertices from a separately
trained encoder (design after DiffPoseTalk's: a transformer over motion, trained by contrast). It is
a ruler, not a part of the engine: nothing that it judges is trained with it.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dubbing.models.motion_basis import MotionBasis
from dubbing.models.motion_statistics import MotionStatistics, described_size


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


class StyleEncoder(MotionBasis):
    """Motion of the lower face [B, T, L, 3] -> unit code [B, D].

    Steps: projection on the main directions of speech motion and a low-pass filter (both take away
    landmark noise, by which cameras and clips could be told apart), convolutions that halve the
    rate, transformer layers, statistics over time. The layers get no time code: beyond the 0.4 s
    that the convolutions see, the order of movements is the words, not the manner. Besides the
    layers' output, amplitudes, speeds and correlations of the components themselves go into the
    code (ours): with few speakers to learn from they carry over to unseen ones well.
    """

    def __init__(self, config: StyleEncoderConfig):
        super().__init__(
            config.lower_vertices, config.components, config.rate, config.half_response
        )
        self.config = c = config
        self.first = nn.Conv1d(2 * c.components + 1, c.width, 5, padding=2)
        self.halve = nn.Conv1d(c.width, c.width, 5, stride=2, padding=2)
        layer = nn.TransformerEncoderLayer(
            c.width, c.heads, 3 * c.width, c.dropout, "gelu", batch_first=True, norm_first=True
        )
        self.layers = nn.TransformerEncoder(layer, c.layers, enable_nested_tensor=False)
        self.norm = nn.LayerNorm(c.width)
        plain = described_size(c.components, c.coupled)
        self.out = nn.Sequential(nn.Dropout(c.dropout), nn.Linear(2 * c.width + plain, c.code_size))

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
        plain = MotionStatistics.of(found, known).described(self.config.coupled)
        code = self.out(torch.cat([*_statistics(x, seen.to(x)), plain], -1))
        return F.normalize(code, dim=-1)


def _statistics(x: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and deviation [B, C] over time of x [B, T, C] under weights [B, T]."""
    share = (weight / weight.sum(1, keepdim=True).clamp_min(1))[..., None]
    mean = (x * share).sum(1)
    deviation = ((x - mean[:, None]).square() * share).sum(1).add(1e-5).sqrt()
    return mean, deviation
