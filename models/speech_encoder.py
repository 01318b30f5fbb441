"""Speech encoder E_aud (paper section 3.1): log-mel in, 50 Hz hidden states out.

The design is that of Whisper-tiny's audio encoder (two temporal convolutions, then pre-norm
transformer layers), so that its published weights give a start. Two things differ from the
published model: the input may have any length up to 30 s (no padding to 30 s), and the position
code is computed when it is needed, not stored in the checkpoint.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn


@dataclass(frozen=True)
class SpeechEncoderConfig:
    """Dimensions of a `SpeechEncoder`; stored beside its weights so that loading needs no guess."""

    mel_bins: int = 80  # rows of the log-mel input
    width: int = 384  # channels of every hidden state
    heads: int = 6  # attention heads per layer; divides width
    layers: int = 4  # transformer layers
    ffn_width: int = 1536  # hidden units of each feed-forward block
    frozen_layers: int = 2  # layers that `lower` runs: kept fixed (and cached) in fine-tuning
    max_frames: int = 1500  # longest input in 50 Hz frames (30 s)
    places: int = 400  # positions whose mean state is known, see `standardise`

    def __post_init__(self) -> None:
        if self.width % self.heads or self.width % 2:
            raise ValueError(f"width {self.width} must be even and divisible by heads {self.heads}")
        if not 0 <= self.frozen_layers <= self.layers:
            raise ValueError(f"frozen_layers {self.frozen_layers} is not within 0..{self.layers}")


def sinusoidal_positions(
    frames: int, width: int, device: torch.device | None = None, first: int = 0
) -> Tensor:
    """Position code [frames, width], float32, of the positions from `first` on: sines in the first
    half of the channels, cosines in the second, wavelengths from 2 pi to 20000 pi frames."""
    half = width // 2
    step = math.log(10000.0) / max(half - 1, 1)
    rates = torch.exp(-step * torch.arange(half, device=device, dtype=torch.float32))
    times = torch.arange(first, first + frames, device=device, dtype=torch.float32)
    phase = times[:, None] * rates[None, :]
    return torch.cat([phase.sin(), phase.cos()], dim=1)


class SpeechAttention(nn.Module):
    """Full self-attention over time; q, k and v share one projection."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """[B, T, width] -> [B, T, width]."""
        batch, frames, width = x.shape
        qkv = self.qkv(x).view(batch, frames, 3, self.heads, width // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(q, k, v)
        mixed = mixed.transpose(1, 2).reshape(batch, frames, width)
        result: Tensor = self.out(mixed)
        return result


class SpeechEncoderLayer(nn.Module):
    """Pre-norm transformer layer: attention and GELU feed-forward, each added to the stream."""

    def __init__(self, config: SpeechEncoderConfig) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(config.width)
        self.attention = SpeechAttention(config.width, config.heads)
        self.ffn_norm = nn.LayerNorm(config.width)
        self.ffn_in = nn.Linear(config.width, config.ffn_width)
        self.ffn_out = nn.Linear(config.ffn_width, config.width)

    def forward(self, x: Tensor) -> Tensor:
        """[B, T, width] -> [B, T, width]."""
        x = x + self.attention(self.attention_norm(x))
        x = x + self.ffn_out(F.gelu(self.ffn_in(self.ffn_norm(x))))
        return x


class SpeechEncoder(nn.Module):
    """Log-mel [B, mel_bins, M] -> hidden states [B, T50, width] with T50 = ceil(M / 2).

    The mel comes at 100 Hz (`dubbing.speech.mel.log_mel`), the states at 50 Hz. State k of the
    convolutions looks symmetrically around mel frame 2 k. The state "after layer n" is the
    residual stream, except after the last layer, where the final layer norm is applied (that is
    what the pretrained model hands on).

    Positions are absolute and stay visible in the states: the same sound at another place in the
    input gives states that differ in a few channels more than sounds do. Whoever trains on short
    clips should draw `position_offset` at random, so that what follows learns to ignore it.
    """

    def __init__(self, config: SpeechEncoderConfig | None = None) -> None:
        super().__init__()
        self.config = config or SpeechEncoderConfig()
        width = self.config.width
        self.conv1 = nn.Conv1d(self.config.mel_bins, width, 3, padding=1)
        self.conv2 = nn.Conv1d(width, width, 3, stride=2, padding=1)
        self.layers = nn.ModuleList(
            SpeechEncoderLayer(self.config) for _ in range(self.config.layers)
        )
        self.final_norm = nn.LayerNorm(width)
        self.place_mean: Tensor
        self.deviation: Tensor
        self.register_buffer("place_mean", torch.zeros(self.config.places, 2 * width))
        self.register_buffer("deviation", torch.ones(2 * width))

    def standardise(self, features: Tensor) -> Tensor:
        """What the sound adds to the states, without what their position says.

        A quarter of what the states vary by is their absolute position: it is the same for every
        sound, so its mean over many sounds is taken off, and each channel divided by its deviation.

        Args:
            features: [..., n, 2 width], the states after `frozen_layers` and after the last layer
                at the positions 0..n-1; beyond `places` the last known mean is taken.
        """
        places = torch.arange(features.shape[-2], device=features.device)
        mean = self.place_mean[places.clamp_max(len(self.place_mean) - 1)]
        return (features - mean.to(features.dtype)) / self.deviation.to(features.dtype)

    def forward(
        self, mel: Tensor, hidden_layers: Sequence[int] = (2, 4), position_offset: int = 0
    ) -> dict[int, Tensor]:
        """Hidden states after the layers asked for.

        Args:
            mel: [B, mel_bins, M], M at most 2 * max_frames; values about -1..1.5.
            hidden_layers: layer numbers in 0..layers; 0 is the input of the first layer.
            position_offset: position of the first 50 Hz frame, 0 or more.

        Returns:
            {layer number: [B, ceil(M / 2), width]}, in the order asked for; the last layer's is
            normalised by the final layer norm.

        Raises:
            ValueError: wrong shape, input (with its offset) too long, or a layer that does not
                exist.
        """
        self._check_layers(hidden_layers, first=0)
        return self._run_layers(self._embed(mel, position_offset), 0, hidden_layers)

    def lower(self, mel: Tensor, position_offset: int = 0) -> Tensor:
        """The frozen part: [B, mel_bins, M] -> state after layer `frozen_layers`, [B, T50, width].

        With `upper` it gives the same states as `forward`; it can be computed once and cached.
        """
        x = self._embed(mel, position_offset)
        for layer in self.layers[: self.config.frozen_layers]:
            x = layer(x)
        return x

    def upper(self, hidden: Tensor, hidden_layers: Sequence[int] = (2, 4)) -> dict[int, Tensor]:
        """The rest: what `lower` returned -> the same dictionary as `forward`.

        Raises:
            ValueError: a layer below `frozen_layers` was asked for.
        """
        self._check_layers(hidden_layers, first=self.config.frozen_layers)
        return self._run_layers(hidden, self.config.frozen_layers, hidden_layers)

    def upper_parameters(self) -> list[nn.Parameter]:
        """Parameters that `upper` uses: those to fine-tune when `lower` is frozen."""
        return [
            *self.layers[self.config.frozen_layers :].parameters(),
            *self.final_norm.parameters(),
        ]

    def _embed(self, mel: Tensor, position_offset: int) -> Tensor:
        if mel.dim() != 3 or mel.shape[1] != self.config.mel_bins or mel.shape[2] == 0:
            raise ValueError(
                f"expected a log-mel [B, {self.config.mel_bins}, M], got {list(mel.shape)}"
            )
        frames = (mel.shape[2] + 1) // 2
        if position_offset < 0 or position_offset + frames > self.config.max_frames:
            raise ValueError(
                f"{frames} frames from position {position_offset} are outside the "
                f"{self.config.max_frames} positions of the encoder; cut the audio into windows"
            )
        x = F.gelu(self.conv1(mel))
        x = F.gelu(self.conv2(x)).transpose(1, 2)
        positions = sinusoidal_positions(frames, self.config.width, x.device, position_offset)
        return x + positions.to(x.dtype)

    def _run_layers(self, x: Tensor, done: int, wanted: Sequence[int]) -> dict[int, Tensor]:
        """Run the layers after number `done` up to the last one wanted."""
        states = {done: x}
        for number in range(done + 1, max(wanted) + 1):
            x = self.layers[number - 1](x)
            states[number] = x
        if self.config.layers in wanted:
            states[self.config.layers] = self.final_norm(states[self.config.layers])
        return {number: states[number] for number in wanted}

    def _check_layers(self, wanted: Sequence[int], first: int) -> None:
        if not wanted or min(wanted) < first or max(wanted) > self.config.layers:
            raise ValueError(
                f"hidden_layers {tuple(wanted)} must be within {first}..{self.config.layers}"
            )
