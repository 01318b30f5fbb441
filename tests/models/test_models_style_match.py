"""Made motion is brought to a speaker's style as a whole; what speech decided stays."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from dubbing.geometry.lower_face import lower_expressions, speech_directions
from dubbing.models.motion_statistics import MotionStatistics
from dubbing.style_match import match_style
from dubbing.style_reference import StyleReference
from dubbing.weights import EngineWeights, load_engine

torch.set_num_threads(1)

FRAMES = 250


@pytest.fixture(scope="module")
def weights() -> EngineWeights:
    return load_engine("default", torch.device("cpu"))


def speaking(frames: int, seed: int, size: float = 0.3) -> Tensor:
    """Expressions [N, E] that open and round the mouth in syllables."""
    random = torch.Generator().manual_seed(seed)
    slow = torch.randn(frames // 4 + 2, 8, generator=random)
    course = F.interpolate(slow.T[None], frames, mode="linear", align_corners=True)[0].T
    beta = torch.zeros(frames, 48)
    beta[:, :8] = size * course / torch.arange(1, 9)
    return beta


def vertices(weights: EngineWeights, beta: Tensor) -> Tensor:
    """Displacements [N, L, 3] of expressions [N, E]."""
    return weights.morphable.expression_vertices(beta)[:, weights.geometry.lower]


def likeness(weights: EngineWeights, made: Tensor, own: Tensor) -> float:
    """Cosine of the metric's codes of two motions [N, L, 3]."""
    assert weights.style_metric is not None
    return float(weights.style_metric(made[None]) @ weights.style_metric(own[None]).T)


def matched(weights: EngineWeights, made: Tensor, own: Tensor, strength: float = 1.0,
            gate: Tensor | None = None, starts: tuple[int, ...] = (0,)) -> Tensor:  # fmt: skip
    """Displacements `made` in the style of expressions `own`."""
    assert weights.style_metric is not None
    gate = torch.ones(len(made)) if gate is None else gate
    return match_style(
        weights.style_metric, weights.morphable, made, weights.geometry.lower, gate,
        StyleReference(own, list(starts)), strength,
    )  # fmt: skip


def somebody(weights: EngineWeights) -> Tensor:
    """Expressions of somebody who speaks aside, with small movements that go together."""
    beta = speaking(FRAMES, 5, 0.4)
    beta[:, 3] += 0.8 * beta[:, 0] + 0.2
    beta[:, 5] -= 0.5 * beta[:, 1]
    return beta


def test_statistics_follow_an_affine_map_in_closed_form() -> None:
    x = torch.randn(2, 80, 5, generator=torch.Generator().manual_seed(1)).cumsum(1) / 4
    known = torch.ones(2, 80)
    known[1, 60:] = 0
    about, shift = torch.linspace(-1, 1, 5), torch.linspace(0.5, 0, 5)
    matrix = torch.eye(5) + 0.2 * torch.randn(5, 5, generator=torch.Generator().manual_seed(2))
    closed = MotionStatistics.of(x, known).moved(about, shift, matrix)
    moved = MotionStatistics.of(about + shift + (x - about) @ matrix, known)
    assert torch.allclose(closed.described(4), moved.described(4), atol=1e-4)
    assert closed.described(4).shape == (2, 3 * 5 + 6)
    unknown = x.clone()
    unknown[1, 60:] = 9
    assert torch.equal(
        MotionStatistics.of(unknown, known).described(4), MotionStatistics.of(x, known).described(4)
    )


def test_the_style_comes_near_and_speech_stays(weights: EngineWeights) -> None:
    made, own = vertices(weights, speaking(FRAMES, 1)), somebody(weights)
    out = matched(weights, made, own)
    before, after = (likeness(weights, m, vertices(weights, own)) for m in (made, out))
    assert 1 - after < 0.4 * (1 - before)
    index = weights.geometry.lower
    directions = speech_directions(weights.morphable)
    said, kept = (
        lower_expressions(weights.morphable, m, index) @ directions.T for m in (made, out)
    )
    for column in range(3):
        pair = torch.stack([said[:, column], kept[:, column]])
        assert float(torch.corrcoef(pair)[0, 1]) > 0.97
        assert 0.8 < float(kept[:, column].std() / said[:, column].std()) < 1.25


def test_strength_goes_from_nothing_to_the_whole(weights: EngineWeights) -> None:
    made, own = vertices(weights, speaking(FRAMES, 1)), somebody(weights)
    whole, half = matched(weights, made, own), matched(weights, made, own, 0.5)
    assert torch.allclose(half - made, 0.5 * (whole - made), atol=1e-6)
    assert matched(weights, made, own, 0.0) is made


def test_where_nobody_speaks_nothing_changes(weights: EngineWeights) -> None:
    made, own = vertices(weights, speaking(FRAMES, 1)), somebody(weights)
    gate = torch.ones(FRAMES)
    gate[100:150] = 0
    out = matched(weights, made, own, gate=gate)
    assert torch.equal(out[100:150], made[100:150])
    assert float((out[:100] - made[:100]).abs().max()) > 1e-3


def test_pauses_of_the_speech_do_not_count_as_style(weights: EngineWeights) -> None:
    """Half a minute of rest before the same words: the words come out as without it."""
    made, own = vertices(weights, speaking(FRAMES, 1)), somebody(weights)
    rested = torch.cat([torch.zeros(750, *made.shape[1:]), made])
    gate = torch.cat([torch.zeros(750), torch.ones(FRAMES)])
    out = matched(weights, rested, own, gate=gate)
    plain = matched(weights, made, own)
    assert torch.equal(out[:750], rested[:750])
    assert float((out[750:] - plain).norm() / (plain - made).norm()) < 0.1
    seldom = torch.zeros(FRAMES)
    seldom[:40] = 1
    assert matched(weights, made, own, gate=seldom) is made


def test_too_little_shows_no_style(weights: EngineWeights) -> None:
    made, own = vertices(weights, speaking(FRAMES, 1)), somebody(weights)
    assert matched(weights, short := made[:49], own) is short
    assert matched(weights, made, own[:49]) is made
    torn = tuple(range(0, 240, 12))  # no piece of the reference lasts 0.8 s
    assert matched(weights, made, own[:240], starts=torn) is made


def test_cuts_of_the_reference_are_no_movements(weights: EngineWeights) -> None:
    """Two pieces in the other order show the same: what lies between is not looked at."""
    made, own = vertices(weights, speaking(FRAMES, 1)), somebody(weights)
    in_pieces = matched(weights, made, torch.cat([own[125:], own[:125]]), starts=(0, 125))
    whole = matched(weights, made, own, starts=(0, 125))
    assert torch.allclose(in_pieces, whole, atol=2e-3)


def test_the_map_is_fitted_in_inference_mode_and_in_place(weights: EngineWeights) -> None:
    assert weights.style_metric is not None
    made, own = vertices(weights, speaking(FRAMES, 1)), somebody(weights)
    expected = matched(weights, made, own)
    with torch.inference_mode():
        inside = made.clone()
        out = match_style(
            weights.style_metric, weights.morphable, inside, weights.geometry.lower,
            torch.ones(FRAMES), StyleReference(own, [0]), out=inside,
        )  # fmt: skip
        assert out is inside
        assert torch.equal(inside, expected)
    assert all(p.grad is None for p in weights.style_metric.parameters())
