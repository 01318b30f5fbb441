"""The face mesh extended for rendering: mouth interior and rings around the face outline.

Outside the mesh (neck, hair, background) the correspondence is extrapolated by rings of vertices
that follow the outline less and less; inside the mouth by triangles between the inner lips and the
teeth.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from dubbing.geometry.morphable import MorphableModel
from dubbing.geometry.pose import apply_pose
from dubbing.geometry.topology import CHIN, FACE_OVAL, LIPS, NOSE_TIP, SUBNASALE, oriented
from dubbing.render.teeth import teeth_triangles

RING_SCALES = (1.25, 1.65)  # distance from the face's middle, in outline distances
RING_FOLLOW = (0.5, 0.12)  # share of the outline's expression that a ring follows
RING_DEPTH = 0.15  # each ring lies this much farther away than the one before


@dataclass(frozen=True)
class RenderMesh:
    """Triangles and vertex attributes of the extended mesh (V face vertices + rings).

    Attributes:
        triangles: [F, 3] of the V + R vertices and the points at the teeth after them
            (`with_teeth`), the model's surface first.
        surface: number of surface triangles; first_ring: of these and those of the mouth.
        one_sided: [F] True for the mouth: closed lips that overlap show none of it.
        colours: [V + R, 3] PNCC colours (zero on rings).
        lips: [V + R] 1 on and around the lips, 0 elsewhere.
        mask: [V + R] 1 where the picture is replaced, 0 where the source stays.
        middle: [3] canonical middle of the lower face; mouth: [3] of the mouth.
    """

    triangles: Tensor
    surface: int
    first_ring: int
    one_sided: Tensor
    colours: Tensor
    lips: Tensor
    mask: Tensor
    middle: Tensor
    mouth: Tensor

    @classmethod
    def build(cls, model: MorphableModel) -> RenderMesh:
        """Derive the extended mesh of a morphable model (on its device)."""
        device = model.mean.device
        count, oval = len(model.mean), len(FACE_OVAL)
        rings = torch.arange(count, count + len(RING_SCALES) * oval).view(-1, oval)
        loops = [torch.tensor(FACE_OVAL), *rings]
        strips = []
        for inner, outer in pairwise(loops):
            a, b = inner, inner.roll(-1)
            c, d = outer, outer.roll(-1)
            strips += [torch.stack([a, b, c], 1), torch.stack([b, d, c], 1)]
        flat = torch.zeros(1, 6)
        frontal = extended_vertices(model.mean.cpu()[None], model.mean.cpu(), flat)[0].numpy()
        ring_faces = oriented(torch.cat(strips).numpy(), frontal)
        mouth = teeth_triangles(count + rings.numel())
        triangles = np.concatenate([model.triangles.cpu(), mouth, ring_faces])
        colours = torch.zeros(count + rings.numel(), 3, device=device)
        colours[:count] = model.pncc()
        surface = len(model.triangles)
        one_sided = torch.zeros(len(triangles), dtype=torch.bool)
        one_sided[surface : surface + len(mouth)] = True
        near_lips = _neighbours(model.triangles.cpu(), set(LIPS))
        lips = torch.zeros(len(colours), device=device)
        lips[sorted(near_lips)] = 1.0
        return cls(
            torch.from_numpy(triangles).to(device),
            surface,
            surface + len(mouth),
            one_sided.to(device),
            colours,
            lips,
            _mask_weights(model).to(device),
            model.mean[model.lower > 0.99].mean(0),
            model.mean[list(LIPS)].mean(0),
        )

    def to(self, device: torch.device | str) -> RenderMesh:
        return RenderMesh(
            self.triangles.to(device), self.surface, self.first_ring,
            self.one_sided.to(device), self.colours.to(device),
            self.lips.to(device), self.mask.to(device), self.middle.to(device),
            self.mouth.to(device),
        )  # fmt: skip


def _neighbours(triangles: Tensor, vertices: set[int]) -> set[int]:
    return {v for t in triangles.tolist() if vertices & set(t) for v in t}


def _mask_weights(model: MorphableModel) -> Tensor:
    """Lower face 1, with a ramp under the nose; the first ring keeps the chin's surroundings."""
    mean = model.mean.cpu()
    oval = mean[list(FACE_OVAL)]
    height = ((oval[:, 1] - mean[SUBNASALE, 1]) / (mean[CHIN, 1] - mean[SUBNASALE, 1])).clamp(0, 1)
    first = (height / 0.5).clamp(0, 1) * 0.85
    nothing = torch.zeros(len(FACE_OVAL))
    surface = model.lower.cpu().clone()
    surface[list(FACE_OVAL)] *= (height / 0.35).clamp(0, 1)
    return torch.cat([surface, first, nothing])


def extended_vertices(vertices: Tensor, template: Tensor, pose: Tensor) -> Tensor:
    """Image vertices of the extended mesh.

    Args:
        vertices: [T, V, 3] canonical faces; template: [V, 3] the neutral face; pose: [T, 6].

    Returns:
        [T, V + R, 3] in the pixels of the pose.
    """
    oval = list(FACE_OVAL)
    centre = template[NOSE_TIP] * vertices.new_tensor([1.0, 1.0, 0.0])
    neutral = template[oval]
    moved = vertices[:, oval] - neutral
    rings = []
    for k, (scale, follow) in enumerate(zip(RING_SCALES, RING_FOLLOW, strict=True)):
        ring = centre + scale * (neutral - centre) + follow * moved
        ring = torch.cat([ring[..., :2], neutral[..., 2:].expand_as(ring[..., 2:])], -1)
        rings.append(ring + ring.new_tensor([0.0, 0.0, RING_DEPTH * (k + 1)]))
    return apply_pose(torch.cat([vertices, *rings], 1), pose)


def extended_displacement(displacement: Tensor) -> Tensor:
    """Expression displacements [..., V, 3] continued onto the rings: [..., V + R, 3]."""
    outline = displacement[..., list(FACE_OVAL), :]
    return torch.cat([displacement, *(outline * f for f in RING_FOLLOW)], -2)
