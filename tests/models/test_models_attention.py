"""The guided attention is the full one under the same mask."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from dubbing.models.attention import (
    NEVER,
    candidates,
    full_attention,
    guided_attention,
    window_mask,
    window_offsets,
)

torch.set_num_threads(1)

BATCH, WIDTH, DEPTH, SIZE = 2, 8, 5, (9, 12)


def features(count: int, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    random = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=random, dtype=torch.float64)

    query = draw(BATCH, WIDTH, *SIZE)
    return query, draw(BATCH, count, WIDTH, *SIZE), draw(BATCH, count, DEPTH, *SIZE)


def places(count: int, seed: int = 1) -> Tensor:
    """Places around each token's own, some of them outside the reference."""
    random = torch.Generator().manual_seed(seed)
    y, x = torch.meshgrid(torch.arange(SIZE[0]), torch.arange(SIZE[1]), indexing="ij")
    own = torch.stack([x, y], -1).double()
    noise = torch.randn(BATCH, count, *SIZE, 2, generator=random, dtype=torch.float64)
    return own + 2.5 * noise


def bias_of(inside: Tensor, seed: int = 2) -> Tensor:
    random = torch.Generator().manual_seed(seed)
    bias = torch.randn(inside.shape, generator=random, dtype=torch.float64)
    return torch.where(inside, bias, NEVER)


@pytest.mark.parametrize("count", [1, 2, 5, 11])
@pytest.mark.parametrize("window", [1, 3, 5])
def test_guided_equals_full_under_the_same_mask(count: int, window: int) -> None:
    query, key, value = features(count)
    index, inside = candidates(places(count), window, *SIZE)
    assert not inside.all()  # candidates partly outside are part of the test
    bias = bias_of(inside)
    guided = guided_attention(query, key, value, index, bias)
    mask = window_mask(index, bias, inside, SIZE[0] * SIZE[1])
    full = full_attention(query, key, value, mask)
    assert guided.value.shape == (BATCH, DEPTH, *SIZE)
    assert guided.reference_logits.shape == (BATCH, count, *SIZE)
    # a point whose every candidate lies outside has no meaning in either form
    some = inside.any(-1).any(1)
    assert some.float().mean() > 0.5
    for n in range(BATCH):
        seen = some[n]
        assert torch.allclose(guided.value[n][:, seen], full.value[n][:, seen], atol=1e-10)
        there = inside[n].any(-1)
        assert torch.allclose(
            guided.reference_logits[n][there], full.reference_logits[n][there], atol=1e-9
        )


def test_a_reference_out_of_sight_has_no_weight() -> None:
    query, key, value = features(2)
    place = places(2)
    place[:, 1] += 100
    index, inside = candidates(place, 3, *SIZE)
    both = guided_attention(query, key, value, index, bias_of(inside))
    alone = guided_attention(query, key[:, :1], value[:, :1], index[:, :1], bias_of(inside)[:, :1])
    seen = inside[:, 0].any(-1)[:, None].expand_as(both.value)
    assert torch.allclose(both.value[seen], alone.value[seen])
    assert (both.reference_logits.softmax(1)[:, 1][inside[:, 0].any(-1)] == 0).all()


def test_lip_queries_are_the_full_computation_cut_to_the_region() -> None:
    query, key, value = features(3)
    index, inside = candidates(places(3), 3, *SIZE)
    bias = bias_of(inside)
    full = full_attention(query, key, value, window_mask(index, bias, inside, SIZE[0] * SIZE[1]))
    rows, columns = slice(2, 7), slice(3, 10)
    part = guided_attention(
        query[..., rows, columns],
        key,
        value,
        index[:, :, rows, columns],
        bias[:, :, rows, columns],
    )
    seen = inside.any(-1).any(1)[:, None, rows, columns].expand_as(part.value)
    assert torch.allclose(part.value[seen], full.value[..., rows, columns][seen], atol=1e-10)


def test_full_attention_by_hand() -> None:
    """One query, two references of one row: softmax(q k / sqrt(C)) v."""
    query = torch.tensor([1.0, 2.0]).view(1, 2, 1, 1)
    key = torch.tensor([[[1.0, 0.0], [0.0, 1.0]], [[2.0, 1.0], [0.0, 0.0]]]).view(1, 2, 2, 1, 2)
    value = torch.tensor([[10.0, 20.0], [30.0, 40.0]]).view(1, 2, 1, 1, 2)
    logits = torch.tensor([1.0, 2.0, 2.0, 1.0]) / 2**0.5
    weights = logits.softmax(0)
    found = full_attention(query, key, value, torch.zeros(1, 1, 4))
    assert torch.isclose(found.value[0, 0, 0, 0], weights @ torch.tensor([10.0, 20, 30, 40]))
    per_reference = torch.stack([logits[:2].logsumexp(0), logits[2:].logsumexp(0)])
    assert torch.allclose(found.reference_logits[0, :, 0, 0], per_reference)


def test_reference_logits_are_the_references_shares() -> None:
    query, key, value = features(4)
    value[:] = torch.arange(4.0).double().view(1, 4, 1, 1, 1)  # each token names its reference
    index, inside = candidates(places(4), 3, *SIZE)
    found = guided_attention(query, key, value, index, bias_of(inside))
    shares = found.reference_logits.softmax(1)
    named = (shares * torch.arange(4.0).double().view(1, 4, 1, 1)).sum(1)
    assert torch.allclose(found.value[:, 0], named)


def test_the_order_of_references_does_not_matter() -> None:
    query, key, value = features(5)
    index, inside = candidates(places(5), 3, *SIZE)
    bias = bias_of(inside)
    order = torch.tensor([3, 0, 4, 1, 2])
    a = guided_attention(query, key, value, index, bias)
    b = guided_attention(query, key[:, order], value[:, order], index[:, order], bias[:, order])
    assert torch.allclose(a.value, b.value)
    assert torch.allclose(a.reference_logits[:, order], b.reference_logits)


def test_candidates_are_the_window_around_the_nearest_token() -> None:
    assert window_offsets(3, torch.device("cpu")).tolist() == [
        [-1, -1], [0, -1], [1, -1], [-1, 0], [0, 0], [1, 0], [-1, 1], [0, 1], [1, 1],
    ]  # fmt: skip
    place = torch.tensor([[4.4, 2.6], [0.2, 0.0], [-3.0, 50.0]]).view(1, 1, 1, 3, 2)
    index, inside = candidates(place, 3, *SIZE)
    assert index[0, 0, 0, 0].tolist() == [12 * y + x for y in (2, 3, 4) for x in (3, 4, 5)]
    assert inside[0, 0, 0, 1].tolist() == [False] * 4 + [True] * 2 + [False] + [True] * 2
    assert not inside[0, 0, 0, 2].any()
    assert index.min() >= 0
    assert index.max() < 9 * 12


def test_gradients_reach_query_key_value_and_bias() -> None:
    query, key, value = (x.requires_grad_() for x in features(2))
    index, inside = candidates(places(2), 3, *SIZE)
    bias = bias_of(inside).requires_grad_()
    found = guided_attention(query, key, value, index, bias)
    (found.value.square().sum() + found.reference_logits.clamp_min(-50).sum()).backward()
    for x in (query, key, value, bias):
        assert x.grad is not None
        assert torch.isfinite(x.grad).all()
        assert x.grad.abs().max() > 0


def test_no_active_query_is_no_error() -> None:
    query, key, value = features(2)
    index, inside = candidates(places(2), 3, *SIZE)
    none = torch.zeros(BATCH, *SIZE, dtype=torch.bool)
    found = guided_attention(query, key, value, index, bias_of(inside), none)
    assert found.value.shape == (BATCH, DEPTH, *SIZE)
    assert not found.value.any()
    assert not found.reference_logits.any()
