"""Training examples of the renderer: a target window, its references, their geometry."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from dubbing.geometry.morphable import MorphableModel
from dubbing.geometry.topology import LIPS
from dubbing.models.renderer import Correspondence
from dubbing.render.mesh import RenderMesh
from dubbing.render.references import N_FACE
from dubbing.render.scene import (
    LIP_WINDOW,
    correspond,
    lip_corner,
    part_of,
    reference_maps,
    target_maps,
)
from dubbing.training.render_clips import RenderClip

GUARD = 5  # frames on either side of the target that never serve as references
FAR = 30  # frames: farthest centre of the face references
BANK = 16  # lip references drawn, of which the
N_LIP = 5  # that are deformed most like the target serve, as at inference


@dataclass  # not frozen: the training framework moves and casts its fields in place
class RenderBatch:
    """B targets with N references each, of which the last N_LIP are those of Lip-Attention.

    Attributes:
        truth [B, 3, h, w] RGB 0..1; pncc [B, 3, h, w]; mask, lips [B, 1, h, w];
        pictures [B, N, 3, h, w]; face_match of all of them; lip_pncc [B, N_LIP, 3, h, w] and
        lip_match of the last ones; corner [B, 2] of the lip window.
    """

    truth: Tensor
    pncc: Tensor
    mask: Tensor
    lips: Tensor
    pictures: Tensor
    face_match: Correspondence
    lip_pncc: Tensor
    lip_match: Correspondence
    corner: Tensor


def to_device(batch: RenderBatch, device: torch.device) -> RenderBatch:
    """The batch on another device."""

    def move(value: Tensor | Correspondence) -> Tensor | Correspondence:
        if isinstance(value, Correspondence):
            return Correspondence(*(getattr(value, f.name).to(device) for f in fields(value)))
        return value.to(device)

    return RenderBatch(**{k: move(v) for k, v in vars(batch).items()})  # type: ignore[arg-type]


class RenderBatcher:
    """Draws targets and references.

    Face references are consecutive frames around a centre, as in the paper, but the centre is not
    the target: neither the target nor its neighbours are among the references, and the lower face
    can't be copied from the same pixel. That is also what inference looks like: the references show
    another mouth.
    """

    def __init__(self, clips: Sequence[RenderClip], model: MorphableModel, seed: int):
        self.clips, self.model = list(clips), model
        self.mesh = RenderMesh.build(model)
        self.random = random.Random(seed)

    def draw(self, size: int) -> RenderBatch:
        """A random batch."""
        weights = [c.weight for c in self.clips]
        picked = self.random.choices(self.clips, weights, k=size)
        return self.collate([(c, self.random.randrange(len(c.frames))) for c in picked])

    def collate(self, targets: Sequence[tuple[RenderClip, int]]) -> RenderBatch:
        """The batch of given targets (clip, row of its frames) with random references."""
        return _stack([self._example(clip, row) for clip, row in targets])

    def _references(self, clip: RenderClip, row: int) -> tuple[list[int], list[int]]:
        """Rows of the face references and of the lip bank."""
        frame = clip.frames[row]
        allowed = [k for k, f in enumerate(clip.frames) if abs(f - frame) > GUARD]
        centre = frame + self.random.choice([-1, 1]) * self.random.randint(GUARD + 1, FAR)
        near = sorted(allowed, key=lambda k: abs(clip.frames[k] - centre))[:N_FACE]
        return near, self.random.sample(allowed, min(BANK, len(allowed)))

    def _example(self, clip: RenderClip, row: int) -> RenderBatch:
        near, bank = self._references(clip, row)
        shape = clip.clip.beta[[clip.frames[k] for k in [row, *bank]]]
        away = self.model.expression_vertices(shape)[:, list(LIPS)]
        distance = (away[1:] - away[:1]).norm(dim=-1).mean(1)
        lips = [bank[k] for k in distance.argsort()[:N_LIP].tolist()]
        rows = [row, *near, *lips]
        states, images = clip.scene(self.mesh, self.model, rows)
        images = self._coloured(images)
        target, n = states[:1], len(near)
        maps = target_maps(self.mesh, target)
        corner = lip_corner(self.mesh, target, clip.clip.pose[[clip.frames[row]]])
        raster = part_of(maps.raster, corner, LIP_WINDOW)
        return RenderBatch(
            truth=images[:1],
            pncc=maps.pncc,
            mask=maps.mask,
            lips=maps.lips,
            pictures=images[None, 1:],
            face_match=correspond(maps.raster, target, states[1:], len(rows) - 1),
            lip_pncc=reference_maps(self.mesh, states[1 + n :])[None],
            lip_match=correspond(raster, target, states[1 + n :], len(lips), corner),
            corner=corner,
        )

    def _coloured(self, images: Tensor) -> Tensor:
        """One random tone for the whole example: skin and light of more people than we have."""
        gain = 1 + 0.1 * torch.tensor([self.random.uniform(-1, 1) for _ in range(3)])
        gamma = self.random.uniform(0.8, 1.25)
        return ((images**gamma) * gain.view(1, 3, 1, 1)).clamp(0, 1)


def _stack(rows: Sequence[RenderBatch]) -> RenderBatch:
    def join(values: list[Tensor] | list[Correspondence]) -> Tensor | Correspondence:
        if isinstance(values[0], Correspondence):
            return Correspondence(
                *(
                    torch.cat([getattr(v, k) for v in values])
                    for k in ("place", "cost", "turn", "mouth")
                )
            )
        return torch.cat([v for v in values if isinstance(v, Tensor)])

    return RenderBatch(**{k: join([getattr(r, k) for r in rows]) for k in vars(rows[0])})  # type: ignore[arg-type]
