"""Windows over long audio, their joining, and the move to other frame times."""

from itertools import pairwise

import pytest
import torch

from dubbing.errors import AudioUnusable, OptionInvalid
from dubbing.models.speech_encoder import SpeechEncoder, SpeechEncoderConfig
from dubbing.speech.features import SpeechFeatures, encode_spans, to_rate, window_spans
from dubbing.speech.mel import log_mel

SMALL = SpeechEncoderConfig(width=48, heads=4, ffn_width=96)


@pytest.fixture
def encoder():
    torch.manual_seed(0)
    return SpeechEncoder(SMALL).eval()


@pytest.mark.parametrize("total", [1, 999, 1000, 1001, 1800, 1801, 5000, 123_457])
def test_spans_cover_everything_with_enough_overlap(total):
    spans = window_spans(total, 1000, 100)
    assert spans[0][0] == 0
    assert spans[-1][1] == total
    for (start, end), (following, _) in pairwise(spans):
        assert start < following
        assert end - following >= 200
    assert {end - start for start, end in spans} == {min(total, 1000)}


@pytest.mark.parametrize("total", [50, 101, 333, 1000])
def test_joining_gives_back_a_sequence_that_does_not_depend_on_windows(total):
    sequence = torch.randn(total, 3)
    joined = encode_spans(total, 100, 10, lambda a, b: sequence[a:b], torch.device("cpu"))
    assert torch.allclose(joined, sequence, atol=1e-6)


def test_window_edges_carry_no_weight_and_seams_do_not_jump():
    # every window disagrees with its neighbours by a constant, and is broken at its inner edges
    def window_value(start: int, end: int) -> torch.Tensor:
        value = torch.full((end - start, 1), float(start > 0))
        value[0] += 5.0 * (start > 0)
        value[-1] += 5.0 * (end < 180)
        return value

    joined = encode_spans(180, 100, 10, window_value, torch.device("cpu"))[:, 0]
    assert torch.equal(joined[:80], torch.zeros(80))
    assert torch.equal(joined[100:], torch.ones(80))
    assert float(joined[:81].max()) < 0.2  # a broken edge of 5 adds no more than 0.125
    assert float(joined[89:92].diff().abs().max()) == pytest.approx(0.05, abs=1e-5)


def test_one_window_is_exactly_the_encoder(encoder, speech_like):
    samples = speech_like(3.0)
    features = SpeechFeatures(encoder).encode(samples)
    with torch.no_grad():
        states = encoder(log_mel(samples)[None])
    assert SpeechFeatures(encoder).feature_dim == 96
    assert torch.equal(features, torch.cat([states[2][0], states[4][0]], dim=1))
    assert features.shape == (150, 96)


def test_long_audio_keeps_its_length_and_its_features(encoder, speech_like):
    """Windows of 6 s against one of 30 s, with an encoder whose states follow the sound much more
    than the position code: what is left is the context that a window can't see. The difference
    stays below a tenth of what other speech would make, at seams as everywhere."""
    with torch.no_grad():
        encoder.conv2.weight *= 300.0
    samples, other = speech_like(20.0), speech_like(20.0, seed=1)
    windowed = SpeechFeatures(encoder, window_s=6.0, overlap_s=1.0).encode(samples)
    whole = SpeechFeatures(encoder, window_s=30.0)
    single = whole.encode(samples)
    assert windowed.shape == single.shape == (1000, 96)
    error = (windowed - single).square().mean(dim=1).sqrt()
    spread = (whole.encode(other) - single).square().mean().sqrt()
    assert float(error.square().mean().sqrt()) < 0.1 * float(spread)
    assert float(error.max()) < 0.3 * float(spread)


def test_features_can_be_used_in_training(encoder, speech_like):
    features = SpeechFeatures(encoder).encode(speech_like(0.5))
    layer = torch.nn.Linear(96, 1)
    layer(features).sum().backward()
    assert layer.weight.grad is not None
    assert not features.requires_grad


def test_bad_windows_and_short_audio_are_refused(encoder):
    with pytest.raises(OptionInvalid, match="overlap"):
        SpeechFeatures(encoder, window_s=4.0, overlap_s=2.0)
    with pytest.raises(OptionInvalid, match="more than the encoder's 30 s"):
        SpeechFeatures(encoder, window_s=31.0)
    with pytest.raises(AudioUnusable, match="only 0 samples"):
        SpeechFeatures(encoder).encode(torch.zeros(0))


def test_to_rate_interpolates_between_centres_and_holds_the_ends():
    features = torch.tensor([[0.0, 10.0], [1.0, 20.0], [2.0, 30.0]])
    times = torch.tensor([0.03, 0.02, -1.0, 0.0, 0.05, 9.0], dtype=torch.float64)
    result = to_rate(features, times)
    expected = torch.tensor([[1, 20], [0.5, 15], [0, 10], [0, 10], [2, 30], [2, 30.0]])
    assert torch.allclose(result, expected, atol=1e-6)
    assert torch.allclose(to_rate(features, times, centre_s=0.0)[0], torch.tensor([1.5, 25.0]))


def test_to_rate_is_exact_after_hours():
    features = torch.arange(400_000.0)[:, None]
    late = torch.tensor([7000.01, 7000.02], dtype=torch.float64)
    assert torch.allclose(to_rate(features, late)[:, 0], torch.tensor([350_000.0, 350_000.5]))
