"""The log-mel against its definition, written a second time the slow way."""

import numpy as np
import pytest
import torch

from dubbing.errors import AudioUnusable
from dubbing.speech import mel
from dubbing.speech.mel import hz_to_mel, log_mel, mel_filters, mel_to_hz


def reference_log_mel(samples: np.ndarray) -> np.ndarray:
    """Whisper's definition with explicit sums in float64: DFT by matrix, filters by loops."""

    def to_hz(m: float) -> float:
        return m * 200 / 3 if m < 15 else 1000.0 * 6.4 ** ((m - 15) / 27)

    top = 15 + 27 * np.log(8) / np.log(6.4)  # mel of 8000 Hz
    corners = [to_hz(top * i / 81) for i in range(82)]
    filters = np.zeros((80, 201))
    for row in range(80):
        low, centre, high = corners[row : row + 3]
        for k in range(201):
            hz = 40.0 * k
            if low < hz <= centre:
                filters[row, k] = (hz - low) / (centre - low) * 2 / (high - low)
            elif centre < hz < high:
                filters[row, k] = (high - hz) / (high - centre) * 2 / (high - low)
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(400) / 400)
    dft = np.exp(-2j * np.pi * np.outer(np.arange(201), np.arange(400)) / 400)
    padded = np.concatenate([samples[200:0:-1], samples, samples[-2:-202:-1]]).astype(np.float64)
    columns = []
    for j in range(len(samples) // 160):
        power = np.abs(dft @ (window * padded[160 * j : 160 * j + 400])) ** 2
        columns.append(np.log10(np.maximum(filters @ power, 1e-10)))
    logs = np.stack(columns, axis=1)
    return (np.maximum(logs, logs.max() - 8.0) + 4.0) / 4.0


def test_log_mel_equals_slow_reference(speech_like):
    samples = speech_like(0.7)[:11003]  # not a multiple of the hop
    result = log_mel(samples)
    assert result.shape == (80, 68)
    assert result.dtype == torch.float32
    expected = reference_log_mel(samples.numpy())
    assert np.abs(result.numpy() - expected).max() < 1e-4


def test_dynamic_range_is_limited_per_item_to_two_units(speech_like):
    loud = speech_like(0.5)
    batch = log_mel(torch.stack([loud, 0.001 * loud]))
    assert batch.shape == (2, 80, 50)
    spread = batch.amax(dim=(1, 2)) - batch.amin(dim=(1, 2))
    assert torch.all(spread <= 2.0 + 1e-6)
    # 60 dB are 6 decades of power and a quarter of that after the scaling
    assert batch[0].max() - batch[1].max() == pytest.approx(1.5, abs=1e-4)
    assert torch.equal(batch[1], log_mel(0.001 * loud))


def test_blocks_do_not_change_the_result(speech_like, monkeypatch):
    samples = speech_like(1.0)
    whole = log_mel(samples)
    monkeypatch.setattr(mel, "BLOCK_FRAMES", 7)
    assert torch.allclose(log_mel(samples), whole, atol=1e-6)


@pytest.mark.parametrize("hz", [250.0, 1000.0, 3200.0, 7000.0])
def test_a_tone_is_loudest_in_the_filter_around_its_frequency(hz):
    tone = torch.sin(2 * torch.pi * hz * torch.arange(8000) / 16000)
    loudest = int(log_mel(tone).mean(dim=1).argmax())
    corners = mel_to_hz(np.linspace(0.0, float(hz_to_mel(np.array(8000.0))), 82))
    assert corners[loudest] < hz < corners[loudest + 2]


def test_frames_are_centred_at_multiples_of_the_hop():
    samples = torch.zeros(16000)
    samples[160 * 40] = 1.0
    energy = (10.0 ** (4 * log_mel(samples) - 4)).sum(dim=0)
    assert int(energy.argmax()) == 40
    assert energy[39] == pytest.approx(float(energy[41]), rel=1e-3)


def test_filters_have_unit_area_and_overlap_only_with_neighbours():
    filters = mel_filters().double()
    assert filters.shape == (80, 201)
    assert filters.min() == 0.0
    wide = filters[60:]  # many 40 Hz bins each, so that the sum is close to the integral
    assert torch.allclose(wide.sum(dim=1) * 40.0, torch.ones(20).double(), atol=0.02)
    assert torch.all(filters[:-2] * filters[2:] < 1e-12)


def test_mel_scale_has_its_fixed_points_and_inverse():
    assert hz_to_mel(np.array([0.0, 200.0, 1000.0, 6400.0])) == pytest.approx([0, 3, 15, 42])
    hz = np.linspace(0.0, 8000.0, 50)
    assert mel_to_hz(hz_to_mel(hz)) == pytest.approx(hz)


@pytest.mark.parametrize("count", [0, 1, 159, 200])
def test_too_short_audio_is_refused(count):
    with pytest.raises(AudioUnusable, match=f"only {count} samples"):
        log_mel(torch.zeros(count))
