"""Training examples of the renderer: a target window, its references, their geometry."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dubbing.errors import MediaFailed
from dubbing.geometry.morphable import MorphableModel
from dubbing.geometry.pose import yaw_pitch_roll
from dubbing.models.renderer import Correspondence
from dubbing.render.mesh import RenderMesh, extended_vertices
from dubbing.render.references import training_face_references, training_lip_references
from dubbing.render.scene import (
    LIP_WINDOW,
    WINDOW,
    FaceStates,
    correspond,
    cut,
    face_states,
    face_windows,
    lip_corner,
    part_of,
    reference_maps,
    target_maps,
)
from dubbing.training.clips import FittedClip

CROP = 256  # px of the prepared crops
GUARD = 5  # frames on either side of the target that never serve as references
MAX_TURN = 35.0  # degrees of yaw


class CropFile:
    """JPEG crops of a clip, decoded on demand."""

    def __init__(self, path: Path):
        self._path = path
        with np.load(path) as file:
            self._data, self._ends = file["data"], file["ends"]

    def __len__(self) -> int:
        return len(self._ends)

    def __getitem__(self, index: int) -> NDArray[np.uint8]:
        """Crop [256, 256, 3] uint8 RGB.

        Raises:
            MediaFailed: the stored picture is damaged.
        """
        start = self._ends[index - 1] if index else 0
        picture = cv2.imdecode(self._data[start : self._ends[index]], cv2.IMREAD_COLOR)
        if picture is None:
            raise MediaFailed(
                f"crop {index} does not decode", path=self._path, hint="prepare the clip again"
            )
        return cv2.cvtColor(picture, cv2.COLOR_BGR2RGB).astype(np.uint8)


@dataclass
class RenderClip:
    """A fitted clip with its crops; `weight` is how often it is drawn."""

    clip: FittedClip
    crops: CropFile
    weight: float
    good: list[int]


@dataclass  # not frozen: the training framework moves and casts its fields in place
class RenderBatch:
    """B targets with N face and N lip references each.

    Attributes:
        truth [B, 3, h, w] RGB 0..1; pncc [B, 3, h, w]; mask, lips [B, 1, h, w];
        face_pictures, lip_pictures [B, N, 3, h, w]; face_pncc, lip_pncc [B, N, 3, h, w];
        face_match, lip_match; corner [B, 2] of the lip window; lip_target_pncc [B, 3, lh, lw].
    """

    truth: Tensor
    pncc: Tensor
    mask: Tensor
    lips: Tensor
    face_pictures: Tensor
    face_pncc: Tensor
    face_match: Correspondence
    lip_pictures: Tensor
    lip_pncc: Tensor
    lip_match: Correspondence
    corner: Tensor
    lip_target_pncc: Tensor


def to_device(batch: RenderBatch, device: torch.device) -> RenderBatch:
    """The batch on another device."""

    def move(value: Tensor | Correspondence) -> Tensor | Correspondence:
        if isinstance(value, Correspondence):
            return Correspondence(
                value.place.to(device), value.cost.to(device), value.turn.to(device)
            )
        return value.to(device)

    return RenderBatch(**{k: move(v) for k, v in vars(batch).items()})  # type: ignore[arg-type]


def load_render_clips(
    folder: Path, clips: Sequence[FittedClip], model: MorphableModel
) -> list[RenderClip]:
    """Clips that have crops and enough well-fitted frames near the front."""
    out = []
    for clip in clips:
        path = folder / f"{clip.name}.crops.npz"
        if not path.exists():
            continue
        yaw = yaw_pitch_roll(clip.pose)[:, 0].abs()
        good = (clip.usable & (yaw < MAX_TURN)).nonzero()[:, 0].tolist()
        if len(good) < 4 * GUARD:
            continue
        side = float(clip.boxes[:, 2].median())
        weight = min(len(good), 400) ** 0.5 * min(side / 320, 1.3) ** 2
        out.append(RenderClip(clip, CropFile(path), weight, good))
    return out


class RenderBatcher:
    """Draws targets and references.

    References follow the paper's training selection around a centre; the centre is not the target
    but a frame nearby, so that neither the target nor its neighbours are among the references and
    the lower face can't be copied from the same pixel. That is also what inference looks like: the
    references show another mouth.
    """

    def __init__(self, clips: Sequence[RenderClip], model: MorphableModel, seed: int):
        self.clips, self.model = list(clips), model
        self.mesh = RenderMesh.build(model)
        self.random = random.Random(seed)

    def draw(self, size: int) -> RenderBatch:
        """A random batch."""
        weights = [c.weight for c in self.clips]
        picked = self.random.choices(self.clips, weights, k=size)
        return self.collate([(c, self.random.choice(c.good)) for c in picked])

    def collate(self, targets: Sequence[tuple[RenderClip, int]]) -> RenderBatch:
        """The batch of given (clip, frame) targets with random references."""
        rows = [self._example(clip, frame) for clip, frame in targets]
        return _stack(rows)

    def _references(self, clip: RenderClip, frame: int) -> tuple[list[int], list[int]]:
        total = len(clip.crops)
        avoid = range(frame - GUARD, frame + GUARD + 1)
        far = 10 + GUARD + 1
        shift = self.random.choice([-1, 1]) * self.random.randint(far, far + 20)
        centre = frame + shift
        if not 0 <= centre < total:
            centre = frame - shift
        centre = min(max(centre, 0), total - 1)
        face = training_face_references(centre, total)
        if any(k in avoid for k in face):  # short clip: the rule leaves no room, so draw anywhere
            face = training_lip_references(total, self.random, avoid=avoid)
        return face, training_lip_references(total, self.random, avoid=avoid)

    def _states(self, clip: FittedClip, frames: list[int]) -> tuple[FaceStates, Tensor]:
        beta, pose = clip.beta[frames], clip.pose[frames]
        boxes = clip.boxes[frames]
        vertices = extended_vertices(self.model.vertices(clip.template, beta), clip.template, pose)
        window = face_windows(self.mesh, pose)
        scale = boxes[:, 2:] / CROP
        room = torch.tensor([CROP - WINDOW[1], CROP - WINDOW[0]])
        middle = window[:, :2] + window[:, 2:] * torch.tensor([WINDOW[1] / 2, WINDOW[0] / 2])
        offset = (middle - boxes[:, :2]) / scale - torch.tensor([WINDOW[1] / 2, WINDOW[0] / 2])
        offset = torch.minimum(offset.round().clamp_min(0), room).long()
        window = torch.cat([boxes[:, :2] + offset * scale, scale], -1)
        moved = self.model.expression_vertices(beta)
        return face_states(vertices, moved, pose, window), offset

    def _example(self, clip: RenderClip, frame: int) -> RenderBatch:
        face, lips = self._references(clip, frame)
        frames = [frame, *face, *lips]
        states, offsets = self._states(clip.clip, frames)
        pictures = []
        for f, (x, y) in zip(frames, offsets.tolist(), strict=True):
            part = clip.crops[f][y : y + WINDOW[0], x : x + WINDOW[1]]
            pictures.append(torch.from_numpy(part.copy()))
        images = torch.stack(pictures).permute(0, 3, 1, 2).float() / 255
        images = self._coloured(images)
        target, n = states[:1], len(face)
        maps = target_maps(self.mesh, target)
        corner = lip_corner(self.mesh, target, clip.clip.pose[[frame]])
        pncc = reference_maps(self.mesh, states[1:])
        face_states_, lip_states = states[1 : 1 + n], states[1 + n :]
        lip_raster = part_of(maps.raster, corner, LIP_WINDOW)
        return RenderBatch(
            truth=images[:1],
            pncc=maps.pncc,
            mask=maps.mask,
            lips=maps.lips,
            face_pictures=images[None, 1 : 1 + n],
            face_pncc=pncc[None, :n],
            face_match=correspond(maps.raster, target, face_states_, n),
            lip_pictures=images[None, 1 + n :],
            lip_pncc=pncc[None, n:],
            lip_match=correspond(lip_raster, target, lip_states, len(lips), corner),
            corner=corner,
            lip_target_pncc=cut(maps.pncc, corner, LIP_WINDOW),
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
                *(torch.cat([getattr(v, k) for v in values]) for k in ("place", "cost", "turn"))
            )
        return torch.cat([v for v in values if isinstance(v, Tensor)])

    return RenderBatch(**{k: join([getattr(r, k) for r in rows]) for k in vars(rows[0])})  # type: ignore[arg-type]
