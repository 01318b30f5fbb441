"""Small movements of the mouth come from the speaker; opening, width and jaw stay as made."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

import dubbing.nuances
from dubbing.geometry.lower_face import speech_directions
from dubbing.geometry.morphable import MorphableModel
from dubbing.nuances import take_on_nuances
from dubbing.style_reference import StyleReference
from dubbing.weights import load_engine

torch.set_num_threads(1)

MODEL: MorphableModel = load_engine("default", torch.device("cpu")).morphable
INDEX = MODEL.lower.gt(0).nonzero()[:, 0]
BASIS = MODEL.expression[:, INDEX].flatten(1)
DECIDED = speech_directions(MODEL)
ALONG = torch.linalg.pinv(DECIDED)  # [E, 3]
FRAMES = 300


def beside(number: int) -> Tensor:
    """An expression [E] of length 1 that leaves opening, width and jaw alone."""
    null = torch.linalg.svd(DECIDED, full_matrices=True)[2][3:]
    return null[number]


def opening(frames: int, pace: float) -> Tensor:
    """An opening mouth as expressions [N, E]."""
    time = torch.arange(frames) / 25
    course = 0.15 * (1 - torch.cos(6.28 * pace * time) * torch.cos(0.9 * time))
    return course[:, None] * ALONG[:, 0]


def crooked(expressions: Tensor, number: int = 0, size: float = 1.0) -> Tensor:
    """The same, drawn aside the more the wider the mouth is open."""
    course = (expressions @ DECIDED.T)[:, 0]
    return expressions + size * (course / 0.15).square()[:, None] * beside(number)


def moved(expressions: Tensor) -> Tensor:
    return (expressions @ BASIS).view(len(expressions), -1, 3)


def taken(made: Tensor, own: StyleReference, strength: float = 1.0) -> Tensor:
    """Expressions of the motion that has taken on the nuances of `own`."""
    out = take_on_nuances(MODEL, moved(made), INDEX, own, strength)
    return out.flatten(1) @ torch.linalg.pinv(BASIS)


def reference(expressions: Tensor, *starts: int) -> StyleReference:
    return StyleReference(expressions, [0, *starts])


def test_the_speakers_crookedness_is_taken_on_where_the_mouth_opens() -> None:
    made = opening(FRAMES, 1.3)
    out = taken(made, reference(crooked(opening(400, 1.0))))
    aside, wanted = out @ beside(0), crooked(made) @ beside(0)
    assert torch.corrcoef(torch.stack([aside, wanted]))[0, 1] > 0.9
    assert 0.4 < aside.std() / wanted.std() < 0.9  # the share that is the speaker's
    assert (made @ beside(0)).abs().max() < 1e-4  # made without


def test_opening_width_and_jaw_stay() -> None:
    made = crooked(opening(FRAMES, 1.3), number=1)
    out = taken(made, reference(crooked(opening(400, 1.0))))
    assert (out - made).abs().max() > 0.3
    assert torch.allclose(out @ DECIDED.T, made @ DECIDED.T, atol=1e-4)


def test_motion_of_the_speakers_own_kind_stays() -> None:
    own = crooked(opening(400, 1.0))
    out = taken(own[100:300], reference(own))
    assert (out - own[100:300]).norm(dim=1).mean() < 0.1 * own.std(0).norm()


def test_strength_scales_the_change() -> None:
    made, own = opening(FRAMES, 1.3), reference(crooked(opening(400, 1.0)))
    lower = moved(made)
    assert take_on_nuances(MODEL, lower, INDEX, own, 0.0) is lower
    half, whole = taken(made, own, 0.5) - made, taken(made, own) - made
    assert torch.allclose(half, whole / 2, atol=1e-3)


def test_too_short_a_reference_shows_nothing() -> None:
    made = moved(opening(FRAMES, 1.3))
    assert take_on_nuances(MODEL, made, INDEX, reference(crooked(opening(49, 1.0)))) is made


def test_the_mouth_does_not_jump_between_pieces_of_the_reference() -> None:
    """Two takes, drawn to either side: a made mouth follows one of them for a while, and does not
    tremble between both."""
    one = opening(200, 1.0)
    own = reference(torch.cat([crooked(one), crooked(one, size=-1.0)]), 200)
    aside = taken(opening(FRAMES, 1.0), own) @ beside(0)
    fastest = (crooked(one) @ beside(0)).diff().abs().max()
    assert aside.diff().abs().max() < fastest


def test_windows_do_not_show(monkeypatch: pytest.MonkeyPatch) -> None:
    made, own = opening(900, 1.3), reference(crooked(opening(400, 1.0)))
    whole = taken(made, own)
    monkeypatch.setattr(dubbing.nuances, "WINDOW", 250)
    assert torch.allclose(taken(made, own), whole, atol=1e-2)
    assert (whole - made).abs().max() > 0.3


def test_the_result_may_replace_what_was_made() -> None:
    lower, own = moved(opening(FRAMES, 1.3)), reference(crooked(opening(400, 1.0)))
    apart = take_on_nuances(MODEL, lower, INDEX, own)
    assert not torch.equal(apart, lower)
    assert take_on_nuances(MODEL, lower, INDEX, own, out=lower) is lower
    assert torch.equal(apart, lower)
