"""Speech states of the training clips under several recordings of the same words.

The lower half of the speech encoder stays frozen, so its output is computed once per clip and
variant and cached, beside the output of the upper half as it was before fine-tuning. A variant
changes level, tone, noise, room and pitch of the voice and the place of the clip in the encoder's
position code.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from dubbing.models.speech_encoder import SpeechEncoder
from dubbing.speech.hubert import HubertFeatures
from dubbing.speech.mel import SAMPLE_RATE, log_mel
from dubbing.training.devices import save_arrays

MAX_OFFSET = 500  # 50-Hz frames: largest place of a disturbed variant in the position code
VARIANTS = 3  # the recording itself and two disturbed ones


@dataclass(frozen=True)
class SpeechStates:
    """Cached states of a clip: `features` [K, T50, 2 D] half precision (the frozen lower half's
    state, then the pretrained last one), `stretch` [K] (the time of the variant's sound is the
    video's time divided by it)."""

    features: Tensor
    stretch: Tensor


def disturbed(samples: Tensor, generator: torch.Generator) -> tuple[Tensor, float]:
    """A random other recording of the same speech: pitch and speed, tone, room, noise, level.

    Args:
        samples: [N] at 16 kHz.

    Returns:
        samples [N'] and the stretch: a sound at time t is now at t / stretch.
    """

    def uniform(low: float, high: float) -> float:
        return low + (high - low) * torch.rand(1, generator=generator).item()

    stretch = 2.0 ** uniform(-0.3, 0.3)
    count = max(int(len(samples) / stretch), 1)
    out = F.interpolate(samples[None, None], count, mode="linear", align_corners=False)[0, 0]
    spectrum = torch.fft.rfft(out)
    hz = torch.linspace(0, SAMPLE_RATE / 2, len(spectrum))
    tilt = (hz.clamp_min(100) / 1000) ** uniform(-0.4, 0.4)
    if uniform(0, 1) < 0.25:  # telephone
        tilt = tilt * ((hz > 300) & (hz < 3400))
    out = torch.fft.irfft(spectrum * tilt, len(out))
    if uniform(0, 1) < 0.4:  # room
        decay = uniform(0.05, 0.3)
        t = torch.arange(int(0.3 * SAMPLE_RATE)) / SAMPLE_RATE
        tail = torch.randn(len(t), generator=generator) * torch.exp(-6.9 * t / decay)
        tail = tail / tail.norm() * uniform(0.1, 0.6)
        tail[0] = 1.0
        size = len(out) + len(tail)
        wet = torch.fft.irfft(torch.fft.rfft(out, size) * torch.fft.rfft(tail, size), size)
        out = wet[: len(out)]
    level = out.square().mean().sqrt().clamp_min(1e-5)
    noise = torch.randn(len(out), generator=generator)
    if uniform(0, 1) < 0.5:  # towards brown
        noise = torch.cumsum(noise, 0)
        noise = noise - F.avg_pool1d(noise[None, None], 401, 1, 200)[0, 0]
        noise = noise / noise.std().clamp_min(1e-6)
    out = out + noise * level * 10 ** (-uniform(8, 40) / 20)
    return out / out.abs().max().clamp_min(1e-5) * uniform(0.05, 0.9), stretch


Extractor = Callable[[Tensor, int], Tensor]
"""Samples [N] and a place in the encoder's position code to features [T50, 2 D]."""


def own_features(encoder: SpeechEncoder) -> Extractor:
    """Features of our own encoder: the frozen lower half's state, then the last one. At most the
    encoder's 30 s are used."""

    def extract(sound: Tensor, offset: int) -> Tensor:
        c = encoder.config
        mel = log_mel(sound)[:, : 2 * c.max_frames]
        room = c.max_frames - (mel.shape[1] + 1) // 2
        states = encoder(mel[None], (c.frozen_layers, c.layers), min(offset, room))
        return torch.cat(list(states.values()), -1)[0]

    return extract


def hubert_features(hubert: HubertFeatures) -> Extractor:
    """Features of HuBERT, which has no position code of its own."""
    return lambda sound, _: hubert.encode(sound[: 30 * SAMPLE_RATE])


@torch.inference_mode()
def speech_states(
    extract: Extractor, samples: Tensor, cache: Path, name: str, seed: int
) -> SpeechStates:
    """States of a clip's sound, cached in `cache` under `name`."""
    path = cache / f"{name}.states.npz"
    if not path.exists():
        generator = torch.Generator().manual_seed(seed)
        rows, stretches = [], []
        for variant in range(VARIANTS):
            sound, stretch = (samples, 1.0) if variant == 0 else disturbed(samples, generator)
            offset = int(torch.randint(0, MAX_OFFSET, (1,), generator=generator)) if variant else 0
            rows.append(extract(sound, offset).half())
            stretches.append(stretch)
        longest = max(len(r) for r in rows)
        stacked = torch.stack([F.pad(r, (0, 0, 0, longest - len(r))) for r in rows])
        cache.mkdir(parents=True, exist_ok=True)
        save_arrays(path, features=stacked.numpy(), stretch=np.array(stretches))
    with np.load(path) as file:
        return SpeechStates(
            torch.from_numpy(file["features"]), torch.from_numpy(file["stretch"]).float()
        )
