"""Speech features of audio of any length: overlapping windows through the encoder, cross-faded.

The encoder takes at most 30 s and its attention is full, so long audio is cut into windows. Their
outputs are joined with ramps over the overlap, so that no feature comes from the edge of a window
(where context is missing) and nothing jumps where one window hands over to the next.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

import torch
from torch import Tensor

from dubbing.errors import OptionInvalid
from dubbing.models.speech_encoder import SpeechEncoder
from dubbing.speech.mel import log_mel

FEATURE_RATE = 50  # features per second
FEATURE_CENTRE_S = 0.01  # feature k stands for the 20 ms cell that starts at k / 50 s
WINDOW_S = 20.0
OVERLAP_S = 2.0  # on either side of the place where two windows meet
HIDDEN_LAYERS = (2, 4)


class SpeechFeatureExtractor(Protocol):
    """What turns speech into features: `SpeechFeatures`, or HuBERT as the alternative."""

    @property
    def feature_dim(self) -> int:
        """Channels of one feature."""
        ...

    def encode(self, samples: Tensor) -> Tensor:
        """[N] samples at 16 kHz -> [T50, feature_dim] at 50 Hz."""
        ...


def window_spans(total: int, window: int, overlap: int) -> list[tuple[int, int]]:
    """Evenly spaced spans (start, end) of equal length that cover `total` frames.

    Neighbours share at least `2 * overlap` frames. One span if `total` fits into `window`.
    """
    if total <= window:
        return [(0, total)]
    step = window - 2 * overlap
    count = -(-(total - 2 * overlap) // step)
    starts = [round(i * (total - window) / (count - 1)) for i in range(count)]
    return [(start, start + window) for start in starts]


def crossfade(
    pieces: Iterator[tuple[int, Tensor]], total: int, overlap: int, device: torch.device
) -> Tensor:
    """Join overlapping pieces into one sequence.

    Args:
        pieces: (start, [n, D]) in frames; one piece is held at a time.
        total: frames of the result.
        overlap: each inner edge is weighted by a linear ramp over `2 * overlap` frames.
        device: where the result is collected.

    Returns:
        [total, D] float32, the weighted mean of the pieces that cover each frame.
    """
    joined: Tensor | None = None
    weights = torch.zeros(total, 1, device=device)
    for start, piece in pieces:
        end = start + piece.shape[0]
        if joined is None:
            joined = torch.zeros(total, piece.shape[1], device=device)
        ramp = torch.ones(piece.shape[0], device=device)
        rising = (torch.arange(min(2 * overlap, len(ramp)), device=device) + 0.5) / (2 * overlap)
        if start > 0:
            ramp[: len(rising)] *= rising
        if end < total:
            ramp[len(ramp) - len(rising) :] *= rising.flip(0)
        joined[start:end] += piece.to(device, torch.float32) * ramp[:, None]
        weights[start:end] += ramp[:, None]
    if joined is None:
        raise ValueError("no piece to join")
    return joined.div_(weights)


def encode_spans(
    total: int,
    window: int,
    overlap: int,
    encode: Callable[[int, int], Tensor],
    device: torch.device,
) -> Tensor:
    """Run `encode(start, end) -> [end - start, D]` over windows of `total` frames and join them."""
    spans = window_spans(total, window, overlap)
    return crossfade(((start, encode(start, end)) for start, end in spans), total, overlap, device)


def window_frames(window_s: float, overlap_s: float) -> tuple[int, int]:
    """Window and overlap in 50 Hz frames.

    Raises:
        OptionInvalid: the window has no part of its own besides both overlaps.
    """
    window, overlap = round(window_s * FEATURE_RATE), round(overlap_s * FEATURE_RATE)
    if overlap < 1 or window <= 2 * overlap:
        raise OptionInvalid(
            f"a window of {window_s} s can't overlap by {overlap_s} s on either side",
            hint="make the window longer than twice the overlap, and the overlap at least 0.02 s",
        )
    return window, overlap


class SpeechFeatures:
    """Features of one speech track by a `SpeechEncoder`.

    Args:
        encoder: the network; used in evaluation mode on the device where it lies.
        hidden_layers: states to concatenate, in this order.
        window_s: seconds per window, at most 30.
        overlap_s: seconds on either side of the place where two windows meet.

    Audio up to `window_s` is one window, exactly what the encoder gives. Beyond, a feature depends
    on where the windows fall, because the encoder's position code is absolute and each window
    starts at position 0: with the pretrained weights by about a third of what different sounds
    differ by in half of the channels, and by more in a few that carry the position itself. What
    is trained on these features should see them at random positions (`position_offset` of the
    encoder), as if each clip were cut from a longer window.
    """

    def __init__(
        self,
        encoder: SpeechEncoder,
        hidden_layers: Sequence[int] = HIDDEN_LAYERS,
        window_s: float = WINDOW_S,
        overlap_s: float = OVERLAP_S,
    ) -> None:
        self.window, self.overlap = window_frames(window_s, overlap_s)
        if self.window > encoder.config.max_frames:
            limit = encoder.config.max_frames / FEATURE_RATE
            raise OptionInvalid(f"a window of {window_s} s is more than the encoder's {limit:g} s")
        self.encoder = encoder.eval()
        self.hidden_layers = tuple(hidden_layers)

    @property
    def feature_dim(self) -> int:
        """Channels of one feature: the encoder's width for each hidden layer."""
        return self.encoder.config.width * len(self.hidden_layers)

    @torch.no_grad()
    def encode(self, samples: Tensor) -> Tensor:
        """Features of a whole speech track.

        Args:
            samples: [N] float32, 16 kHz mono, full scale 1.0; any device.

        Returns:
            [T50, feature_dim] float32 on the encoder's device, T50 = ceil((N // 160) / 2). Memory
            beyond samples, log-mel and result is that of one window.

        Raises:
            AudioUnusable: too few samples.
        """
        device = self.encoder.conv1.weight.device
        mel = log_mel(samples.to(device))
        total = (mel.shape[1] + 1) // 2

        def encode_span(start: int, end: int) -> Tensor:
            part = mel[None, :, 2 * start : 2 * end].to(self.encoder.conv1.weight.dtype)
            states = self.encoder(part, self.hidden_layers)
            return torch.cat([states[layer][0] for layer in self.hidden_layers], dim=-1)

        return encode_spans(total, self.window, self.overlap, encode_span, device)


def to_rate(features: Tensor, times: Tensor, centre_s: float = FEATURE_CENTRE_S) -> Tensor:
    """Features at given times by linear interpolation (the projection "to the video frame rate").

    Args:
        features: [T50, D] at 50 Hz; feature k belongs to the time k / 50 + `centre_s`.
        times: [T] in seconds from the start of the audio, any order and spacing.
        centre_s: time of feature 0 in seconds.

    Returns:
        [T, D] in the features' type; before the first and after the last feature their values.
    """
    places = (times.to(features.device, torch.float64) - centre_s) * FEATURE_RATE
    places = places.clamp(0.0, features.shape[0] - 1)
    left = places.floor().long()
    right = (left + 1).clamp(max=features.shape[0] - 1)
    share = (places - left).to(features.dtype)[:, None]
    return torch.lerp(features[left], features[right], share)
