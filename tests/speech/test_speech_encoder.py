"""The encoder's shapes, its lower / upper split, its positions and its gradients."""

import math

import pytest
import torch
import torch.nn.functional as F

from dubbing.models.speech_encoder import (
    SpeechAttention,
    SpeechEncoder,
    SpeechEncoderConfig,
    sinusoidal_positions,
)

SMALL = SpeechEncoderConfig(width=32, heads=4, ffn_width=64, max_frames=60)


@pytest.fixture
def encoder():
    torch.manual_seed(0)
    return SpeechEncoder(SMALL).eval()


def test_default_is_whisper_tinys_encoder():
    encoder = SpeechEncoder()
    sizes = {name: tuple(value.shape) for name, value in encoder.state_dict().items()}
    assert sizes["conv1.weight"] == (384, 80, 3)
    assert sizes["layers.3.attention.qkv.weight"] == (1152, 384)
    assert not any("position" in name for name in sizes)
    assert sum(value.numel() for value in encoder.parameters()) == 7_633_920


@pytest.mark.parametrize(("mel_frames", "frames"), [(1, 1), (2, 1), (37, 19), (120, 60)])
def test_any_length_gives_half_the_frames(encoder, mel_frames, frames):
    states = encoder(torch.randn(2, 80, mel_frames))
    assert list(states) == [2, 4]
    assert all(state.shape == (2, frames, 32) for state in states.values())


def test_lower_then_upper_equals_forward(encoder):
    mel = torch.randn(2, 80, 50)
    whole = encoder(mel, (2, 3, 4), position_offset=7)
    split = encoder.upper(encoder.lower(mel, position_offset=7), (2, 3, 4))
    assert whole.keys() == split.keys()
    assert all(torch.equal(whole[layer], split[layer]) for layer in whole)


def test_last_state_is_normalised_and_others_are_the_stream(encoder):
    states = encoder(torch.randn(1, 80, 50), (3, 4))
    stream = encoder.layers[3](states[3])
    assert torch.equal(states[4], encoder.final_norm(stream))
    assert torch.allclose(states[4].mean(dim=-1), torch.zeros(1, 25), atol=1e-5)


def test_only_upper_parameters_learn_from_cached_states(encoder):
    cached = encoder.lower(torch.randn(1, 80, 30)).detach()
    encoder.upper(cached)[4].square().sum().backward()
    learning = {id(p) for p in encoder.upper_parameters()}
    for parameter in encoder.parameters():
        assert (parameter.grad is not None) == (id(parameter) in learning)


def test_attention_equals_its_formula():
    torch.manual_seed(0)
    attention = SpeechAttention(8, 2)
    x = torch.randn(1, 5, 8)
    q, k, v = attention.qkv(x)[0].split(8, dim=1)
    heads = []
    for part in (slice(0, 4), slice(4, 8)):
        weights = F.softmax(q[:, part] @ k[:, part].T / math.sqrt(4), dim=1)
        heads.append(weights @ v[:, part])
    assert torch.allclose(attention(x)[0], attention.out(torch.cat(heads, dim=1)), atol=1e-6)


def test_positions_are_sines_then_cosines_and_can_start_later():
    code = sinusoidal_positions(10, 8)
    assert torch.allclose(code[:, 0], torch.arange(10.0).sin())
    assert torch.allclose(code[:, 4], torch.arange(10.0).cos())
    assert torch.allclose(code[:, 7], (torch.arange(10.0) / 10000.0).cos())
    assert torch.equal(sinusoidal_positions(4, 8, first=6), code[6:])


def test_offset_moves_the_positions(encoder):
    mel = torch.randn(1, 80, 20)
    near, far = encoder(mel, (0,))[0], encoder(mel, (0,), position_offset=9)[0]
    moved = sinusoidal_positions(10, 32, first=9) - sinusoidal_positions(10, 32)
    assert torch.allclose(far - near, moved[None], atol=1e-5)


def test_bad_input_is_refused(encoder):
    with pytest.raises(ValueError, match=r"expected a log-mel \[B, 80, M\]"):
        encoder(torch.randn(1, 79, 20))
    with pytest.raises(ValueError, match="outside the 60 positions"):
        encoder(torch.randn(1, 80, 121))
    with pytest.raises(ValueError, match="outside the 60 positions"):
        encoder(torch.randn(1, 80, 100), position_offset=11)
    with pytest.raises(ValueError, match=r"must be within 0\.\.4"):
        encoder(torch.randn(1, 80, 20), (5,))
    with pytest.raises(ValueError, match=r"must be within 2\.\.4"):
        encoder.upper(torch.randn(1, 10, 32), (1,))
    with pytest.raises(ValueError, match="divisible by heads"):
        SpeechEncoderConfig(width=100, heads=6)
