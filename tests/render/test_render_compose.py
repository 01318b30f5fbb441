"""Colour match along the border of the rendered region."""

from __future__ import annotations

import torch
from torch import Tensor

from dubbing.models.renderer import blurred
from dubbing.render.compose import GAMMA, LARGEST, match_colour

torch.set_num_threads(1)

SIZE = (96, 128)


def region() -> Tensor:
    """A soft mask [1, h, w]."""
    mask = torch.zeros(1, 1, *SIZE)
    mask[..., 24:72, 32:96] = 1
    return blurred(mask, 4.0)[0]


def picture(seed: int) -> Tensor:
    rough = torch.rand(1, 3, *SIZE, generator=torch.Generator().manual_seed(seed))
    return (0.3 + 0.4 * blurred(rough, 3.0))[0]


def test_equal_pictures_stay_equal() -> None:
    source = picture(0)
    out = match_colour(source.clone(), source, region(), torch.zeros(1, *SIZE))
    assert torch.equal(out, source)


def test_another_light_is_removed() -> None:
    source = picture(1)
    gain = torch.tensor([1.15, 0.9, 1.05])[:, None, None]
    made = (source**2.2 * gain) ** (1 / 2.2)
    out = match_colour(made, source, region(), torch.zeros(1, *SIZE))
    seen = region()[0] > 0.05
    left, before = ((x - source)[:, seen].abs() for x in (out, made))
    assert left.mean() < 0.05 * before.mean()
    assert left.max() < 0.2 * before.max()


def test_texture_keeps_its_contrast() -> None:
    """A dark patch inside gets the light of the border: its ratio to its surroundings stays."""
    source = torch.full((3, *SIZE), 0.6)
    made = torch.full((3, *SIZE), 0.55)
    made[:, 44:52, 60:68] = 0.11
    out = match_colour(made, source, region(), torch.zeros(1, *SIZE))
    assert torch.allclose(out[:, 48, 64] / out[:, 48, 50], torch.tensor(0.2), atol=0.003)
    assert torch.allclose(out[:, 48, 50], torch.tensor(0.6), atol=0.004)


def test_detail_inside_is_kept() -> None:
    """The rendered middle may differ from the source: only the border decides the shift."""
    source, mask = picture(2), region()
    made = source.clone()
    inner = mask[0] > 0.999
    assert inner.sum() > 300
    made[:, inner] += 0.3 * torch.rand(3, int(inner.sum()))
    out = match_colour(made, source, mask, torch.zeros(1, *SIZE))
    assert (out - made)[:, inner].abs().max() < 0.02


def test_what_has_moved_is_not_trusted() -> None:
    """Half of the border moved and shows something else; the other half knows the colours."""
    source, mask = picture(3), region()
    made = source.clone()
    made[:, 48:] += 0.2
    moved = torch.zeros(1, *SIZE)
    moved[:, 44:] = 10.0
    out = match_colour(made.clamp(0, 1), source, mask, moved)
    assert (out - made)[:, :24].abs().max() < 0.02
    assert (out - made)[:, 56:64].mean().abs() < 0.02


def test_the_gain_is_bounded_and_colours_stay_colours() -> None:
    source = torch.zeros(3, *SIZE)
    out = match_colour(torch.ones(3, *SIZE), source, region(), torch.zeros(1, *SIZE))
    assert out.min() >= LARGEST ** (-1 / GAMMA) - 1e-6
    out = match_colour(torch.full((3, *SIZE), 0.05), source, region(), torch.zeros(1, *SIZE))
    assert out.min() >= 0
