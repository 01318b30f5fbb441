"""Other recordings of the same speech: voice, speed, tone, room, noise, music, level."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from dubbing.speech.hubert import import_torchaudio
from dubbing.speech.mel import SAMPLE_RATE

MAX_STRETCH = 0.3  # octaves of speed and pitch together
MAX_SHIFT = 5.0  # semitones of pitch alone, as from a man to a woman or a child


class _Dice:
    def __init__(self, generator: torch.Generator):
        self.generator = generator

    def uniform(self, low: float, high: float) -> float:
        return low + (high - low) * torch.rand(1, generator=self.generator).item()

    def chance(self, share: float) -> bool:
        return self.uniform(0, 1) < share

    def noise(self, count: int) -> Tensor:
        return torch.randn(count, generator=self.generator)


def disturbed(samples: Tensor, generator: torch.Generator) -> tuple[Tensor, float]:
    """A random other recording of the same speech.

    Args:
        samples: [N] at 16 kHz.

    Returns:
        samples [N'] and the stretch: a sound at time t is now at t / stretch.
    """
    dice = _Dice(generator)
    stretch = 2.0 ** dice.uniform(-MAX_STRETCH, MAX_STRETCH)
    count = max(int(len(samples) / stretch), 1)
    out = F.interpolate(samples[None, None], count, mode="linear", align_corners=False)[0, 0]
    if dice.chance(0.35):
        out = _other_voice(out, dice)
    out = _tone(out, dice)
    if dice.chance(0.4):
        out = _room(out, dice)
    level = out.square().mean().sqrt().clamp_min(1e-5)
    if dice.chance(0.3):
        out = out + _scaled(_music(len(out), dice), level, dice.uniform(3, 25))
    noise = dice.noise(len(out))
    if dice.chance(0.5):  # towards brown
        noise = torch.cumsum(noise, 0)
        noise = noise - F.avg_pool1d(noise[None, None], 401, 1, 200)[0, 0]
    out = out + _scaled(noise, level, dice.uniform(8, 40))
    return out / out.abs().max().clamp_min(1e-5) * dice.uniform(0.05, 0.9), stretch


def _scaled(sound: Tensor, level: Tensor, below: float) -> Tensor:
    """`sound` brought to `below` dB under `level`."""
    return sound / sound.square().mean().sqrt().clamp_min(1e-6) * level * 10 ** (-below / 20)


def _other_voice(samples: Tensor, dice: _Dice) -> Tensor:
    """Pitch and formants shifted, time kept: stretched by a phase vocoder, then resampled back."""
    count, n_fft, hop = len(samples), 512, 128
    rate = 2 ** (-dice.uniform(-MAX_SHIFT, MAX_SHIFT) / 12)
    if count < 4 * n_fft:
        return samples
    window = torch.hann_window(n_fft)
    spectrum = torch.stft(samples, n_fft, hop, window=window, return_complex=True)
    advance = torch.linspace(0, torch.pi * hop, n_fft // 2 + 1)[:, None]
    vocoder = import_torchaudio().functional.phase_vocoder
    longer = torch.istft(vocoder(spectrum, rate, advance), n_fft, hop, window=window)
    return F.interpolate(longer[None, None], count, mode="linear", align_corners=False)[0, 0]


def _tone(samples: Tensor, dice: _Dice) -> Tensor:
    """Tilt of the spectrum, sometimes the band of a telephone."""
    spectrum = torch.fft.rfft(samples)
    hz = torch.linspace(0, SAMPLE_RATE / 2, len(spectrum))
    tilt = (hz.clamp_min(100) / 1000) ** dice.uniform(-0.4, 0.4)
    if dice.chance(0.25):
        tilt = tilt * ((hz > 300) & (hz < 3400))
    out: Tensor = torch.fft.irfft(spectrum * tilt, len(samples))
    return out


def _room(samples: Tensor, dice: _Dice) -> Tensor:
    """Direct sound and an exponential tail."""
    decay = dice.uniform(0.05, 0.3)
    t = torch.arange(int(0.3 * SAMPLE_RATE)) / SAMPLE_RATE
    tail = dice.noise(len(t)) * torch.exp(-6.9 * t / decay)
    tail = tail / tail.norm() * dice.uniform(0.1, 0.6)
    tail[0] = 1.0
    size = len(samples) + len(tail)
    wet: Tensor = torch.fft.irfft(torch.fft.rfft(samples, size) * torch.fft.rfft(tail, size), size)
    return wet[: len(samples)]


def _music(count: int, dice: _Dice) -> Tensor:
    """Chords of decaying harmonics over a beat of noise bursts, [count]."""
    time = torch.arange(count) / SAMPLE_RATE
    beat = dice.uniform(0.25, 0.7)  # seconds
    since = torch.remainder(time, beat)
    out = torch.zeros(count)
    root = dice.uniform(60, 180)
    chords = torch.tensor([[1, 5 / 4, 3 / 2], [9 / 8, 4 / 3, 5 / 3], [3 / 2, 15 / 8, 9 / 4]])
    which = (time / (2 * beat)).long() % len(chords)
    for voice in range(3):
        hz = root * chords[which, voice]
        phase = torch.cumsum(hz / SAMPLE_RATE, 0) * 2 * torch.pi
        for harmonic in range(1, 6):
            out += torch.sin(harmonic * phase) / harmonic
    out *= 0.3 + torch.exp(-since / dice.uniform(0.1, 0.5))
    return out + dice.uniform(0, 1.5) * dice.noise(count) * torch.exp(-since / 0.03)
