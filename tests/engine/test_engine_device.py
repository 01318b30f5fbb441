"""The engine on a device of its own: everything finds its way there and back."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from stand_in_device import stand_in_card

from dubbing.demo import demo_speech
from dubbing.dubber import Dubber
from dubbing.media.audio import load_speech
from dubbing.motion import RATE
from dubbing.persona import Persona

FRAMES = 12
MOST_WAITS = 20  # per frame; each costs a card about as much as ten of its small steps


def test_the_stand_in_refuses_what_a_card_refuses(monkeypatch: pytest.MonkeyPatch) -> None:
    with stand_in_card(monkeypatch) as card:
        there = torch.arange(6.0, device="cuda").view(2, 3)
        assert there.device.type == (there + 1).device.type == "cuda"
        assert not card.waits.total()
        with pytest.raises(RuntimeError, match="same device"):
            there + torch.ones(3)
        with pytest.raises(TypeError, match="numpy"):
            there.numpy()
        there[:, 0] = 5
        assert there.tolist() == [[5, 1, 2], [5, 4, 5]]
        assert card.waits == Counter(told=1)
        assert there[there > 3].cpu().tolist() == [5, 5, 4, 5]
        assert card.waits == Counter(told=1, size=1, down=1)
        layer = torch.nn.Linear(3, 2).to("cuda")
        assert layer(there).device.type == "cuda"
        with torch.autocast("cuda", torch.float16):
            assert layer(there).dtype == torch.float16


def dubbed(
    engine: Dubber, persona: Persona, pictures: list[NDArray[np.uint8]]
) -> list[NDArray[np.uint8]]:
    """The first frames with words of the demo's speech."""
    frames = [(k / RATE, p) for k, p in enumerate(pictures)]
    return list(engine.dub_frames(frames, load_speech(demo_speech())[4800:], persona))


def test_a_card_draws_the_same_pictures(
    dubber: Dubber, persona: Persona, pictures: list[NDArray[np.uint8]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    here = dubbed(dubber, persona, pictures[:FRAMES])
    with stand_in_card(monkeypatch) as card:
        engine = Dubber.from_pretrained(device="cuda")
        loaded = card.waits.total()
        there = dubbed(engine, persona, pictures[:FRAMES])
        once = card.waits.total() - loaded
        dubbed(engine, persona, pictures[:FRAMES] * 2)
        twice = card.waits.total() - loaded - once
    apart = np.stack(there).astype(float) - np.stack(here)
    assert (np.stack(here) != np.stack(pictures[:FRAMES])).any((1, 2, 3)).all()
    assert np.abs(apart).max() <= 4  # half precision, and another order of additions
    assert np.abs(apart).mean() < 0.01
    assert 0 < (twice - once) / FRAMES <= MOST_WAITS
