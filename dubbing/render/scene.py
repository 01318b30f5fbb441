"""From geometry to what the renderer reads: maps, masks and correspondences of windows.

A window is the lower face at the renderer's own scale: WINDOW pixels, each `scale` frame pixels
wide. Everything here is in window pixels; only `Window` knows the frame.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch
import torch.nn.functional as F
from torch import Tensor

from dubbing.geometry.pose import apply_pose, rotation_matrix, turn_between
from dubbing.geometry.raster import Raster, rasterize
from dubbing.geometry.topology import LIPS
from dubbing.models.geometry_net import VERTEX_SCALE
from dubbing.models.renderer import Correspondence
from dubbing.render.mesh import RenderMesh, extended_displacement
from dubbing.render.scene_cpu import found_places
from dubbing.render.smooth import smoothed
from dubbing.render.teeth import teeth_shares, with_teeth

WINDOW = (144, 192)  # height, width in window pixels; multiples of the latent stride
LIP_WINDOW = (80, 120)
FEATHER = 2.5  # window pixels: smooths the mask's facets
RING_MOVED = 1.0  # window pixels: surroundings that moved farther are replaced
MOUTH_TURN = 1.0  # difference between mouths per radian between their heads: teeth and tongue are
# not on the mesh, and another head shows another side of them
FACE_HEIGHT = 170.0  # window pixels from forehead to chin, as in a 256-px face crop


@dataclass(frozen=True)
class FaceStates:
    """Geometry of some frames of one track.

    Attributes:
        vertices: [T, V + R, 3] extended mesh in frame pixels.
        displacement: [T, V + R, 3] canonical expression displacement.
        rotation: [T, 3, 3].
        window: [T, 3] left, top (frame pixels) and scale (frame pixels per window pixel).
        teeth: [T, 2, K] where they end, see `teeth_shares`.
    """

    vertices: Tensor
    displacement: Tensor
    rotation: Tensor
    window: Tensor
    teeth: Tensor

    def __getitem__(self, index: Tensor | slice | list[int]) -> FaceStates:
        return FaceStates(*(getattr(self, f.name)[index] for f in fields(self)))

    def to(self, device: torch.device) -> FaceStates:
        """The same on a device, in one copy."""
        if self.vertices.device == device:
            return self
        parts = [getattr(self, f.name) for f in fields(self)]
        packed = torch.cat([part.flatten(1) for part in parts], 1).to(device)
        there = packed.split_with_sizes([part[0].numel() for part in parts], 1)
        pairs = zip(there, parts, strict=True)
        return FaceStates(*(torch.unflatten(rows, 1, p.shape[1:]) for rows, p in pairs))

    def in_window(self) -> Tensor:
        """Vertices [T, V + R, 3] in window pixels."""
        shift = torch.cat([self.window[:, :2], torch.zeros_like(self.window[:, :1])], -1)
        return (self.vertices - shift[:, None]) / self.window[:, None, 2:]

    def drawn(self) -> Tensor:
        """The points [T, V + R + 2 K, 3] of the mesh's triangles in window pixels."""
        return with_teeth(self.in_window(), self.teeth)


def face_windows(mesh: RenderMesh, pose: Tensor) -> Tensor:
    """Windows [T, 3] (left, top, scale) of poses [T, 6] in frame pixels."""
    scale = 2 * pose[:, 3].exp() / FACE_HEIGHT
    middle = apply_pose(mesh.middle.expand(len(pose), 1, 3), pose)[:, 0, :2]
    half = torch.tensor([WINDOW[1] / 2, WINDOW[0] / 2]).to(pose)
    return torch.cat([middle - half * scale[:, None], scale[:, None]], -1)


def face_states(
    vertices: Tensor, template: Tensor, displacement: Tensor, pose: Tensor, window: Tensor
) -> FaceStates:
    """Bundle extended vertices [T, V + R, 3] with expression displacements [T, V, 3] of the neutral
    face `template` [V, 3]."""
    rotation, teeth = rotation_matrix(pose[:, :3]), teeth_shares(template, displacement)
    return FaceStates(vertices, extended_displacement(displacement), rotation, window, teeth)


@dataclass(frozen=True)
class TargetMaps:
    """Maps of target windows: pncc [B, 3, h, w]; lips and mask [B, 1, h, w] in 0..1; raster."""

    pncc: Tensor
    lips: Tensor
    mask: Tensor
    raster: Raster


def target_maps(mesh: RenderMesh, states: FaceStates) -> TargetMaps:
    """Rasterise windows of B frames."""
    raster = rasterize(states.drawn(), mesh.triangles, WINDOW, mesh.one_sided)
    attributes = torch.cat([mesh.colours, mesh.lips[:, None], mesh.mask[:, None]], -1)
    attributes = attributes.expand(len(states.teeth), -1, -1)
    maps = raster.interpolate(with_teeth(attributes, states.teeth))
    face = ((raster.triangle >= 0) & (raster.triangle < mesh.surface))[:, None]
    mouth = (raster.triangle >= mesh.surface)[:, None] & (maps[:, 3:4] > 0)
    lips = torch.where(mouth, 1.0, maps[:, 3:4])
    mask = smoothed(torch.where(mouth, 1.0, maps[:, 4:5]), FEATHER) * _edge_ramp(maps)
    return TargetMaps(maps[:, :3] * face, lips.clamp(0, 1), mask.clamp(0, 1), raster)


def needed_mask(mesh: RenderMesh, maps: TargetMaps, moved: Tensor) -> Tensor:
    """The mask without the surroundings of the face where these need not change.

    Neck, hair and background beside the outline are replaced only as far as geometry has moved
    there: where it has not, the source itself is the best picture of them.

    Args:
        moved: [B, 1, h, w] distance in window pixels between source and target geometry.
    """
    triangle = maps.raster.triangle[:, None]
    inside = (triangle >= 0) & (triangle < mesh.first_ring)
    need = torch.where(inside, 1.0, 1 - torch.exp(-((moved / RING_MOVED) ** 2)))
    return maps.mask * smoothed(need, FEATHER)


def _edge_ramp(like: Tensor, width: int = 6) -> Tensor:
    """[1, 1, h, w]: 0 on the window's edge, 1 from `width` pixels on."""
    h, w = like.shape[-2:]
    y = torch.arange(h, device=like.device).add(0.5)
    x = torch.arange(w, device=like.device).add(0.5)
    y, x = torch.minimum(y, h - y) / width, torch.minimum(x, w - x) / width
    return torch.minimum(y[:, None], x[None]).clamp(0, 1)[None, None]


def reference_maps(mesh: RenderMesh, states: FaceStates) -> Tensor:
    """PNCC maps [T, 3, h, w] of reference windows."""
    raster = rasterize(states.in_window(), mesh.triangles[: mesh.surface], WINDOW)
    return raster.interpolate(mesh.colours)


def correspond(
    raster: Raster,
    target: FaceStates,
    references: FaceStates,
    count: int,
    corner: Tensor | None = None,
) -> Correspondence:
    """Where target pixels lie in the windows of their references.

    Args:
        raster: of B target windows (or equal parts of them).
        target: states of the B targets.
        references: states of B * count references, those of one target together.
        corner: [B, 2] (y, x) of the parts in the windows, where the raster is of parts.
    """
    grouped = (raster.triangle.shape[0], count)
    places = torch.unflatten(references.drawn()[..., :2], 0, grouped)
    moved = torch.unflatten(references.displacement, 0, grouped) - target.displacement[:, None]
    cost = moved.norm(dim=-1, keepdim=True) * VERTEX_SCALE
    # one interpolation for every reference: [B, V, count * 3]
    there = with_teeth(cost, target.teeth[:, None])
    attributes = torch.cat([places, there], -1).permute(0, 2, 1, 3).flatten(2)
    found = _found_places if attributes.device.type == "cpu" else _found_places_tensors
    place, away = found(raster, attributes, corner)
    turn = turn_between(torch.unflatten(references.rotation, 0, grouped), target.rotation[:, None])
    mouth = mouths_apart(cost[:, :, list(LIPS), 0], turn)
    return Correspondence(place, away, turn, mouth)


def mouths_apart(lips: Tensor, turn: Tensor) -> Tensor:
    """How different whole mouths look: [...] from the expression differences of their lips
    [..., L] and the angles between the heads, which broadcast to [...]."""
    return lips.mean(-1) + MOUTH_TURN * turn


def _found_places(
    raster: Raster, attributes: Tensor, corner: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Place [B, N, h, w, 2] and cost [B, N, h, w] from vertex attributes [B, V, 3 N]."""
    shift = torch.zeros(len(attributes), 2, dtype=torch.int64) if corner is None else corner
    maps = (raster.triangle, raster.weights, raster.corners, attributes, shift)
    place, cost = found_places(*(m.detach().contiguous().numpy() for m in maps))
    return torch.from_numpy(place), torch.from_numpy(cost)


def _found_places_tensors(
    raster: Raster, attributes: Tensor, corner: Tensor | None
) -> tuple[Tensor, Tensor]:
    """The same on any device."""
    maps = torch.unflatten(raster.interpolate(attributes), 1, (-1, 3))
    h, w = maps.shape[-2:]
    place = maps[:, :, :2].permute(0, 1, 3, 4, 2)
    # where no triangle lies (far corners) the same place of the window stands in
    y = torch.arange(h, device=place.device).add(0.5)[:, None].expand(h, w)
    x = torch.arange(w, device=place.device).add(0.5)[None].expand(h, w)
    same = torch.stack([x, y], -1)[None, None]
    if corner is not None:
        same = same + corner.flip(-1)[:, None, None, None]
    return torch.where(raster.covered[:, None, ..., None], place, same), maps[:, :, 2]


def lip_corner(mesh: RenderMesh, states: FaceStates, pose: Tensor) -> Tensor:
    """Top-left [T, 2] (y, x) of the lip window inside the window, on the token grid."""
    mouth = apply_pose(mesh.mouth.expand(len(pose), 1, 3), pose)[:, 0, :2]
    inside = (mouth - states.window[:, :2]) / states.window[:, 2:]
    corner = inside.flip(-1) - torch.tensor(LIP_WINDOW).to(inside) / 2
    corner = (corner / 4).round().long() * 4
    limit = torch.tensor(WINDOW, device=corner.device) - torch.tensor(LIP_WINDOW).to(corner)
    return torch.minimum(corner.clamp_min(0), limit)


def part_of(raster: Raster, corner: Tensor, size: tuple[int, int]) -> Raster:
    """Equal parts of a raster, one per picture, at corners [B, 2] (y, x)."""
    return Raster(
        cut(raster.triangle, corner, size),
        cut(raster.weights.permute(0, 3, 1, 2), corner, size).permute(0, 2, 3, 1).contiguous(),
        cut(raster.corners.permute(0, 3, 1, 2), corner, size).permute(0, 2, 3, 1).contiguous(),
    )


def part_of_match(
    match: Correspondence, count: int, corner: Tensor, size: tuple[int, int]
) -> Correspondence:
    """Equal parts of a correspondence with its last `count` references."""
    place = cut(match.place[:, -count:].movedim(-1, 2), corner, size).movedim(2, -1)
    cost = cut(match.cost[:, -count:], corner, size)
    return Correspondence(place, cost, match.turn[:, -count:], match.mouth[:, -count:])


def cut(maps: Tensor, corner: Tensor, size: tuple[int, int]) -> Tensor:
    """Parts [B, ..., h, w] of maps [B, ..., H, W] at corners [B, 2] (y, x)."""
    height, width = size
    parts = [
        m[..., y : y + height, x : x + width]
        for m, (y, x) in zip(maps, corner.tolist(), strict=True)
    ]
    return torch.stack(parts)


def put(part: Tensor, corner: Tensor, size: tuple[int, int]) -> Tensor:
    """The inverse of `cut` on a canvas of zeros [B, ..., H, W]."""
    height, width = part.shape[-2:]
    padded = [
        F.pad(p, (x, size[1] - width - x, y, size[0] - height - y))
        for p, (y, x) in zip(part, corner.tolist(), strict=True)
    ]
    return torch.stack(padded)


def mouth_latent(by_face: Tensor, by_lips: Tensor, lips: Tensor, corner: Tensor) -> Tensor:
    """What both heads read around the mouth, fused by the lip mask as in the paper.

    Args:
        by_face: [B, D, H/4, W/4] of the window; by_lips: [B, D, h/4, w/4] of the lip window.
        lips: [B, 1, h, w] lip mask of the lip window; corner: [B, 2] of it, in window pixels.

    Returns:
        [B, D, h/4, w/4].
    """
    around = cut(by_face, corner // 4, (by_lips.shape[-2], by_lips.shape[-1]))
    fused: Tensor = around + (by_lips - around) * F.avg_pool2d(lips, 4)
    return fused
