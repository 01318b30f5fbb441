"""Windows over long audio, their joining, and the move to other frame times."""

from itertools import pairwise

import pytest
import torch

from dubbing.errors import AudioUnusable, OptionInvalid
from dubbing.models.speech_encoder import SpeechEncoder, SpeechEncoderConfig
from dubbing.speech.features import (
    SpeechFeatures,
    cut_window,
    encode_spans,
    to_rate,
    window_spans,
)
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


def test_a_feature_is_the_mean_of_its_two_windows(encoder, speech_like):
    samples = speech_like(7.0)
    features = SpeechFeatures(encoder).encode(samples)
    assert SpeechFeatures(encoder).feature_dim == 96
    assert features.shape == (350, 96)
    mel = log_mel(samples)

    def window(centre: int) -> torch.Tensor:
        with torch.no_grad():
            states = encoder(cut_window(mel, centre - 200, 400)[None])
        return torch.cat([states[2][0], states[4][0]], dim=1)

    for frame, left, right, share in ((0, 0, 125, 0.0), (100, 0, 125, 0.8), (250, 250, 375, 0.0)):
        a, b = window(left)[frame - left + 200], window(right)[frame - right + 200]
        assert torch.allclose(features[frame], torch.lerp(a, b, share), atol=1e-5)


def test_windows_reach_into_silence_beyond_the_ends():
    mel = torch.rand(80, 60)
    part = cut_window(mel, -10, 50)
    assert part.shape == (80, 100)
    assert torch.equal(part[:, 20:80], mel)
    assert (part[:, :20] == mel.max() - 2).all()
    assert (part[:, 80:] == mel.max() - 2).all()
    assert (cut_window(mel, 40, 10) == mel.max() - 2).all()
    assert torch.equal(cut_window(mel, 5, 10), mel[:, 10:30])


def test_features_hardly_depend_on_where_windows_fall(encoder, speech_like):
    """An encoder whose states follow the sound much more than the position code: what is left is
    the context that a window can't see, a twentieth of what other speech would make."""
    with torch.no_grad():
        encoder.conv2.weight *= 300.0
    samples, other = speech_like(20.0), speech_like(20.0, seed=1)
    usual = SpeechFeatures(encoder).encode(samples)
    spread = (SpeechFeatures(encoder).encode(other) - usual).square().mean().sqrt()
    for window_s, hop_s in ((8.0, 1.7), (6.0, 2.0), (10.0, 3.0)):
        elsewhere = SpeechFeatures(encoder, window_s=window_s, hop_s=hop_s).encode(samples)
        assert elsewhere.shape == usual.shape == (1000, 96)
        error = (elsewhere - usual).square().mean(dim=1).sqrt()
        assert float(error.square().mean().sqrt()) < 0.05 * float(spread)
        assert float(error.max()) < 0.3 * float(spread)


def test_features_can_be_used_in_training(encoder, speech_like):
    features = SpeechFeatures(encoder).encode(speech_like(0.5))
    layer = torch.nn.Linear(96, 1)
    layer(features).sum().backward()
    assert layer.weight.grad is not None
    assert not features.requires_grad


def test_bad_windows_and_short_audio_are_refused(encoder):
    with pytest.raises(OptionInvalid, match="overlap"):
        SpeechFeatures(encoder, window_s=4.0, hop_s=2.5)
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
