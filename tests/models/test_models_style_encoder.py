"""The style encoder: what it must not see (padding, trembling, order) and what it must."""

from __future__ import annotations

import math

import pytest
import torch
from synthetic_face import face_model, speaking
from torch import Tensor

from dubbing.models.style_encoder import StyleEncoder, StyleEncoderConfig

torch.set_num_threads(1)

LOWER = face_model().lower.gt(0).nonzero()[:, 0]


def motion(frames: int, seed: int = 0) -> Tensor:
    """Displacements [1, T, L, 3] of the lower face of somebody who speaks."""
    return face_model().expression_vertices(speaking(frames, seed))[None, :, LOWER]


@pytest.fixture(scope="module")
def encoder() -> StyleEncoder:
    torch.manual_seed(0)
    config = StyleEncoderConfig(
        lower_vertices=len(LOWER), components=3, coupled=3, width=16, code_size=8
    )
    network = StyleEncoder(config).eval().requires_grad_(False)
    network.set_motion(LOWER, torch.cat([motion(200, seed)[0] for seed in range(4)]))
    return network


def test_codes_have_length_one_whatever_the_window(encoder: StyleEncoder) -> None:
    for frames in (25, 51, 100, 150):
        code = encoder(motion(frames).expand(3, -1, -1, -1))
        assert code.shape == (3, 8)
        assert torch.allclose(code.norm(dim=1), torch.ones(3), atol=1e-5)


def test_components_of_real_motion_are_about_one(encoder: StyleEncoder) -> None:
    seen = torch.cat([encoder.components(motion(200, seed))[0] for seed in range(4)])
    power = seen.T @ seen / len(seen)
    assert torch.allclose(power, torch.eye(3), atol=1e-2)
    assert torch.equal(encoder.lower, LOWER)


def test_padding_and_unknown_frames_do_not_count(encoder: StyleEncoder) -> None:
    own = motion(60)
    mask = torch.ones(1, 60, dtype=torch.bool)
    mask[:, 20:26] = False
    spoilt = own.clone()
    spoilt[:, 20:26] = 5.0
    expected = encoder(own, mask)
    assert torch.allclose(encoder(spoilt, mask), expected, atol=1e-5)
    padded = torch.cat([spoilt, torch.full((1, 30, len(LOWER), 3), 3.0)], 1)
    longer = torch.cat([mask, torch.zeros(1, 30, dtype=torch.bool)], 1)
    assert torch.allclose(encoder(padded, longer), expected, atol=1e-5)
    assert not torch.allclose(encoder(spoilt), expected, atol=1e-2)


def test_trembling_is_filtered_out_and_speech_is_not(encoder: StyleEncoder) -> None:
    time = torch.arange(200) / 25.0
    for rate, low, high in ((2.0, 0.9, 1.0), (6.0, 0.45, 0.55), (12.0, 0.0, 0.12)):
        wave = torch.sin(2 * math.pi * rate * time + 0.5)[None, :, None].expand(-1, -1, 3)
        kept = encoder.smooth(wave, torch.ones(1, 200))[0, 20:-20].std() / wave[0, 20:-20].std()
        assert low <= kept <= high, rate


def test_order_beyond_a_movement_is_no_style(encoder: StyleEncoder) -> None:
    """Four seconds whose halves change places say other words in the same manner."""
    own = motion(200)
    swapped = torch.cat([own[:, 100:], own[:, :100]], 1)
    assert float(encoder(own) @ encoder(swapped).T) > 0.999
    flattened = 0.3 * own
    assert float(encoder(own) @ encoder(flattened).T) < 0.95


def test_the_window_may_be_cut_anywhere_in_steady_motion(encoder: StyleEncoder) -> None:
    """A movement that repeats every second has one code, however much of it is shown."""
    steady = motion(25).repeat(1, 6, 1, 1)
    for window in (steady[:, :75], steady[:, 25:], steady[:, 10:85]):
        assert float(encoder(window) @ encoder(steady).T) > 0.99


def test_every_parameter_is_trained(encoder: StyleEncoder) -> None:
    torch.manual_seed(1)
    network = StyleEncoder(encoder.config)
    network.set_motion(LOWER, motion(200)[0])
    codes = network(torch.cat([motion(60, seed) for seed in range(3)]))
    (codes @ codes.T).triu(1).sum().backward()
    idle = [n for n, p in network.named_parameters() if p.grad is None or not p.grad.any()]
    assert idle == []
