"""Log-mel spectrogram as Whisper defines it: the input of the speech encoder.

16 kHz samples, Hann window of 25 ms every 10 ms, power spectrum, 80 triangular filters on
Slaney's mel scale with equal area, log10, limited to 8 decades below the loudest bin, shifted
and scaled to about -1..1.5.
"""

from __future__ import annotations

import functools

import numpy as np
import torch
from torch import Tensor

from dubbing.errors import AudioUnusable

SAMPLE_RATE = 16000  # Hz
WINDOW = 400  # samples, 25 ms
HOP = 160  # samples, 10 ms
MEL_BINS = 80
DYNAMIC_RANGE = 8.0  # decades of power below the loudest bin
FLOOR = 1e-10  # smallest power before the logarithm
BLOCK_FRAMES = 6000  # frames transformed at once (1 min): bounds the memory of the transform

# Slaney's scale: linear below 1 kHz (3 mel per 200 Hz), logarithmic above (27 mel per factor 6.4)
LINEAR_HZ_PER_MEL = 200.0 / 3.0
LOG_START_HZ = 1000.0
LOG_START_MEL = LOG_START_HZ / LINEAR_HZ_PER_MEL
LOG_STEP = np.log(6.4) / 27.0


def hz_to_mel(hz: np.ndarray) -> np.ndarray:
    """Slaney's mel of frequencies in Hz, element by element."""
    hz = np.asarray(hz, dtype=np.float64)
    above = LOG_START_MEL + np.log(np.maximum(hz, LOG_START_HZ) / LOG_START_HZ) / LOG_STEP
    return np.where(hz < LOG_START_HZ, hz / LINEAR_HZ_PER_MEL, above)


def mel_to_hz(mel: np.ndarray) -> np.ndarray:
    """Inverse of `hz_to_mel`."""
    mel = np.asarray(mel, dtype=np.float64)
    above = LOG_START_HZ * np.exp(LOG_STEP * (np.maximum(mel, LOG_START_MEL) - LOG_START_MEL))
    return np.where(mel < LOG_START_MEL, mel * LINEAR_HZ_PER_MEL, above)


@functools.cache
def mel_filters(bins: int = MEL_BINS) -> Tensor:
    """Filter bank [bins, WINDOW // 2 + 1], float32 on the CPU: triangles between neighbours on
    the mel scale from 0 to 8000 Hz, each with an area of 1 over frequency in Hz.

    The tensor is shared between callers and must not be changed.
    """
    frequencies = np.fft.rfftfreq(WINDOW, 1.0 / SAMPLE_RATE)
    top = hz_to_mel(np.array(SAMPLE_RATE / 2.0))
    corners = mel_to_hz(np.linspace(0.0, float(top), bins + 2))
    rising = (frequencies[None, :] - corners[:-2, None]) / (corners[1:-1] - corners[:-2])[:, None]
    falling = (corners[2:, None] - frequencies[None, :]) / (corners[2:] - corners[1:-1])[:, None]
    triangles = np.maximum(0.0, np.minimum(rising, falling))
    triangles *= (2.0 / (corners[2:] - corners[:-2]))[:, None]
    return torch.from_numpy(triangles.astype(np.float32))


def log_mel(samples: Tensor) -> Tensor:
    """Whisper's log-mel of mono audio.

    Args:
        samples: [N] or [B, N], 16 kHz, full scale 1.0, N > 200; computed in float32 on the
            samples' device.

    Returns:
        [80, N // 160] or [B, 80, N // 160], float32. Frame j is centred at sample 160 j. The
        dynamic range is limited per item: nothing lies more than 2.0 below its maximum.

    Raises:
        AudioUnusable: too few samples for one window.
    """
    if samples.dim() == 1:
        return log_mel(samples[None])[0]
    frames = samples.shape[-1] // HOP
    if samples.shape[-1] <= WINDOW // 2 or frames == 0:
        raise AudioUnusable(
            f"the audio has only {samples.shape[-1]} samples at 16 kHz",
            hint="give at least 0.2 s of speech",
        )
    filters = mel_filters().to(samples.device)
    window = torch.hann_window(WINDOW, device=samples.device)
    logs = torch.empty(len(samples), MEL_BINS, frames, device=samples.device)
    for first in range(0, frames, BLOCK_FRAMES):
        last = min(first + BLOCK_FRAMES, frames)
        part = _around(samples, first * HOP - WINDOW // 2, (last - 1) * HOP + WINDOW // 2)
        spectrum = torch.stft(part, WINDOW, HOP, window=window, center=False, return_complex=True)
        power = filters @ (spectrum.real.square() + spectrum.imag.square())
        logs[..., first:last] = power.clamp_(min=FLOOR).log10_()
    floor = logs.amax(dim=(1, 2), keepdim=True) - DYNAMIC_RANGE
    return torch.maximum(logs, floor, out=logs).add_(4.0).div_(4.0)


def _around(samples: Tensor, start: int, stop: int) -> Tensor:
    """Samples [B, N] from `start` to `stop` in float32, reflected at both ends."""
    before, after = max(-start, 0), max(stop - samples.shape[-1], 0)
    inner = samples[:, max(start, 0) : stop].float()
    if before:
        inner = torch.cat([samples[:, 1 : before + 1].flip(-1).float(), inner], -1)
    if after:
        tail = samples[:, -after - 1 : -1].flip(-1).float()
        inner = torch.cat([inner, tail], -1)
    return inner
