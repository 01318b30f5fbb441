"""Stage 1: style-aware geometry construction (paper section 3.1).

Speech features and a style embedding drive the speaker's template face; only lower-face vertices
are generated. All vertices are canonical (no head pose), in the unit of the morphable model.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# Displacements and shape differences are a few hundredths of the face: bring them to about 1.
VERTEX_SCALE = 20.0
OWN, HUBERT = "own", "hubert"  # kinds of speech features


@dataclass(frozen=True)
class GeometryNetConfig:
    """Sizes of the stage-1 network; stored in its checkpoint."""

    vertices: int = 468
    lower_vertices: int = 170  # generated ones (idx_low)
    audio_size: int = 768  # channels of the speech features
    width: int = 192  # D of the paper
    heads: int = 6
    layers: int = 4  # self-attention layers after the template
    groups: int = 9  # template tokens
    expression_size: int = 48  # inner width of the vertex decoder
    dropout: float = 0.1
    features: str = "own"  # speech features it was trained on: "own" (our encoder) or "hubert"


def rotate(x: Tensor) -> Tensor:
    """Rotary time code on [B, H, T, C]: attention then sees time differences, not times."""
    time, half = x.shape[-2], x.shape[-1] // 2
    rates = 0.3 ** torch.arange(half, device=x.device, dtype=torch.float32).mul(4.0 / half)
    phase = torch.arange(time, device=x.device, dtype=torch.float32)[:, None] * rates
    sin, cos = phase.sin().to(x.dtype), phase.cos().to(x.dtype)
    a, b = x[..., :half], x[..., half:]
    return torch.cat([a * cos - b * sin, a * sin + b * cos], -1)


class TimeAttention(nn.Module):
    """Multi-head attention over time, biased to the neighbourhood of the query's own time.

    The bias is -slope * |t - t'| in frames, with slopes from 1/2 down to 1/64 per head, and
    nothing farther than `reach` frames is seen: a result depends on a bounded stretch of audio,
    so that windows of a long recording can be joined without a seam.
    """

    def __init__(self, width: int, heads: int, dropout: float, reach: int = 50):
        super().__init__()
        self.heads, self.dropout, self.reach = heads, dropout, reach
        self.slopes: Tensor
        self.query = nn.Linear(width, width)
        self.key_value = nn.Linear(width, 2 * width)
        self.out = nn.Linear(width, width)
        self.register_buffer(
            "slopes", 2.0 ** -torch.linspace(1, 6, heads)[:, None, None], persistent=False
        )

    def forward(self, query: Tensor, source: Tensor, mask: Tensor | None = None) -> Tensor:
        """query, source [B, T, D] -> [B, T, D]; mask [B, T] is False where source is padding."""
        batch, time, width = query.shape
        split = (batch, time, self.heads, width // self.heads)
        q = rotate(self.query(query).view(split).transpose(1, 2))
        k, v = self.key_value(source).chunk(2, -1)
        k = rotate(k.view(split).transpose(1, 2))
        v = v.view(split).transpose(1, 2)
        steps = torch.arange(time, device=query.device)
        distance = (steps[:, None] - steps[None]).abs()
        bias = -self.slopes * distance
        bias = bias.masked_fill(distance > self.reach, -1e4)[None]
        if mask is not None:
            bias = bias.masked_fill(~mask[:, None, None, :], -1e4)
        dropout = self.dropout if self.training else 0.0
        mixed = F.scaled_dot_product_attention(
            q, k, v, bias.expand(batch, -1, -1, -1).to(q.dtype), dropout
        )
        joined: Tensor = self.out(mixed.transpose(1, 2).reshape(batch, time, width))
        return joined


class SelfLayer(nn.Module):
    """Pre-norm self-attention layer over time."""

    def __init__(self, width: int, heads: int, dropout: float):
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention = TimeAttention(width, heads, dropout)
        self.feed = nn.Sequential(
            nn.Linear(width, 3 * width), nn.GELU(), nn.Dropout(dropout), nn.Linear(3 * width, width)
        )

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """[B, T, D] -> [B, T, D]."""
        y = self.norm1(x)
        x = x + self.attention(y, y, mask)
        change: Tensor = self.feed(self.norm2(x))
        return x + change


class VertexEncoder(nn.Module):
    """E_vtx: fully connected, one face [..., V, 3] to D numbers."""

    def __init__(self, vertices: int, width: int):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(3 * vertices, width), nn.GELU(), nn.Linear(width, width))

    def forward(self, vertices: Tensor) -> Tensor:
        """Displacements or shape differences [..., V, 3] -> [..., D]."""
        code: Tensor = self.net(vertices.flatten(-2) * VERTEX_SCALE)
        return code


class GeometryNet(nn.Module):
    """Speech features + style + template -> lower-face displacements.

    Buffers (set by the builder, stored in the checkpoint): `mean` [V, 3] of the morphable model,
    `groups` [G, V] 0/1 membership of vertices in template tokens, `lower` [L] vertex indices,
    `average_style` [D] mean style embedding of the training speakers.
    """

    mean: Tensor
    groups: Tensor
    lower: Tensor
    average_style: Tensor

    def __init__(self, config: GeometryNetConfig):
        super().__init__()
        self.config = c = config
        self.register_buffer("mean", torch.zeros(c.vertices, 3))
        self.register_buffer("groups", torch.zeros(c.groups, c.vertices))
        self.register_buffer("lower", torch.zeros(c.lower_vertices, dtype=torch.int64))
        self.register_buffer("average_style", torch.zeros(c.width))
        self.audio_in = nn.Sequential(
            nn.LayerNorm(c.audio_size), nn.Linear(c.audio_size, c.width), nn.Dropout(c.dropout)
        )
        self.audio_conv = nn.Conv1d(c.width, c.width, 10, stride=2, padding=4)
        self.vertex_encoder = VertexEncoder(c.vertices, c.width)
        self.style_out = nn.Linear(2 * c.width, c.width)
        self.style_attention = TimeAttention(c.width, c.heads, c.dropout, reach=12)
        self.style_norm = nn.LayerNorm(c.width)
        self.group_code = nn.Parameter(torch.randn(c.groups, c.width) * 0.02)
        self.template_attention = nn.MultiheadAttention(c.width, c.heads, batch_first=True)
        self.template_norm = nn.LayerNorm(c.width)
        self.layers = nn.ModuleList(SelfLayer(c.width, c.heads, c.dropout) for _ in range(c.layers))
        self.out_norm = nn.LayerNorm(c.width)
        self.manner = nn.Linear(c.width, 2 * c.width)
        nn.init.zeros_(self.manner.weight)
        nn.init.zeros_(self.manner.bias)
        self.decoder = nn.Sequential(
            nn.Linear(c.width, c.width),
            nn.GELU(),
            nn.Linear(c.width, c.expression_size),
            nn.Linear(c.expression_size, 3 * c.lower_vertices),
        )

    def set_geometry(self, mean: Tensor, basis: Tensor, lower_weight: Tensor) -> None:
        """Fill the buffers from a morphable model and start D_vtx at its expression basis.

        Args:
            mean: [V, 3]; basis: [E, V, 3]; lower_weight: [V] in 0..1, above 0 for generated ones.
        """
        c = self.config
        self.mean.copy_(mean)
        self.lower.copy_(lower_weight.gt(0).nonzero()[:, 0])
        x, y = mean[:, 0], mean[:, 1]
        column = (x > -0.25).long() + (x > 0.25).long()
        row = (y > 0.0).long() + (y > 0.45).long()
        self.groups.copy_(F.one_hot(row * 3 + column, c.groups).T.to(mean))
        with torch.no_grad():
            rows = basis[: c.expression_size, self.lower].flatten(1) * VERTEX_SCALE
            last = cast(nn.Linear, self.decoder[3])
            last.weight[:, : len(rows)].copy_(rows.T)
            last.bias.zero_()

    def style(self, expression: Tensor, mask: Tensor | None = None) -> Tensor:
        """Style embedding S [B, D]: mean and deviation over time of encoded expressions.

        Args:
            expression: [B, T, V, 3] expression-only vertices ({0, beta, 0}) of any clip of the
                speaker at any rate.
            mask: [B, T] False where padded.
        """
        codes = self.vertex_encoder(expression)
        if mask is None:
            mask = torch.ones(codes.shape[:2], dtype=torch.bool, device=codes.device)
        weight = mask[..., None].to(codes) / mask.sum(1)[:, None, None].clamp_min(1)
        mean = (codes * weight).sum(1)
        deviation = ((codes - mean[:, None]).square() * weight).sum(1).add(1e-6).sqrt()
        style: Tensor = self.style_out(torch.cat([mean, deviation], -1))
        return style

    def blend_style(self, style: Tensor, strength: float) -> Tensor:
        """`style` [B, D] moved from the average speaker (0) to itself (1) or beyond."""
        return self.average_style + strength * (style - self.average_style)

    def forward(
        self, audio: Tensor, style: Tensor, template: Tensor, mask: Tensor | None = None
    ) -> Tensor:
        """Displacements of the lower vertices from the template.

        Args:
            audio: [B, 2 T, A] speech features at 50 Hz, two per frame (`motion.frame_features`).
            style: [B, D] from `style`.
            template: [B, V, 3] the speaker's neutral face.
            mask: [B, T] False where audio is padding.

        Returns:
            [B, T, L, 3] in morphable-model units.
        """
        a = self.audio_in(audio)
        pairs = torch.unflatten(a, 1, (-1, 2)).mean(2)
        a = pairs + F.gelu(self.audio_conv(a.transpose(1, 2))).transpose(1, 2)
        # Style injection: the paper's Q = S would return one token; here S is the query of every
        # frame, told apart by the time code of the attention, and the layer is residual.
        query = style[:, None].expand(-1, a.shape[1], -1)
        x = a + self.style_attention(self.style_norm(query + a), a, mask)
        x = x + style[:, None]
        shape = (template - self.mean)[:, None] * self.groups[None, :, :, None]
        tokens = self.vertex_encoder(shape) + self.group_code
        x = x + self.template_attention(self.template_norm(x), tokens, tokens)[0]
        for layer in self.layers:
            x = layer(x, mask)
        # how much and around which rest the speaker moves: scale and shift by the style
        scale, shift = self.manner(style)[:, None].chunk(2, -1)
        x = self.out_norm(x) * (1 + scale) + shift
        moved: Tensor = self.decoder(x) / VERTEX_SCALE
        return torch.unflatten(moved, -1, (-1, 3))
