"""Speech encoder states of training clips, in the windows that the engine sees, computed once.

Disturbed versions of each clip (other voice, speed, tone, room, noise, music) are encoded too, and
the windows of every version begin at another phase: what is trained on them learns to ignore the
recording, the voice, and where a window begins in the encoder's absolute position code.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from dubbing.models.speech_encoder import SpeechEncoder
from dubbing.speech.features import BATCH, FEATURE_RATE, HOP_S, WINDOW_S, cut_window
from dubbing.speech.hubert import HubertFeatures
from dubbing.speech.mel import log_mel
from dubbing.training.disturb import disturbed
from dubbing.whole_file import save_arrays, whole_file

VARIANTS = 4  # the recording itself and three disturbed ones
LENGTH = round(WINDOW_S * FEATURE_RATE)  # 50-Hz frames of a window
CORE = round(HOP_S * FEATURE_RATE)  # frames on either side of a window's centre that are used
STEP = 100  # frames between the centres of neighbouring windows


@dataclass(frozen=True)
class SpeechStates:
    """Cached states of a clip.

    Attributes:
        windows: [W, LENGTH, 2 D] float16 (the frozen lower half's state, then the last one of the
            encoder as it was pretrained).
        first: [W] 50-Hz frame of the variant's sound at which a window begins; may be negative.
        variant: [W] whose windows they are; 0 is the recording itself.
        stretch: [VARIANTS] the time of the variant's sound is the video's time divided by it.
        counts: [VARIANTS] frames of each variant's sound.
    """

    windows: Tensor
    first: Tensor
    variant: Tensor
    stretch: Tensor
    counts: Tensor

    def of(self, variant: int) -> Tensor:
        """Indices of a variant's windows."""
        return (self.variant == variant).nonzero()[:, 0]


def window_centres(total: int, phase: int) -> list[int]:
    """Centres of the windows that cover `total` frames with their cores; 0 <= phase < STEP."""
    return list(range(phase, max(total - CORE, phase) + STEP, STEP))


Extractor = Callable[[Tensor, int], tuple[Tensor, Tensor, int]]
"""Samples [N] and the phase of the first window to windows [W, LENGTH, D], their first frames [W]
and the number of frames of the sound."""


def own_features(encoder: SpeechEncoder) -> Extractor:
    """Windows of our own encoder: the frozen lower half's state, then the last one."""
    layers = (encoder.config.frozen_layers, encoder.config.layers)

    def extract(sound: Tensor, phase: int) -> tuple[Tensor, Tensor, int]:
        mel = log_mel(sound)
        total = (mel.shape[1] + 1) // 2
        first = [c - LENGTH // 2 for c in window_centres(total, phase)]
        rows = []
        for k in range(0, len(first), BATCH):
            parts = torch.stack([cut_window(mel, f, LENGTH) for f in first[k : k + BATCH]])
            states = encoder(parts, layers)
            rows.append(torch.cat([states[n] for n in layers], -1))
        return torch.cat(rows), torch.tensor(first), total

    return extract


def hubert_features(hubert: HubertFeatures) -> Extractor:
    """HuBERT, which has no position code of its own: its features cut into windows."""

    def extract(sound: Tensor, phase: int) -> tuple[Tensor, Tensor, int]:
        whole = hubert.encode(sound)
        total = len(whole)
        first = [c - LENGTH // 2 for c in window_centres(total, phase)]
        places = torch.tensor(first)[:, None] + torch.arange(LENGTH)
        return whole[places.clamp(0, total - 1)], torch.tensor(first), total

    return extract


@torch.inference_mode()
def learn_places(encoder: SpeechEncoder, clips: Iterable[SpeechStates]) -> None:
    """Fill the encoder's `place_mean` and `deviation` from the windows of many clips."""
    total = torch.zeros(encoder.place_mean.shape, dtype=torch.float64)
    square = torch.zeros(encoder.deviation.shape, dtype=torch.float64)
    count = 0
    for clip in clips:
        windows = clip.windows.float()
        total += windows.sum(0)
        square += windows.square().sum((0, 1))
        count += len(windows)
    mean = total / count
    variance = square / (count * len(mean)) - mean.mean(0).square()
    encoder.place_mean.copy_(mean)
    encoder.deviation.copy_(variance.clamp_min(1e-6).sqrt())


@torch.inference_mode()
def speech_states(
    extract: Extractor, samples: Tensor, cache: Path, name: str, seed: int
) -> SpeechStates:
    """States of a clip's sound, cached in `cache` under `name`; the windows stay on the disk."""
    facts, rows = cache / f"{name}.states.npz", cache / f"{name}.windows.npy"
    if not facts.exists():
        generator = torch.Generator().manual_seed(seed)
        windows, first, variant, stretches, counts = [], [], [], [], []
        for k in range(VARIANTS):
            sound, stretch = (samples, 1.0) if k == 0 else disturbed(samples, generator)
            phase = int(torch.randint(0, STEP, (1,), generator=generator))
            part, starts, total = extract(sound, phase)
            windows.append(part.half())
            first.append(starts)
            variant.append(torch.full((len(part),), k))
            stretches.append(stretch)
            counts.append(total)
        cache.mkdir(parents=True, exist_ok=True)
        with whole_file(rows) as partial, partial.open("wb") as file:
            np.save(file, torch.cat(windows).numpy())
        save_arrays(
            facts,
            first=torch.cat(first).numpy(),
            variant=torch.cat(variant).numpy(),
            stretch=np.array(stretches),
            counts=np.array(counts),
        )
    with np.load(facts) as file:
        return SpeechStates(
            torch.from_numpy(np.load(rows, mmap_mode="c")),
            torch.from_numpy(file["first"]),
            torch.from_numpy(file["variant"]),
            torch.from_numpy(file["stretch"]).float(),
            torch.from_numpy(file["counts"]),
        )
