"""Batched z-buffer rasteriser. On CUDA in plain torch, without a loop over triangles or frames; on
the CPU a compiled loop (`raster_cpu`) finds the same pixels ten times faster.

In torch, triangles are expanded to their pixel rows, rows to the pixels between their two edges;
the nearest covering triangle of each pixel wins through one scatter. Work and memory are
proportional to the covered pixels (hidden ones included), however thin or large the triangles are.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from dubbing.geometry.raster_cpu import fill

_DEPTH_LEVELS = 2**30
_NOTHING = torch.iinfo(torch.int64).max


@dataclass(frozen=True)
class Raster:
    """What each pixel sees.

    Attributes:
        triangle: [B, H, W] int64 index into the triangle list, -1 for nothing.
        weights: [B, H, W, 3] barycentric weights of that triangle's corners, 0 for nothing.
        corners: [B, H, W, 3] int64 vertex indices of that triangle, 0 for nothing.
    """

    triangle: Tensor
    weights: Tensor
    corners: Tensor

    @property
    def covered(self) -> Tensor:
        """[B, H, W] bool."""
        return self.triangle >= 0

    def interpolate(self, attributes: Tensor) -> Tensor:
        """Vertex attributes [V, C] or [B, V, C] over the picture: [B, C, H, W], 0 for nothing."""
        batch, height, width = self.triangle.shape
        channels = attributes.shape[-1]
        index = self.corners.view(batch, -1)
        if attributes.dim() == 3:  # each picture has its own rows of one long table
            index = index + torch.arange(batch, device=index.device)[:, None] * attributes.shape[1]
        table = attributes.reshape(-1, channels)
        weights = self.weights.reshape(-1, 3).to(table)
        # weighted sums of three rows each, without a copy of the rows
        mixed = F.embedding_bag(
            index.view(-1, 3), table, mode="sum", per_sample_weights=weights
        ).view(batch, height * width, channels)
        return mixed.transpose(1, 2).reshape(batch, channels, height, width)


def rasterize(
    vertices: Tensor, triangles: Tensor, size: tuple[int, int], one_sided: Tensor | None = None
) -> Raster:
    """Rasterise meshes.

    Args:
        vertices: [B, V, 3]; x, y in pixels (pixel centres at +0.5), z any unit, smaller is nearer.
        triangles: [F, 3] int64.
        size: height and width of the picture.
        one_sided: [F] bool, True for triangles that vanish when they are seen from behind (wound
            against the frontal view); None draws every triangle from both sides.

    Returns:
        a `Raster`; of triangles at equal depth the one with the lower index wins.
    """
    if vertices.device.type != "cpu":
        return rasterize_tensors(vertices, triangles, size, one_sided)
    sided = torch.zeros(0, dtype=torch.bool) if one_sided is None else one_sided
    found = fill(
        vertices.detach().double().contiguous().numpy(), triangles.contiguous().numpy(),
        sided.numpy(), size[0], size[1], _DEPTH_LEVELS,
    )  # fmt: skip
    return Raster(*(torch.from_numpy(maps) for maps in found))


def rasterize_tensors(
    vertices: Tensor, triangles: Tensor, size: tuple[int, int], one_sided: Tensor | None = None
) -> Raster:
    """`rasterize` on any device."""
    height, width = size
    batch, count = vertices.shape[0], len(triangles)
    planes, low, high, valid = _setup(vertices, triangles, one_sided)
    first, last = _pixel_range(low[:, 1], high[:, 1], height)
    owner, y = _expand(first, last, valid)
    left, right = _row_span(planes, low, high, owner, y)
    x0, x1 = _pixel_range(left, right, width)
    row, x = _expand(x0, x1, torch.ones_like(x0, dtype=torch.bool))
    owner, y = owner.index_select(0, row), y.index_select(0, row)
    # weights and depth are affine in x and y; rows of `planes` are (d/dx, d/dy, constant)
    px, py = (x + 0.5).float()[:, None], (y + 0.5).float()[:, None]
    taken = planes.float().transpose(1, 2).flatten(1).index_select(0, owner)
    values = taken[:, :4] * px + taken[:, 4:8] * py + taken[:, 8:]
    frame = torch.div(owner, count, rounding_mode="floor")
    pixel = (frame * height + y) * width + x
    face = owner - frame * count
    # depth in the high bits, triangle in the low ones: the least key is the nearest triangle
    key = (values[:, 3].clamp(0, 1).double() * (_DEPTH_LEVELS - 1)).long() * count + face
    best = torch.full((batch * height * width,), _NOTHING, device=key.device)
    best = best.scatter_reduce(0, pixel, key, "amin")
    # what is hidden goes to one row more, so that nobody has to wait for the number of the seen
    seen = torch.where(key == best.index_select(0, pixel), pixel, len(best))
    shape = (batch, height, width)
    weights = values.new_zeros(len(best) + 1, 3).index_copy_(0, seen, values[:, :3])
    triangle = best.new_full((len(best) + 1,), -1).index_copy_(0, seen, face)[:-1]
    corners = triangles.index_select(0, triangle.clamp_min(0)) * (triangle >= 0)[:, None]
    return Raster(triangle.view(shape), weights[:-1].view(*shape, 3), corners.view(*shape, 3))


def _setup(
    vertices: Tensor, triangles: Tensor, one_sided: Tensor | None
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Per triangle of every frame: planes [N, 4, 3] of the three weights and the depth, box
    corners low and high [N, 2], and whether it is drawn [N]."""
    batch = vertices.shape[0]
    points = vertices.detach().double()[:, triangles].flatten(0, 1)
    a, b, c = points.unbind(1)
    area = (b - a)[:, 0] * (c - a)[:, 1] - (b - a)[:, 1] * (c - a)[:, 0]
    valid = area.abs() > 1e-9
    if one_sided is not None:
        valid &= (area > 0) | ~one_sided.repeat(batch)
    scale = torch.where(valid, area, 1.0).reciprocal()
    rows = []
    for p, q in ((b, c), (c, a), (a, b)):
        dx, dy = p[:, 1] - q[:, 1], q[:, 0] - p[:, 0]
        rows.append(torch.stack([dx, dy, -(dx * p[:, 0] + dy * p[:, 1])], -1) * scale[:, None])
    weights = torch.stack(rows, 1)
    z = points[..., 2]
    near, far = z.min(), z.max()
    z = (z - near) / (far - near).clamp_min(1e-9)
    planes = torch.cat([weights, (weights * z[..., None]).sum(1, keepdim=True)], 1)
    return planes, points[..., :2].amin(1), points[..., :2].amax(1), valid


def _pixel_range(low: Tensor, high: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """First and last pixel (int64) whose centre lies in [low, high], cut to 0..size - 1."""
    slack = 1e-7  # an edge through a pixel centre belongs to both its triangles
    first = (low - 0.5 - slack).ceil().clamp(0, size).long()
    last = (high - 0.5 + slack).floor().clamp(-1, size - 1).long()
    return first, last


def _expand(first: Tensor, last: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
    """Ranges [N] to the pairs (owner, value) of all their members."""
    counts = torch.where(valid, (last - first + 1).clamp_min(0), 0)
    owner = torch.repeat_interleave(torch.arange(len(counts), device=counts.device), counts)
    start = counts.cumsum(0) - counts
    place = torch.arange(len(owner), device=owner.device)
    return owner, (first - start).index_select(0, owner) + place


def _row_span(
    planes: Tensor, low: Tensor, high: Tensor, owner: Tensor, y: Tensor
) -> tuple[Tensor, Tensor]:
    """Where the row of pixel centres y crosses its triangle: left and right end (left > right
    where it does not)."""
    edges = planes[:, :3].flatten(1).index_select(0, owner).view(-1, 3, 3)
    slope = edges[..., 0]
    rest = edges[..., 1] * (y + 0.5)[:, None] + edges[..., 2]
    flat = slope.abs() < 1e-12
    crossing = -rest / torch.where(flat, 1.0, slope)
    far = 1e18
    left = torch.where(flat | (slope < 0), -far, crossing).amax(1)
    right = torch.where(flat | (slope > 0), far, crossing).amin(1)
    outside = (flat & (rest < -1e-9)).any(1)
    left = torch.maximum(left, low[owner, 0])
    right = torch.minimum(right, high[owner, 0])
    return torch.where(outside, far, left), torch.where(outside, -far, right)
