"""The speaker's own manner on made motion: range and rest change, words and closures do not."""

from __future__ import annotations

import pytest
import torch
from synthetic_face import face_model
from torch import Tensor

from dubbing.manner import match_manner

torch.set_num_threads(1)

MODEL = face_model()
INDEX = MODEL.lower.gt(0).nonzero()[:, 0]
FRAMES = 300


def speech(size: float, spread: float = 0.0, frames: int = FRAMES) -> Tensor:
    """Expressions [N, 3]: a jaw that opens and closes by `size`, a constant second expression."""
    time = torch.arange(frames) / 25
    beta = torch.zeros(frames, 3)
    beta[:, 0] = size * (0.5 - 0.5 * torch.cos(6.28 * 3 * time))
    beta[:, 1] = spread
    return beta


def moved(beta: Tensor) -> Tensor:
    return MODEL.expression_vertices(beta)[:, INDEX]


def matched(made: Tensor, own: Tensor, strength: float = 1.0, gate: Tensor | None = None) -> Tensor:
    """Expressions of the matched motion."""
    gate = torch.ones(len(made)) if gate is None else gate
    out = match_manner(MODEL, moved(made), INDEX, gate, own, strength)
    basis = MODEL.expression[:, INDEX].flatten(1)
    return out.flatten(1) @ torch.linalg.pinv(basis)


def test_a_lively_speaker_gets_lively_lips_that_still_close() -> None:
    made, own = speech(0.5), speech(0.9)
    out = matched(made, own)
    assert made[:, 0].amax() < out[:, 0].amax() < 1.0
    assert out[:, 0].amax() > 0.75  # most of the way after 12 s of speech
    closed = made[:, 0] < 0.02
    assert (out[closed, 0] - made[closed, 0]).abs().max() < 0.02
    course = torch.corrcoef(torch.stack([out[:, 0], made[:, 0]]))[0, 1]
    assert course > 0.98  # the words stay


def test_spread_lips_are_taken_on() -> None:
    out = matched(speech(0.5), speech(0.5, spread=0.4))
    wide = speech(0.5)[:, 0] > 0.3
    assert 0.25 < out[wide, 1].mean() < 0.4


def test_own_manner_changes_nothing() -> None:
    made = speech(0.6)
    assert torch.allclose(matched(made, speech(0.6)), made, atol=1e-4)


@pytest.mark.parametrize("strength", [0.0, 0.5, 1.5])
def test_strength_scales_the_change(strength: float) -> None:
    made, own = speech(0.5), speech(0.8)
    change = matched(made, own, strength) - made
    assert torch.allclose(change, strength * (matched(made, own) - made), atol=1e-4)


def test_little_speech_is_trusted_less_and_none_not_at_all() -> None:
    own = speech(0.9)
    short = matched(speech(0.5, frames=40), own)[:, 0].amax()
    assert 0.5 < short < matched(speech(0.5), own)[:, 0].amax() - 0.1
    made = speech(0.5)
    assert torch.equal(
        match_manner(MODEL, moved(made), INDEX, torch.zeros(FRAMES), own), moved(made)
    )
    assert torch.equal(
        match_manner(MODEL, moved(made), INDEX, torch.ones(FRAMES), own[:10]), moved(made)
    )


def test_silence_in_the_speakers_clip_does_not_damp() -> None:
    """Three quarters of the clip at rest: the manner is that of the rest of it."""
    own = torch.cat([speech(0.9), torch.zeros(3 * FRAMES, 3)])
    whole = matched(speech(0.5), speech(0.9))[:, 0].amax()
    assert abs(matched(speech(0.5), own)[:, 0].amax() - whole) < 0.1
