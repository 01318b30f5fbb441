"""What of a motion's statistics shows who speaks: a linear code of them, learned by contrast."""

from __future__ import annotations

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, nn

from dubbing.models.motion_basis import MotionBasis
from dubbing.models.motion_statistics import MotionStatistics, described_size


@dataclass(frozen=True)
class StyleMetricConfig:
    """Sizes of the style metric; stored in its checkpoint."""

    lower_vertices: int = 177  # L
    components: int = 16  # K directions of motion that are looked at
    coupled: int = 16  # of them, the largest, whose correlations are looked at
    code_size: int = 64  # D
    dropout: float = 0.1
    rate: float = 25.0  # Hz of the motion
    half_response: float = 6.0  # Hz at which the low-pass filter lets one half through


class StyleMetric(MotionBasis):
    """Statistics of lower-face motion -> unit code [B, D] of the speaker's style.

    The engine brings made motion to the speaker's style with it (`dubbing.style_match`). The style
    encoder behind StyleSim is another network, which judges: it looks at the course of the motion
    too, and neither is trained with the other.
    """

    def __init__(self, config: StyleMetricConfig):
        super().__init__(
            config.lower_vertices, config.components, config.rate, config.half_response
        )
        self.config = c = config
        self.out = nn.Sequential(
            nn.Dropout(c.dropout), nn.Linear(described_size(c.components, c.coupled), c.code_size)
        )

    def forward(self, motion: Tensor, mask: Tensor | None = None) -> Tensor:
        """Unit codes [B, D] of motion [B, T, L, 3] at 25 Hz where `mask` [B, T] holds; windows of
        1 to 6 s."""
        return self.encode(self.components(motion), mask)

    def encode(self, components: Tensor, mask: Tensor | None = None) -> Tensor:
        """`forward` from `components` [B, T, K] on."""
        known = components.new_ones(components.shape[:2]) if mask is None else mask.to(components)
        return self.code(MotionStatistics.of(self.smooth(components, known), known))

    def code(self, statistics: MotionStatistics) -> Tensor:
        """`forward` from the statistics of low-passed components on."""
        code = self.out(statistics.described(self.config.coupled))
        return F.normalize(code, dim=-1)
