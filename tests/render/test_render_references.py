"""The paper's selection of reference frames, for training and for inference."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from torch import Tensor

from dubbing.render.references import (
    N_FACE,
    N_LIP,
    N_LIP_TRAINING,
    covering_lip_references,
    inference_face_references,
    inference_lip_references,
    training_face_references,
    training_lip_references,
)


def test_counts_of_the_paper() -> None:
    assert (N_FACE, N_LIP_TRAINING, N_LIP) == (5, 5, 25)


def test_training_face_references_span_two_counts_on_either_side() -> None:
    assert training_face_references(50, 100) == [40, 45, 50, 55, 60]
    assert training_face_references(50, 100, count=3) == [44, 50, 56]
    # near an end the frames outside are those at the end
    assert training_face_references(2, 100) == [0, 0, 2, 7, 12]
    assert training_face_references(99, 100) == [89, 94, 99, 99, 99]
    assert training_face_references(1, 3) == [0, 0, 1, 2, 2]
    assert training_face_references(0, 1) == [0] * 5


def test_training_lip_references_come_from_the_whole_clip() -> None:
    draws = [training_lip_references(40, random.Random(seed)) for seed in range(200)]
    assert all(len(d) == N_LIP_TRAINING for d in draws)
    assert {k for d in draws for k in d} == set(range(40))
    assert training_lip_references(40, random.Random(3)) == draws[3]


def test_training_lip_references_avoid_the_target() -> None:
    avoid = range(10, 21)
    draws = [training_lip_references(24, random.Random(s), avoid=avoid) for s in range(100)]
    assert {k for d in draws for k in d} == set(range(24)) - set(avoid)
    # a clip with nothing else still gives references
    assert set(training_lip_references(5, random.Random(0), avoid=range(-3, 9))) <= set(range(5))


def test_inference_face_references_are_centred_on_the_frame() -> None:
    assert inference_face_references(50, 100) == [48, 49, 50, 51, 52]
    assert inference_face_references(0, 100) == [0, 1, 2, 3, 4]
    assert inference_face_references(1, 100) == [0, 1, 2, 3, 4]
    assert inference_face_references(98, 100) == [95, 96, 97, 98, 99]
    assert inference_face_references(99, 100) == [95, 96, 97, 98, 99]
    assert inference_face_references(1, 3) == [0, 1, 2, 2, 2]
    assert inference_face_references(0, 1) == [0] * 5
    for frame in range(7):
        assert frame in inference_face_references(frame, 7)


def test_inference_lip_references_are_even_in_the_order_of_opening() -> None:
    opening = np.random.default_rng(0).permutation(97) / 97.0
    picked = inference_lip_references(opening)
    assert len(picked) == N_LIP
    assert len(set(picked)) == N_LIP
    ranks = np.argsort(np.argsort(opening))[picked]
    assert ranks[0] == 0
    assert ranks[-1] == 96
    assert (np.diff(ranks) == 4).all()  # (97 - 1) / (25 - 1)


def mouths(opening: list[float], width: list[float]) -> tuple[Tensor, Tensor]:
    """Lips [T, 2, 3] that are open and wide, and how far they are open [T]."""
    lips = torch.zeros(len(opening), 2, 3)
    lips[:, 0, 0], lips[:, 1, 1] = torch.tensor(width), torch.tensor(opening)
    return lips, lips[:, 1, 1]


def test_covering_lip_references_show_every_kind_of_mouth() -> None:
    """Wide and round mouths of one opening, most of them round: both kinds are among few."""
    random_ = torch.Generator().manual_seed(0)
    opening = torch.rand(300, generator=random_)
    width = torch.where(torch.arange(300) % 30 == 0, 3.0, 0.0)
    lips, order = mouths(opening.tolist(), width.tolist())
    picked = covering_lip_references(lips, order, 8)
    assert len(set(picked)) == 8
    assert picked[0] == int(opening.argmin())
    assert picked[-1] == int(opening.argmax())
    assert (order[picked].diff() >= 0).all()
    assert {float(width[k]) for k in picked} == {0.0, 3.0}
    far = torch.cdist(lips.flatten(1), lips[picked].flatten(1)).amin(1)
    even = inference_lip_references(opening.numpy(), 8)
    assert far.mean() < 0.6 * torch.cdist(lips.flatten(1), lips[even].flatten(1)).amin(1).mean()


def test_covering_lip_references_end_where_no_mouth_is_new() -> None:
    lips, opening = mouths([0.2, 0.1, 0.2, 0.1, 0.3], [0.0] * 5)
    assert covering_lip_references(lips, opening, 4) == [1, 0, 4]
    assert covering_lip_references(lips[:1], opening[:1]) == [0]
    assert covering_lip_references(lips, opening, 1) == [1]


def test_inference_lip_references_of_a_short_clip_are_all_of_it() -> None:
    opening = np.array([0.3, 0.1, 0.2])
    assert inference_lip_references(opening) == [1, 2, 0]
    assert inference_lip_references(opening[:1]) == [0]


@pytest.mark.parametrize("count", [1, 2, 7])
def test_unusable_frames_do_not_serve(count: int) -> None:
    opening = np.linspace(0, 1, 30)
    usable = np.arange(30) % 3 == 0
    picked = inference_lip_references(opening, count, usable)
    assert len(picked) == count
    assert all(usable[k] for k in picked)
    # where none is usable they are taken as they are
    assert len(inference_lip_references(opening, count, np.zeros(30, bool))) == count
