"""Copying from references: the processor's loops and the tensors of any device say the same."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from synthetic_face import face_model, neutral_face

from dubbing.geometry.pose import rotation_matrix
from dubbing.models.attention import Attended
from dubbing.models.renderer import Correspondence, Priors, blurred
from dubbing.render.copying import PixelCopier, PixelGrid, Reference, Sources, sample
from dubbing.render.copying_cpu import add_coarse, enlarge
from dubbing.render.mesh import RenderMesh, extended_vertices
from dubbing.render.scene import (
    WINDOW,
    FaceStates,
    _found_places,
    _found_places_tensors,
    face_states,
    face_windows,
    target_maps,
)
from dubbing.render.smooth import smoothed

POSE = torch.tensor([[0.0, 0.1, 0.0, 4.6, 200.0, 180.0], [0.1, 0.0, -0.1, 4.7, 190.0, 170.0]])


def states_of(mesh: RenderMesh) -> FaceStates:
    moved = face_model().expression_vertices(torch.tensor([[0.5, 0.0, 0.0], [0.0, 0.3, 0.0]]))
    vertices = extended_vertices(neutral_face() + moved, neutral_face(), POSE)
    return face_states(vertices, neutral_face(), moved, POSE, face_windows(mesh, POSE))


def made_sources(mesh: RenderMesh, count: int = 5) -> Sources:
    """References of noise whose places are a smooth warp, and random attention."""
    chance = torch.Generator().manual_seed(4)
    states = states_of(mesh)[:1]
    y, x = torch.meshgrid(torch.arange(144) + 0.5, torch.arange(192) + 0.5, indexing="ij")
    references, places = [], []
    for k in range(count):
        pixels = (torch.rand(200 + k, 260, 3, generator=chance) * 255).byte().numpy()
        origin = states.window[0, :2].floor() - 3
        coarse = blurred(torch.rand(1, 3, *WINDOW, generator=chance), 2.0)[0]
        zero = torch.zeros(states.vertices.shape[1], 2)
        latents = torch.zeros(1, 1, 0, 1, 1)
        references.append(Reference(coarse, pixels, origin, zero, states, latents))
        places.append(torch.stack([x + 3 * torch.sin(y / 9 + k) - 2, y + torch.cos(x / 15)], -1))
    logits = blurred(30 * torch.randn(1, count, *WINDOW, generator=chance), 3.0)
    zeros = torch.zeros(1, count)
    match = Correspondence(torch.stack(places)[None], torch.zeros_like(logits), zeros, zeros)
    return Sources(
        references, match, Attended(torch.zeros(1, 0, 1, 1), logits), Priors().requires_grad_(False)
    )


def scene(mesh: RenderMesh, width: int, height: int) -> tuple[Sources, PixelGrid, torch.Tensor]:
    """Sources, a rectangle of pixels inside their window, and a map that counts everywhere."""
    sources = made_sources(mesh)
    window = sources.references[0].states.window[0]
    grid = PixelGrid.of(int(window[0]) + 20, int(window[1]) + 30, width, height, window)
    return sources, grid, torch.ones(1, 1, *WINDOW)


def test_loops_and_tensors_copy_the_same(mesh: RenderMesh) -> None:
    sources, grid, seen = scene(mesh, 150, 110)
    shown = torch.ones(110, 150)
    copier = PixelCopier(2.4)
    by_loops = copier.copy(sources, seen, grid, shown)
    copier._copy_arrays = copier._copy_tensors  # type: ignore[method-assign]
    by_tensors = copier.copy(sources, seen, grid, shown)
    assert by_loops.shape == (3, 110, 150)
    assert by_tensors.std() > 0.1
    assert (by_loops - by_tensors).abs().mean() < 1e-4
    assert (by_loops - by_tensors).abs().max() < 0.01  # weights under 1/512 are left out


def test_detail_is_spared_where_nothing_is_shown(mesh: RenderMesh) -> None:
    sources, grid, seen = scene(mesh, 60, 50)
    shown = torch.ones(50, 60)
    shown[:, 30:] = 0
    copier = PixelCopier(2.4)
    whole, half = (copier.copy(sources, seen, grid, s) for s in (torch.ones(50, 60), shown))
    assert torch.equal(whole[..., :30], half[..., :30])
    rough = (half - whole)[..., 30:].abs()
    assert rough.mean() > 0.01
    low = [blurred(v[None], 4.0)[0, :, :, 36:] for v in (half, whole)]
    assert (low[0] - low[1]).abs().mean() < 0.25 * rough.mean()  # the colours are there


def test_part_of_a_grid_is_a_grid_of_the_part() -> None:
    window = torch.tensor([10.0, 20.0, 1.5])
    grid = PixelGrid.of(30, 40, 60, 50, window)
    maps = torch.rand(1, 2, *WINDOW, generator=torch.Generator().manual_seed(0))
    corner = torch.tensor([8, 12])
    part = grid.part(5, 25, 10, 40, corner)
    inside = maps[..., 8:, 12:]
    assert torch.allclose(sample(inside, part), sample(maps, grid)[:, 5:25, 10:40], atol=1e-4)
    assert grid.places()[0, 0].tolist() == pytest.approx([(30.5 - 10) / 1.5, (40.5 - 20) / 1.5])


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e30])
def test_lost_places_read_inside_the_picture(value: float) -> None:
    picture = np.random.default_rng(0).random((3, 20, 30), np.float32)
    place = np.full((2, 2, 2), value, np.float32)
    out = np.zeros((2, 2, 3), np.float32)
    add_coarse(out, picture, place, np.ones((2, 2), np.float32))
    assert np.isfinite(out).all()
    column = np.full(3, value, np.float32)
    assert np.isfinite(enlarge(picture.transpose(1, 2, 0).copy(), column, column)).all()


def test_places_in_references_agree(mesh: RenderMesh) -> None:
    states = states_of(mesh)
    raster = target_maps(mesh, states).raster
    attributes = torch.rand(2, states.drawn().shape[1], 12, generator=torch.Generator())
    for corner in (None, torch.tensor([[4, 8], [0, 12]])):
        loops = _found_places(raster, attributes, corner)
        tensors = _found_places_tensors(raster, attributes, corner)
        for a, b in zip(loops, tensors, strict=True):
            assert a.shape == b.shape
            assert torch.allclose(a, b, atol=1e-5)


@pytest.mark.parametrize("sigma", [0.8, 2.4, 6.0])
def test_blur_is_the_same_with_and_without_gradient(sigma: float) -> None:
    maps = torch.rand(2, 3, 40, 50, generator=torch.Generator().manual_seed(1))
    assert torch.allclose(smoothed(maps, sigma), blurred(maps, sigma), atol=1e-6)
    wanted = maps.clone().requires_grad_()
    smoothed(wanted, sigma).sum().backward()
    assert wanted.grad is not None and wanted.grad.abs().sum() > 0


def test_states_of_this_module_are_a_face(mesh: RenderMesh) -> None:
    """The test's own geometry covers the window, or the comparisons above mean nothing."""
    states = states_of(mesh)
    assert torch.allclose(states.rotation, rotation_matrix(POSE[:, :3]))
    covered = target_maps(mesh, replace(states)).raster.covered
    assert covered.float().mean() > 0.5
