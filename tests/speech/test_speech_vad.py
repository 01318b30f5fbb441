"""The voice detector against the package's own, its segments, and the gate made of them."""

import math
import subprocess
import sys

import pytest
import torch

from dubbing.errors import OptionInvalid
from dubbing.speech import silero
from dubbing.speech.level import active_rms, is_silent, level_gain
from dubbing.speech.silero import load_silero, silero_model_path
from dubbing.speech.vad import (
    Easing,
    segment_gate,
    sounding_segments,
    speech_envelope,
    speech_probability,
    speech_runs,
    speech_segments,
    trim_run,
)

RATE = 16000


def noise(seconds: float, rms: float) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return rms * torch.randn(round(seconds * RATE), generator=generator)


@pytest.fixture(scope="module")
def spoken(speech_like):
    """1 s of silence, 2 s of speech, 1.5 s of silence."""
    silence = torch.zeros(24000)
    return torch.cat([silence[:16000], speech_like(2.0), silence])


@torch.no_grad()
def test_network_equals_the_packages_own(speech_like, monkeypatch):
    samples = torch.cat([speech_like(1.5), noise(0.5, 0.01), speech_like(0.77, seed=1)])
    original = torch.jit.load(str(silero_model_path()))
    original.reset_states()
    filled = torch.nn.functional.pad(samples, (0, -len(samples) % 512))
    expected = torch.cat([original(part[None], RATE)[0] for part in filled.split(512)])
    assert expected.max() > 0.9
    assert torch.allclose(load_silero()(samples), expected, atol=1e-4)
    monkeypatch.setattr(silero, "BLOCK_WINDOWS", 10)  # the state passes from block to block
    assert torch.allclose(load_silero()(samples), expected, atol=1e-4)


def test_loading_leaves_threads_and_torchaudio_alone():
    code = (
        "import sys, torch; torch.set_num_threads(2);"
        "from dubbing.speech.vad import speech_probability;"
        "speech_probability(torch.randn(2000));"
        "assert torch.get_num_threads() == 2;"
        "assert not {'torchaudio', 'silero_vad'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_probability_is_high_in_speech_only_and_calls_are_stateless(spoken, speech_like):
    first = speech_probability(spoken)
    assert first.shape == (math.ceil(len(spoken) / 512),)
    assert first.dtype == torch.float32
    assert first[:30].max() < 0.3
    assert first[36:92].mean() > 0.9
    assert first[100:].max() < 0.3
    speech_probability(speech_like(1.0, seed=3))
    assert torch.equal(speech_probability(spoken), first)


@pytest.mark.parametrize("decibel", [-60, -40, 10])
def test_quiet_and_loud_speech_count_alike(spoken, decibel):
    expected = speech_segments(spoken)
    scaled = spoken * 10 ** (decibel / 20)
    assert torch.equal(speech_segments(scaled), expected)
    assert len(expected) == 1
    assert expected[0, 0] == pytest.approx(1.0, abs=0.1)
    assert expected[0, 1] == pytest.approx(3.0, abs=0.04)


@pytest.mark.parametrize("rms", [0.0, 1e-6, 1e-3, 0.2])
def test_silence_and_noise_keep_the_gate_shut(rms):
    times = torch.linspace(-0.5, 2.5, 50, dtype=torch.float64)
    assert torch.equal(speech_envelope(noise(2.0, rms), times), torch.zeros(50))


def test_hum_and_tone_keep_the_gate_shut():
    t = torch.arange(2 * RATE) / RATE
    for hz in (50.0, 440.0):
        samples = 0.1 * torch.sin(2 * torch.pi * hz * t)
        assert float(speech_envelope(samples, torch.linspace(0, 2, 50)).max()) == 0.0


def test_envelope_is_open_in_speech_and_shut_200_ms_after(spoken):
    times = torch.arange(0, 4.5, 0.04, dtype=torch.float64)
    gate = speech_envelope(spoken, times)
    assert torch.all(gate[(times > 1.05) & (times < 2.95)] == 1.0)
    start, end = speech_segments(spoken)[0].tolist()
    assert end == pytest.approx(3.0, abs=0.04)
    assert torch.all(gate[(times <= start - 0.5) | (times >= end + 0.2)] == 0.0)
    assert torch.all(gate[(times >= start - 0.06) & (times < end)] == 1.0)  # opens ahead of sound
    assert torch.all(gate[times > 1.05].diff() <= 0.0)  # one closing movement, no flutter


def test_digital_silence_keeps_the_mouth_at_rest_until_shortly_before_speech(spoken):
    """`spoken` is silent up to 1 s; with a breath of noise there the mouth may open earlier."""
    times = torch.arange(0, 4.5, 0.02, dtype=torch.float64)
    start, end = speech_segments(spoken)[0].tolist()
    gate = speech_envelope(spoken, times)
    first_sound = sounding_segments(spoken)[0, 0].item()
    assert torch.all(gate[times <= min(first_sound, start) - 0.2] == 0.0)
    assert torch.all(gate[times >= end + 0.2] == 0.0)
    breathing = speech_envelope(spoken + noise(len(spoken) / RATE, 1e-3)[: len(spoken)], times)
    early = (times > start - 0.3) & (times < min(first_sound, start) - 0.2)
    assert torch.all(breathing[early] == 1.0)


def test_sound_is_whatever_is_not_60_db_below():
    samples = torch.cat([noise(1.0, 0.1), torch.zeros(RATE), noise(1.0, 1e-5), noise(1.0, 0.01)])
    found = sounding_segments(samples)
    assert torch.allclose(found, torch.tensor([[0.0, 1.0], [3.0, 4.0]]).double(), atol=0.04)
    assert sounding_segments(torch.zeros(0)).shape == (0, 2)
    assert sounding_segments(torch.zeros(5000)).shape == (0, 2)


def test_runs_need_two_windows_and_use_hysteresis():
    values = [0.0, 0.9, 0.0, 0.6, 0.4, 0.4, 0.3, 0.49, 0.49, 0.7, 0.7]
    assert speech_runs(torch.tensor(values)) == [(3, 6), (9, 11)]
    assert speech_runs(torch.zeros(5)) == []


def test_runs_lose_their_quiet_edges_but_never_more_than_a_quarter_second():
    levels = torch.full((60,), 1e-4)
    levels[20:30] = 0.1
    levels[25] = 1e-4  # a stop inside a word stays
    assert trim_run((18, 33), levels) == (20, 30)
    assert trim_run((18, 50), levels) == (20, 42)
    assert trim_run((40, 45), levels) == (40, 45)  # nothing louder there: left as it is
    assert trim_run((3, 5), torch.zeros(9)) == (3, 5)


def test_speech_over_room_noise_ends_where_it_ends(speech_like):
    speech = torch.cat([torch.zeros(16000), speech_like(2.0), torch.zeros(24000)])
    start, end = speech_segments(speech + noise(4.5, 0.002))[0].tolist()
    assert start == pytest.approx(1.0, abs=0.1)
    assert end == pytest.approx(3.0, abs=0.07)


def test_gate_has_its_values_by_distance():
    segments = torch.tensor([[1.0, 2.0], [2.5, 3.0], [4.0, 5.0]], dtype=torch.float64)
    times = torch.tensor([1.5, 2.25, 3.08, 3.14, 3.2, 3.5, 3.6, 3.7, 0.0, 5.2, 6.0, 1.0, 0.6])
    expected = torch.tensor([1, 1, 1, 0.5, 0, 0, 0.5, 1, 0, 0, 0, 1.0, 0.5])
    gate = segment_gate(segments, times.double())
    assert torch.allclose(gate, expected, atol=1e-5)
    order = torch.randperm(len(times), generator=torch.Generator().manual_seed(0))
    assert torch.equal(segment_gate(segments, times.double()[order]), gate[order])
    strict = Easing(pause=0.0, lead=0.1, rise=0.2, trail=0.1, fall=0.2)
    assert segment_gate(segments, times.double(), strict)[1] == 0.0  # the short pause counts too
    with pytest.raises(OptionInvalid, match="lead must be less than rise"):
        Easing(lead=0.5, rise=0.5)


def test_level_follows_the_loud_part_not_a_click():
    samples = torch.cat([noise(3.0, 1e-4), noise(1.0, 0.02)])
    samples[1000] = 1.0
    assert active_rms(samples) == pytest.approx(0.02, rel=0.1)
    assert active_rms(samples * level_gain(samples)) == pytest.approx(0.1, rel=1e-4)
    assert is_silent(torch.zeros(5000))
    assert is_silent(torch.zeros(0))
    assert level_gain(torch.zeros(600)) == 1.0
    faint = noise(1.0, 2e-5)
    assert active_rms(faint * level_gain(faint)) == pytest.approx(0.02, rel=0.1)


def test_empty_audio_has_no_windows():
    assert speech_probability(torch.zeros(0)).shape == (0,)
    assert torch.equal(speech_envelope(torch.zeros(0), torch.zeros(3)), torch.zeros(3))
