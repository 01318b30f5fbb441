"""Training examples of the renderer: a target window, its references, their geometry."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor

from dubbing.geometry.morphable import MorphableModel
from dubbing.geometry.topology import LIPS
from dubbing.models.renderer import Correspondence
from dubbing.render.mesh import RenderMesh, extended_displacement, extended_vertices
from dubbing.render.references import N_FACE
from dubbing.render.scene import (
    LIP_WINDOW,
    FaceStates,
    correspond,
    lip_corner,
    part_of,
    reference_maps,
    target_maps,
)
from dubbing.render.teeth import teeth_shares
from dubbing.training.render_clips import RenderClip

GUARD = 5  # frames on either side of the target that never serve as references
FAR = 30  # frames: farthest centre of the face references
NEXT = 3  # frames: farthest apart that the two of a pair are
BANK = 16  # lip references drawn, of which the
N_LIP = 5  # that are deformed most like the target serve, as at inference


@dataclass  # not frozen: the training framework moves and casts its fields in place
class RenderBatch:
    """B targets with N references each, of which the last N_LIP are those of Lip-Attention. Of the
    first `2 * pairs` targets each two are neighbours in time with the same references.

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
    pairs: int = 0


def to_device(batch: RenderBatch, device: torch.device) -> RenderBatch:
    """The batch on another device."""

    def move(value: Tensor | Correspondence | int) -> Tensor | Correspondence | int:
        if isinstance(value, int):
            return value
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

    Args:
        jitter: errors of stage 1 in the targets' geometry: deviation of the disturbed expressions,
            in that of the clip's own. The two frames of a pair are disturbed alike, as stage 1's
            errors are slow.
    """

    def __init__(
        self, clips: Sequence[RenderClip], model: MorphableModel, seed: int, jitter: float = 0.0
    ):
        self.clips, self.model, self.jitter = list(clips), model, jitter
        self.mesh = RenderMesh.build(model)
        self.random = random.Random(seed)

    def draw(self, size: int) -> RenderBatch:
        """A random batch: pairs of neighbours as far as it goes, see `RenderBatch`."""
        weights = [c.weight for c in self.clips]
        picked = self.random.choices(self.clips, weights, k=size - size // 2)
        rows = []
        for place, clip in enumerate(picked):
            row = self.random.randrange(len(clip.frames))
            single = 2 * place + 1 == size
            rows += self._examples(clip, [row] if single else [row, _neighbour(clip, row)])
        return replace(_stack(rows), pairs=size // 2)

    def collate(self, targets: Sequence[tuple[RenderClip, int]]) -> RenderBatch:
        """The batch of given targets (clip, row of its frames) with random references."""
        return _stack([row for clip, k in targets for row in self._examples(clip, [k])])

    def _references(self, clip: RenderClip, rows: list[int]) -> tuple[list[int], list[int]]:
        """Rows of the face references and of the lip bank."""
        frames = [clip.frames[row] for row in rows]
        allowed = [
            k for k, f in enumerate(clip.frames) if all(abs(f - frame) > GUARD for frame in frames)
        ]
        away = self.random.randint(GUARD + 1, FAR)
        centre = frames[0] + self.random.choice([-1, 1]) * away
        near = sorted(allowed, key=lambda k: abs(clip.frames[k] - centre))[:N_FACE]
        return near, self.random.sample(allowed, min(BANK, len(allowed)))

    def _examples(self, clip: RenderClip, rows: list[int]) -> list[RenderBatch]:
        """Targets of one moment with the same references, error and tone."""
        near, bank = self._references(clip, rows)
        shape = clip.clip.beta[[clip.frames[k] for k in [rows[0], *bank]]]
        away = self.model.expression_vertices(shape)[:, list(LIPS)]
        distance = (away[1:] - away[:1]).norm(dim=-1).mean(1)
        lips = [bank[k] for k in distance.argsort()[:N_LIP].tolist()]
        error = self._error(clip)
        states, images = clip.scene(self.mesh, self.model, [*rows, *near, *lips])
        images = self._coloured(images)
        count, n = len(rows), len(near)
        references, pictures = states[count:], images[None, count:]
        out = []
        for k, row in enumerate(rows):
            pose = clip.clip.pose[[clip.frames[row]]]
            target = disturbed(states[[k]], error, clip.clip.template, pose)
            maps = target_maps(self.mesh, target)
            corner = lip_corner(self.mesh, target, pose)
            raster = part_of(maps.raster, corner, LIP_WINDOW)
            out.append(
                RenderBatch(
                    truth=images[[k]],
                    pncc=maps.pncc,
                    mask=maps.mask,
                    lips=maps.lips,
                    pictures=pictures,
                    face_match=correspond(maps.raster, target, references, n + len(lips)),
                    lip_pncc=reference_maps(self.mesh, references[n:])[None],
                    lip_match=correspond(raster, target, references[n:], len(lips), corner),
                    corner=corner,
                )
            )
        return out

    def _error(self, clip: RenderClip) -> Tensor:
        """Displacement [V, 3] by which the targets' geometry is wrong."""
        spread = clip.clip.beta.std(0)
        noise = torch.tensor([self.random.gauss(0, 1) for _ in range(len(spread))])
        moved = self.model.expression_vertices((self.jitter * noise * spread)[None])[0]
        return moved * self.model.lower[:, None]  # stage 1 makes the lower face only

    def _coloured(self, images: Tensor) -> Tensor:
        """One random tone for the whole example: skin and light of more people than we have."""
        gain = 1 + 0.1 * torch.tensor([self.random.uniform(-1, 1) for _ in range(3)])
        gamma = self.random.uniform(0.8, 1.25)
        return ((images**gamma) * gain.view(1, 3, 1, 1)).clamp(0, 1)


def disturbed(states: FaceStates, error: Tensor, template: Tensor, pose: Tensor) -> FaceStates:
    """States [1] with their canonical geometry moved by `error` [V, 3]; what registration says
    about them stays.

    Args:
        template: [V, 3] the speaker's neutral face; pose: [1, 6].
    """
    moved = template + error
    change = extended_vertices(moved[None], template, pose)
    change = change - extended_vertices(template[None], template, pose)
    displacement = states.displacement + extended_displacement(error)
    return replace(
        states,
        vertices=states.vertices + change,
        displacement=displacement,
        teeth=teeth_shares(template, displacement),
    )


def _neighbour(clip: RenderClip, row: int) -> int:
    """Row of a frame next to that of `row` in time; itself where there is none near."""
    near = [k for k in (row + 1, row - 1) if 0 <= k < len(clip.frames)]
    near = [k for k in near if abs(clip.frames[k] - clip.frames[row]) <= NEXT]
    return near[0] if near else row


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

    names = [item.name for item in fields(RenderBatch) if item.name != "pairs"]
    joined: dict[str, Any] = {name: join([getattr(row, name) for row in rows]) for name in names}
    return RenderBatch(**joined)
