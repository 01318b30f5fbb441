"""Speech features of audio of any length: overlapping windows through the encoder, cross-faded.

The encoder takes at most 30 s, its attention is full and its position code absolute, so all audio,
short or long, is cut into windows of one length. Their outputs are joined with ramps, so that no
feature comes from the edge of a window (where context is missing) and nothing jumps where one
window hands over to the next. What is trained on these features sees the same windows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from dubbing.errors import OptionInvalid
from dubbing.models.speech_encoder import SpeechEncoder
from dubbing.speech.mel import log_mel

FEATURE_RATE = 50  # features per second
FEATURE_CENTRE_S = 0.01  # feature k stands for the 20 ms cell that starts at k / 50 s
WINDOW_S = 8.0
HOP_S = 2.5
BATCH = 4  # windows per pass
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

    def blocks(self, samples: Tensor) -> Iterator[Tensor]:
        """The rows of `encode` in order, as many at a time as suits the extractor."""
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


def cut_window(mel: Tensor, start: int, frames: int) -> Tensor:
    """A stretch of a log-mel, silence (2.0 below its maximum) where it reaches beyond the ends.

    Args:
        mel: [80, M] at 100 Hz.
        start: first 50-Hz frame, may be negative; frames: number of 50-Hz frames.

    Returns:
        [80, 2 * frames].
    """
    first, last = 2 * start, 2 * (start + frames)
    part = mel[:, max(first, 0) : max(last, 0)]
    before = min(max(-first, 0), 2 * frames)
    after = 2 * frames - before - part.shape[1]
    return F.pad(part, (before, after), value=float(mel.max()) - 2.0)


class SpeechFeatures:
    """Features of one speech track by a `SpeechEncoder`.

    Args:
        encoder: the network; used in evaluation mode on the device where it lies.
        hidden_layers: states to concatenate, in this order.
        window_s: seconds per window, at most 30.
        hop_s: seconds from one window to the next.
        standardised: take off what a state owes to its position alone (`encoder.standardise`), as
            stage 1 expects it; needs hidden layers (frozen_layers, layers).

    Windows are centred at 0, hop_s, 2 hop_s ... seconds, also for audio shorter than one window;
    beyond the ends of the audio there is silence. A feature is the mean of the two windows with
    the nearest centres, weighted linearly by nearness, so none comes from nearer than window_s / 2
    - hop_s seconds to the edge of a window, and none from positions of the encoder's absolute code
    outside its middle. What is trained on these features should see windows at any phase, and then
    learns to give the same answer wherever the windows fall.
    """

    def __init__(
        self,
        encoder: SpeechEncoder,
        hidden_layers: Sequence[int] = HIDDEN_LAYERS,
        window_s: float = WINDOW_S,
        hop_s: float = HOP_S,
        standardised: bool = False,
    ) -> None:
        self.window, self.hop = round(window_s * FEATURE_RATE / 2) * 2, round(hop_s * FEATURE_RATE)
        if self.hop < 1 or self.window < 2 * self.hop:
            raise OptionInvalid(
                f"windows of {window_s} s every {hop_s} s do not overlap by half",
                hint="make the window at least twice the hop, and the hop at least 0.02 s",
            )
        if self.window > encoder.config.max_frames:
            limit = encoder.config.max_frames / FEATURE_RATE
            raise OptionInvalid(f"a window of {window_s} s is more than the encoder's {limit:g} s")
        self.encoder = encoder.eval()
        self.hidden_layers = tuple(hidden_layers)
        if standardised and self.hidden_layers != (
            encoder.config.frozen_layers, encoder.config.layers
        ):  # fmt: skip
            raise OptionInvalid(f"states after layers {self.hidden_layers} have no known mean")
        self.standardised = standardised

    @property
    def feature_dim(self) -> int:
        """Channels of one feature: the encoder's width for each hidden layer."""
        return self.encoder.config.width * len(self.hidden_layers)

    def encode(self, samples: Tensor) -> Tensor:
        """Features of a whole speech track.

        Args:
            samples: [N] float32, 16 kHz mono, full scale 1.0; any device.

        Returns:
            [T50, feature_dim] float32 on the encoder's device, T50 = ceil((N // 160) / 2).

        Raises:
            AudioUnusable: too few samples.
        """
        return torch.cat(list(self.blocks(samples)))

    @torch.no_grad()
    def blocks(self, samples: Tensor) -> Iterator[Tensor]:
        """The features of `encode`, some seconds at a time, in order. Memory beyond samples and
        log-mel is that of `BATCH` windows.

        Raises:
            AudioUnusable: too few samples.
        """
        parameter = self.encoder.conv1.weight
        mel = log_mel(samples.to(parameter.device))
        total = (mel.shape[1] + 1) // 2
        centres = list(range(0, total - 1 + self.hop, self.hop))
        offsets = torch.arange(-self.hop + 1, self.hop, device=parameter.device)
        ramp = (1.0 - offsets.abs() / self.hop)[:, None]
        base = 0  # place of joined[0]
        joined = torch.zeros((BATCH + 1) * self.hop, self.feature_dim, device=parameter.device)
        for k in range(0, len(centres), BATCH):
            batch = centres[k : k + BATCH]
            half = self.window // 2
            parts = torch.stack([cut_window(mel, c - half, self.window) for c in batch])
            states = self.encoder(parts.to(parameter.dtype), self.hidden_layers)
            rows = torch.cat([states[layer] for layer in self.hidden_layers], -1)
            if self.standardised:
                rows = self.encoder.standardise(rows)
            rows = rows[:, half - self.hop + 1 : half + self.hop].float() * ramp
            for c, row in zip(batch, rows, strict=True):
                first, last = max(c - self.hop + 1, 0), min(c + self.hop, total)
                begin = first - (c - self.hop + 1)
                joined[first - base : last - base] += row[begin : begin + last - first]
            done = min(batch[-1] + 1, total)  # the next window adds nothing before
            yield joined[: done - base].clone()
            rest = joined[done - base :].clone()
            joined.zero_()
            joined[: len(rest)] = rest
            base = done


def to_rate(
    features: Tensor, times: Tensor, centre_s: float = FEATURE_CENTRE_S, first: int = 0
) -> Tensor:
    """Features at given times by linear interpolation (the projection "to the video frame rate").

    Args:
        features: [T50, D] at 50 Hz; feature k belongs to the time (first + k) / 50 + `centre_s`.
        times: [T] in seconds from the start of the audio, any order and spacing.
        centre_s: time of feature 0 in seconds.
        first: number of the first feature, where they are a piece of a longer track.

    Returns:
        [T, D] in the features' type; before the first and after the last feature their values.
    """
    places = (times.to(features.device, torch.float64) - centre_s) * FEATURE_RATE
    last = first + features.shape[0] - 1
    places = places.clamp(first, last)
    left = places.floor().long()
    right = (left + 1).clamp(max=last)
    share = (places - left).to(features.dtype)[:, None]
    return torch.lerp(features[left - first], features[right - first], share)
