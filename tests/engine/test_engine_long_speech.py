"""Stage 1 on long speech: one call, no seams, and the same answer wherever windows fall."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

import dubbing.motion
from dubbing.media.audio import load_speech
from dubbing.motion import RATE, drive
from dubbing.speech.features import SpeechFeatures
from dubbing.style_reference import StyleReference
from dubbing.weights import EngineWeights, load_engine

torch.set_num_threads(1)

SPEECH = Path(dubbing.__file__).parent / "assets" / "demo_speech.flac"


@pytest.fixture(scope="module")
def weights() -> EngineWeights:
    return load_engine("default", torch.device("cpu"))


@pytest.fixture(scope="module")
def speech() -> Tensor:
    """The demo's speech, four times with pauses between."""
    once = torch.from_numpy(load_speech(SPEECH))
    return torch.cat([torch.cat([once, torch.zeros(3333 * k)]) for k in range(4)])


def motion(
    weights: EngineWeights, speech: Tensor, features: SpeechFeatures,
    own: StyleReference | None = None,
) -> Tensor:  # fmt: skip
    """[N, L, 3] for the average speaker, or for one who moves as `own`."""
    net, rest = weights.geometry, torch.zeros(len(weights.morphable.expression))
    seconds = len(speech) / 16000
    return drive(
        features, net, weights.morphable, speech, seconds, net.mean, net.average_style, rest, own,
        metric=weights.style_metric,
    ).lower  # fmt: skip


def somebody(weights: EngineWeights, speech: Tensor) -> StyleReference:
    """A speaker who moves more than the average, and whose mouth is drawn aside as it opens."""
    net, model = weights.geometry, weights.morphable
    lower = motion(weights, speech.flip(0), usual(weights))
    basis = model.expression[:, net.lower].flatten(1)
    beta = 1.5 * lower.flatten(1) @ torch.linalg.pinv(basis)
    beta[:, 12] += beta[:, 0].square()
    return StyleReference(beta[:500], [0])


def usual(weights: EngineWeights) -> SpeechFeatures:
    return SpeechFeatures(weights.speech_encoder, standardised=True)


def size(x: Tensor) -> Tensor:
    """Mean length of the displacements in each frame."""
    return x.norm(dim=-1).mean(1)


@pytest.mark.parametrize("known", [False, True])
@pytest.mark.parametrize(("window_s", "hop_s"), [(8.0, 2.0), (7.0, 2.3)])
def test_motion_hardly_depends_on_where_windows_fall(
    weights: EngineWeights, speech: Tensor, window_s: float, hop_s: float, known: bool
) -> None:
    """Stated tolerance: on average 10 % of the movement's size."""
    own = somebody(weights, speech) if known else None
    base = motion(weights, speech, usual(weights), own)
    moved = SpeechFeatures(
        weights.speech_encoder, window_s=window_s, hop_s=hop_s, standardised=True
    )
    other = motion(weights, speech, moved, own)
    movement = size(base - base.mean(0)).mean()
    assert size(other - base).mean() < 0.10 * movement
    assert size(motion(weights, speech.flip(0), usual(weights), own) - base).mean() > 0.5 * movement


def test_passes_of_the_network_join_without_a_seam(
    weights: EngineWeights, speech: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Many short passes of stage 1 against one: the seams move nothing that could be seen."""
    whole = motion(weights, speech, usual(weights))
    monkeypatch.setattr(dubbing.motion, "WINDOW", 350)
    joined = motion(weights, speech, usual(weights))
    assert len(whole) > 2 * 350 - 300  # more than one pass
    movement = size(whole - whole.mean(0)).mean()
    assert size(joined - whole).max() < 0.1 * movement
    steps = size(joined.diff(dim=0))
    assert steps.max() <= 1.1 * size(whole.diff(dim=0)).max()


def test_the_same_words_later_give_the_same_motion(weights: EngineWeights) -> None:
    """Ten seconds of silence before: the lips do what they did, ten seconds later. The first
    second is left out, where one of both has nothing before it."""
    once = torch.from_numpy(load_speech(SPEECH))
    now = motion(weights, once, usual(weights))
    later = motion(weights, torch.cat([torch.zeros(160000), once]), usual(weights))
    count = len(now) - RATE
    a, b = now[RATE:count], later[11 * RATE : 10 * RATE + count]
    assert size(b - a).mean() < 0.12 * size(a - a.mean(0)).mean()
    assert size(later[: 8 * RATE].diff(dim=0)).max() == 0  # and rest until then
