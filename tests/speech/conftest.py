"""Synthetic sounds: a small formant synthesiser whose output a voice detector takes for speech."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from scipy.signal import lfilter

RATE = 16000
VOWELS = [(730, 1090, 2440), (270, 2290, 3010), (300, 870, 2240), (530, 1840, 2480)]


def syllable(random: np.random.Generator) -> np.ndarray:
    """A short fricative, then glottal pulses through three formants that glide between vowels."""
    count = int(RATE * random.uniform(0.12, 0.22))
    pitch = np.linspace(130.0, 105.0, count) * random.uniform(0.9, 1.1)
    pulses = np.diff(np.floor(np.cumsum(pitch) / RATE), prepend=0.0)
    source = lfilter([1.0], [1.0, -0.95], pulses)
    first, last = (VOWELS[i] for i in random.integers(len(VOWELS), size=2))
    voiced = np.zeros(count)
    states = [np.zeros(2)] * 3
    for start in range(0, count, 160):
        part, share = source[start : start + 160], start / count
        for i in range(3):
            centre = first[i] * (1 - share) + last[i] * share
            radius = np.exp(-np.pi * (80 + 40 * i) / RATE)
            poles = [1.0, -2 * radius * np.cos(2 * np.pi * centre / RATE), radius**2]
            part, states[i] = lfilter([sum(poles)], poles, part, zi=states[i])
        voiced[start : start + 160] = part
    voiced *= np.hanning(count) ** 0.5
    length = int(RATE * random.uniform(0.04, 0.08))
    noise = lfilter([1.0, -0.9], [1.0], random.normal(size=length)) * np.hanning(length)
    return np.concatenate([0.02 * noise, voiced / np.abs(voiced).max()])


@pytest.fixture(scope="session")
def speech_like() -> Callable[..., torch.Tensor]:
    """speech_like(seconds, seed=0) -> [16000 * seconds] float32, peak 0.3."""

    def make(seconds: float, seed: int = 0) -> torch.Tensor:
        random = np.random.default_rng(seed)
        total = round(seconds * RATE)
        parts: list[np.ndarray] = []
        while sum(map(len, parts)) < total:
            parts.append(syllable(random))
        return torch.from_numpy(0.3 * np.concatenate(parts)[:total]).float()

    return make
