"""The rasteriser against a slow exact one, and what a PNCC map of a face shows."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from synthetic_face import face_model, neutral_face
from torch import Tensor

from dubbing.geometry.pose import apply_pose
from dubbing.geometry.raster import Raster, rasterize, rasterize_tensors
from dubbing.geometry.topology import FACE_OVAL, INNER_LIPS, LOWER_INNER_LIP, UPPER_INNER_LIP

torch.set_num_threads(1)

SIZE = (24, 32)


def exact(
    vertices: np.ndarray, triangles: np.ndarray, one_sided: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Triangle [B, H, W] and weights [B, H, W, 3] by asking every pixel for every triangle."""
    height, width = SIZE
    owner = np.full((len(vertices), height, width), -1)
    weights = np.zeros((len(vertices), height, width, 3))
    for n, points in enumerate(vertices.astype(np.float64)):
        depth = np.full((height, width), np.inf)
        for k, (a, b, c) in enumerate(points[t] for t in triangles):
            area = (b - a)[0] * (c - a)[1] - (b - a)[1] * (c - a)[0]
            if abs(area) <= 1e-9 or (one_sided is not None and one_sided[k] and area < 0):
                continue
            for y in range(height):
                for x in range(width):
                    p = np.array([x + 0.5, y + 0.5])
                    w = np.array(
                        [
                            (q[0] - p[0]) * (r[1] - p[1]) - (q[1] - p[1]) * (r[0] - p[0])
                            for q, r in ((b, c), (c, a), (a, b))
                        ]
                    )
                    w = w / area
                    z = w @ np.array([a[2], b[2], c[2]])
                    if w.min() >= -1e-9 and z < depth[y, x]:
                        depth[y, x], owner[n, y, x], weights[n, y, x] = z, k, w
    return owner, weights


def random_mesh(kind: str) -> tuple[Tensor, Tensor]:
    """Vertices [2, V, 3] and triangles that overlap, within and beyond a picture of SIZE."""
    random = np.random.default_rng(len(kind))
    count = {"small": 14, "large": 5, "thin": 40, "mixed": 12}[kind]
    middle = random.uniform([-6, -6, 0], [38, 30, 50], (2, count, 1, 3))
    reach = {"small": 4.0, "large": 60.0, "thin": 20.0, "mixed": 12.0}[kind]
    corners = middle + random.normal(size=(2, count, 3, 3)) * [reach, reach, 9]
    if kind == "thin":
        corners[:, :, 2] = (corners[:, :, 0] + corners[:, :, 1]) / 2
        corners[:, :, 2, :2] += random.normal(size=(2, count, 2)) * 0.3
    if kind == "mixed":
        corners[:, 0, 1] = corners[:, 0, 0]  # a line
        corners[:, 1, 1:] = corners[:, 1, :1]  # a point
        corners[:, 2] += [1000, -500, 0]  # far outside
        corners[:, 3] -= [0, 0, 1e4]  # very near
    vertices = corners.reshape(2, -1, 3)
    triangles = np.arange(count * 3).reshape(-1, 3)
    return torch.from_numpy(vertices).float(), torch.from_numpy(triangles)


def assert_same(raster: Raster, owner: np.ndarray, weights: np.ndarray) -> None:
    assert np.array_equal(raster.triangle.numpy(), owner)
    assert np.abs(raster.weights.numpy() - weights).max() < 1e-4
    assert torch.equal(raster.covered, torch.from_numpy(owner >= 0))


@pytest.mark.parametrize("kind", ["small", "large", "thin", "mixed"])
def test_same_as_the_slow_exact_rasteriser(kind: str) -> None:
    vertices, triangles = random_mesh(kind)
    owner, weights = exact(vertices.numpy(), triangles.numpy())
    assert (owner >= 0).mean() > 0.01
    raster = rasterize(vertices, triangles, SIZE)
    assert_same(raster, owner, weights)
    corners = triangles[raster.triangle.clamp_min(0)] * raster.covered[..., None]
    assert torch.equal(raster.corners, corners)


@pytest.mark.parametrize("kind", ["small", "large", "thin", "mixed"])
@pytest.mark.parametrize("sided", [False, True])
def test_the_loop_and_the_tensors_agree_bit_by_bit(kind: str, sided: bool) -> None:
    vertices, triangles = random_mesh(kind)
    one_sided = torch.arange(len(triangles)) % 2 == 0 if sided else None
    loop = rasterize(vertices, triangles, SIZE, one_sided)
    tensors = rasterize_tensors(vertices, triangles, SIZE, one_sided)
    assert torch.equal(loop.triangle, tensors.triangle)
    assert torch.equal(loop.weights, tensors.weights)
    assert torch.equal(loop.corners, tensors.corners)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 1e30])
def test_a_lost_vertex_costs_its_own_triangles_only(value: float) -> None:
    vertices = torch.tensor([[[2.0, 2, 1], [20, 2, 1], [2, 20, 1], [25, 18, 1], [30, 4, 1]]])
    triangles = torch.tensor([[0, 1, 2], [1, 3, 4]])
    whole = rasterize(vertices, triangles, SIZE)
    assert (whole.triangle == 1).any()
    vertices[0, 3, :2] = value
    raster = rasterize(vertices, triangles, SIZE)
    assert torch.equal(raster.triangle == 0, whole.triangle == 0)
    assert torch.isfinite(raster.weights).all()


def test_one_sided_triangles_vanish_from_behind() -> None:
    vertices, triangles = random_mesh("mixed")
    one_sided = torch.arange(len(triangles)) % 2 == 0
    owner, weights = exact(vertices.numpy(), triangles.numpy(), one_sided.numpy())
    assert_same(rasterize(vertices, triangles, SIZE, one_sided), owner, weights)
    both, _ = exact(vertices.numpy(), triangles.numpy())
    assert (both != owner).any()


def test_one_sided_follows_the_winding_of_the_frontal_view() -> None:
    corners = torch.tensor([[[4.0, 4, 0], [28, 4, 0], [4, 20, 0]]])
    triangle = torch.tensor([[0, 1, 2]])  # clockwise as seen, y down: the frontal winding
    one_sided = torch.tensor([True])
    assert rasterize(corners, triangle, SIZE, one_sided).covered.any()
    assert not rasterize(corners, triangle.flip(1), SIZE, one_sided).covered.any()
    assert rasterize(corners, triangle.flip(1), SIZE).covered.any()


def test_edges_and_corners_on_pixel_centres_leave_no_gap() -> None:
    """A square from two triangles whose shared edge runs through pixel centres."""
    corners = torch.tensor([[[4.5, 4.5, 1], [12.5, 4.5, 1], [12.5, 12.5, 1], [4.5, 12.5, 1]]])
    raster = rasterize(corners, torch.tensor([[0, 1, 2], [0, 2, 3]]), SIZE)
    assert raster.covered[0, 4:13, 4:13].all()
    assert raster.covered.sum() == 81
    diagonal = raster.triangle[0, range(4, 13), range(4, 13)]
    assert (diagonal == 0).all()  # at equal depth the lower index wins


def test_nothing_in_sight_is_an_empty_picture() -> None:
    vertices = torch.tensor([[[-50.0, 0, 0], [-40, 0, 0], [-45, 20, 0]]])
    raster = rasterize(vertices, torch.tensor([[0, 1, 2]]), SIZE)
    assert not raster.covered.any()
    assert not raster.interpolate(torch.ones(3, 2)).any()


def test_interpolate_mixes_the_corners() -> None:
    vertices, triangles = random_mesh("mixed")
    raster = rasterize(vertices, triangles, SIZE)
    own = torch.randn(2, vertices.shape[1], 4, generator=torch.Generator().manual_seed(0))
    for attributes in (own, own[0]):
        maps = raster.interpolate(attributes)
        assert maps.shape == (2, 4, *SIZE)
        for n, y, x in ((0, 3, 5), (0, 12, 16), (1, 12, 16), (1, 20, 30)):
            table = attributes[n] if attributes.dim() == 3 else attributes
            k = int(raster.triangle[n, y, x])
            seen = raster.weights[n, y, x] @ table[triangles[k]] if k >= 0 else torch.zeros(4)
            assert torch.allclose(maps[n, :, y, x], seen, atol=1e-6)


def test_interpolated_positions_are_the_pixels_own() -> None:
    vertices, triangles = random_mesh("large")
    raster = rasterize(vertices, triangles, SIZE)
    place = raster.interpolate(vertices[..., :2]).permute(0, 2, 3, 1)
    y, x = torch.meshgrid(torch.arange(24.0), torch.arange(32.0), indexing="ij")
    centre = torch.stack([x, y], -1).expand_as(place) + 0.5
    assert torch.allclose(place[raster.covered], centre[raster.covered], atol=0.01)


def inside(polygon: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Pixels [H, W] whose centre lies in a polygon [N, 2] (even-odd rule)."""
    y, x = np.mgrid[0 : size[0], 0 : size[1]] + 0.5
    odd = np.zeros(size, bool)
    for (x0, y0), (x1, y1) in zip(polygon, np.roll(polygon, -1, 0), strict=True):
        if y0 != y1:
            crosses = (y0 > y) != (y1 > y)
            odd ^= crosses & (x < (x1 - x0) * (y - y0) / (y1 - y0) + x0)
    return odd


def test_pncc_map_of_a_face() -> None:
    model = face_model()
    face = model.vertices(neutral_face(), torch.tensor([[1.3, 0.0, 0.0]]))
    posed = apply_pose(face, torch.tensor([[0.0, 0.0, 0.0, 4.1, 64.0, 66.0]]))
    size = (132, 128)
    raster = rasterize(posed, model.triangles, size)
    pncc = raster.interpolate(model.pncc())
    seen = raster.covered[0].numpy()
    points = posed[0, :, :2].numpy()
    mouth = inside(points[[*UPPER_INNER_LIP, *LOWER_INNER_LIP[-2:0:-1]]], size)
    outline = inside(points[list(FACE_OVAL)], size)
    assert mouth.sum() > 30
    assert not seen[mouth].any()  # the opening is black
    assert (seen & ~outline).sum() < 10  # so is what lies outside (the temples fold a little)
    assert seen[outline & ~mouth].mean() > 0.97  # the rest are the eyes
    assert not pncc[:, :, ~torch.from_numpy(seen)[None][0]].any()
    colours = pncc[0][:, torch.from_numpy(seen)]
    assert colours.min() >= 0.1 - 1e-5
    assert colours.max() <= 1 + 1e-5
    # colours name places of the neutral face: red grows to the right, green downwards
    row, column = pncc[0, 0, 40][seen[40]], pncc[0, 1, :, 64][seen[:, 64]]
    assert (row.diff() > 0).all()
    assert column[-1] - column[0] > 0.8
    # the colour of the mouth corner does not depend on the expression
    assert torch.equal(model.pncc()[list(INNER_LIPS)], face_model().pncc()[list(INNER_LIPS)])


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
@pytest.mark.parametrize("kind", ["small", "large", "thin", "mixed"])
def test_cuda_draws_the_same_picture(kind: str) -> None:
    vertices, triangles = random_mesh(kind)
    here = rasterize(vertices, triangles, SIZE)
    there = rasterize(vertices.cuda(), triangles.cuda(), SIZE)
    assert torch.equal(there.triangle.cpu(), here.triangle)
    assert torch.allclose(there.weights.cpu(), here.weights, atol=1e-4)
    own = torch.randn(2, vertices.shape[1], 3)
    assert torch.allclose(there.interpolate(own.cuda()).cpu(), here.interpolate(own), atol=1e-3)
