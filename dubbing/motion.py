"""Stage 1 at work: speech and a persona to lower-face motion at 25 Hz, and to any time between."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from dubbing.geometry.morphable import MorphableModel
from dubbing.manner import match_manner
from dubbing.models.geometry_net import GeometryNet
from dubbing.models.style_metric import StyleMetric
from dubbing.nuances import take_on_nuances
from dubbing.speech.features import (
    FEATURE_RATE,
    SpeechFeatureExtractor,
    crossfade,
    to_rate,
    window_spans,
)
from dubbing.speech.vad import speech_envelope
from dubbing.style_match import match_style
from dubbing.style_reference import StyleReference

RATE = 25  # Hz of the motion model
WINDOW = 1000  # frames per pass, 40 s
REACH = 8  # states on either side that help to tell which mouths of the bank a moment shows
OVERLAP = 150  # frames on either side of a seam


@dataclass(frozen=True)
class Motion:
    """Lower-face displacements [N, L, 3] at times k / 25 s, canonical, from the template.

    A piece of a longer motion holds the states from number `first` on, of `total` in all.
    """

    lower: Tensor
    first: int = 0
    total: int | None = None

    @property
    def count(self) -> int:
        """States of the whole motion."""
        return len(self.lower) if self.total is None else self.total

    def around(self, time: float) -> Tensor:
        """Displacements [2 REACH + 1, L, 3] at steps of 1 / RATE around `time`, which is in the
        middle."""
        return torch.stack([self.at(time + k / RATE) for k in range(-REACH, REACH + 1)])

    def at(self, time: float) -> Tensor:
        """Displacements [L, 3] at `time` seconds, linear between the two nearest states."""
        place = min(max(time * RATE, 0.0), self.count - 1.0)
        left = int(place)
        right = min(left + 1, self.count - 1)
        held = self.lower[left - self.first], self.lower[right - self.first]
        return torch.lerp(*held, place - left)


def frame_features(features: Tensor, times: Tensor, stretch: float = 1.0, first: int = 0) -> Tensor:
    """Speech features for motion frames: two per frame, 10 ms before and after its middle.

    Args:
        features: [T50, D] at 50 Hz; times: [T] seconds of the frames.
        stretch: the sound of a moment t lies at t / stretch.
        first: number of the first feature, where they are a piece of a longer track.

    Returns:
        [2 T, D].
    """
    pairs = times[:, None] + torch.tensor([-0.01, 0.01], dtype=times.dtype)
    return to_rate(features, pairs.flatten() / stretch, first=first)


class _FeatureStream:
    """Speech features of a track for windows of motion frames that go forwards; those that lie
    before the window are forgotten."""

    def __init__(self, blocks: Iterator[Tensor]):
        self._blocks = blocks
        self._held = next(blocks)
        self._first = 0

    def window(self, times: Tensor) -> Tensor:
        """`frame_features` of the frames at `times` [T], ascending: [2 T, D]."""
        start, stop = (round(float(times[k]) * FEATURE_RATE) for k in (0, -1))
        while self._first + len(self._held) < stop + 3:
            block = next(self._blocks, None)
            if block is None:
                break
            self._held = torch.cat([self._held, block])
        gone = min(max(start - 3 - self._first, 0), len(self._held) - 1)
        if gone:
            self._held, self._first = self._held[gone:].clone(), self._first + gone
        return frame_features(self._held, times, first=self._first)


@torch.inference_mode()
def drive(
    features: SpeechFeatureExtractor,
    net: GeometryNet,
    model: MorphableModel,
    samples: Tensor,
    duration: float,
    template: Tensor,
    style: Tensor,
    rest: Tensor,
    own: StyleReference | None = None,
    strength: float = 1.0,
    metric: StyleMetric | None = None,
) -> Motion:
    """Motion of the lower face for a speech track (paper section 3.1).

    Args:
        samples: [N] float32, 16 kHz mono.
        duration: seconds of motion; after the speech the mouth rests.
        template: [V, 3] the speaker's neutral face.
        style: [D] style embedding.
        rest: [E] expression of the speaker's closed, resting mouth.
        own: motion of the style's speaker, whose manner (`match_manner`) and small movements
            (`take_on_nuances`) the motion takes on by `strength`; without it, it stays as the
            network makes it.
        metric: with it and `own`, the whole is brought to that speaker's style (`match_style`).

    Returns:
        the motion, on the CPU.
    """
    count = max(int(duration * RATE) + 2, 2)
    times = torch.arange(count, dtype=torch.float64) / RATE
    device = net.mean.device
    gate = speech_envelope(samples, times).to(device)
    stream = _FeatureStream(features.blocks(samples))

    def window(start: int, end: int) -> Tensor:
        audio = stream.window(times[start:end]).float().to(device)
        out: Tensor = net(audio[None], style[None], template[None])
        return out[0].flatten(1)

    spans = window_spans(count, WINDOW, OVERLAP)
    flat = crossfade(((s, window(s, e)) for s, e in spans), count, OVERLAP, device)
    lower = flat.view(count, -1, 3)
    if own is not None:
        expressions = own.expressions.to(device)
        match_manner(model, lower, net.lower, gate, expressions, strength, out=lower)
        take_on_nuances(model, lower, net.lower, own, strength, out=lower)
    resting = model.expression_vertices(rest)[net.lower]
    lower.sub_(resting).mul_(gate[:, None, None]).add_(resting)
    if own is not None and metric is not None:
        match_style(metric, model, lower, net.lower, gate, own, strength, out=lower)
    return Motion(lower.cpu())


def merged_vertices(
    model: MorphableModel, source_beta: Tensor, index: Tensor, lower: Tensor
) -> Tensor:
    """Canonical faces with the generated lower part and the source's upper part.

    Args:
        source_beta: [T, E] expressions of the source frames.
        index: [L] vertices that `lower` [T, L, 3] displaces.

    Returns:
        displacement from the template [T, V, 3].
    """
    moved = model.expression_vertices(source_beta)
    weight = model.lower[index][None, :, None]
    moved[:, index] = weight * lower + (1 - weight) * moved[:, index]
    return moved
