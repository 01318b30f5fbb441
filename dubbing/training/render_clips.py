"""Clips for the renderer's training: face crops, and geometry registered to them."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dubbing.errors import MediaFailed
from dubbing.geometry.morphable import MorphableModel, lip_opening
from dubbing.geometry.pose import yaw_pitch_roll
from dubbing.render.mesh import RenderMesh, extended_vertices
from dubbing.render.references import inference_lip_references
from dubbing.render.registration import Registration, shifted
from dubbing.render.scene import WINDOW, FaceStates, face_states, face_windows
from dubbing.training.clips import FittedClip
from dubbing.whole_file import save_arrays

log = logging.getLogger(__name__)

CROP = 256  # px of the prepared crops
MAX_TURN = 35.0  # degrees of yaw
MAX_FRAMES = 72  # registered per clip, evenly spread: neighbours teach little
MIN_FRAMES = 24  # below it there is no room for references
MIN_DETAIL = 0.01  # see `detail_of`: softer pictures teach blur; from
FULL_DETAIL = 0.03  # on they count fully


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
    """A fitted clip with its crops.

    Attributes:
        frames: sorted numbers of the registered frames, those that training draws from.
        offset: [len(frames), V + R, 2] their registration in window pixels.
        weight: how often the clip is drawn.
    """

    clip: FittedClip
    crops: CropFile
    frames: list[int]
    offset: Tensor
    weight: float

    def scene(
        self, mesh: RenderMesh, model: MorphableModel, rows: Sequence[int]
    ) -> tuple[FaceStates, Tensor]:
        """Registered geometry of the frames in `rows` of `frames`, and their windows
        [len(rows), 3, 144, 192] in 0..1."""
        states, pictures = crop_windows(
            mesh, model, self.clip, self.crops, [self.frames[k] for k in rows]
        )
        return shifted(states, self.offset[list(rows)]), pictures


def crop_windows(
    mesh: RenderMesh, model: MorphableModel, clip: FittedClip, crops: CropFile, frames: list[int]
) -> tuple[FaceStates, Tensor]:
    """Tracked geometry of some frames, in windows of whole crop pixels, and these windows
    [N, 3, 144, 192] in 0..1."""
    beta, pose, boxes = clip.beta[frames], clip.pose[frames], clip.boxes[frames]
    vertices = extended_vertices(model.vertices(clip.template, beta), clip.template, pose)
    window = face_windows(mesh, pose)
    scale = boxes[:, 2:] / CROP
    room = torch.tensor([CROP - WINDOW[1], CROP - WINDOW[0]])
    half = torch.tensor([WINDOW[1] / 2, WINDOW[0] / 2])
    middle = window[:, :2] + window[:, 2:] * half
    corner = ((middle - boxes[:, :2]) / scale - half).round().clamp_min(0)
    corner = torch.minimum(corner, room).long()
    window = torch.cat([boxes[:, :2] + corner * scale, scale], -1)
    pictures = [
        torch.from_numpy(crops[f][y : y + WINDOW[0], x : x + WINDOW[1]].copy())
        for f, (x, y) in zip(frames, corner.tolist(), strict=True)
    ]
    moved = model.expression_vertices(beta)
    states = face_states(vertices, clip.template, moved, pose, window)
    return states, torch.stack(pictures).permute(0, 3, 1, 2).float() / 255


def load_render_clips(
    folder: Path, cache: Path, clips: Sequence[FittedClip], model: MorphableModel
) -> list[RenderClip]:
    """Clips that have crops, enough well-fitted frames near the front, and detail; registered,
    from `cache` where that has been done before."""
    mesh = RenderMesh.build(model)
    out, soft = [], 0
    for clip in clips:
        path = folder / f"{clip.name}.crops.npz"
        if not path.exists():
            continue
        yaw = yaw_pitch_roll(clip.pose)[:, 0].abs()
        good = (clip.usable & (yaw < MAX_TURN)).nonzero()[:, 0].tolist()
        if len(good) < MIN_FRAMES:
            continue
        crops = CropFile(path)
        frames, offset, detail = _registered(cache, clip, crops, good, mesh, model)
        if detail < MIN_DETAIL:
            soft += 1
            continue
        side = float(clip.boxes[:, 2].median())
        weight = min(detail / FULL_DETAIL, 1.0) * min(side / 320, 1.3)
        weight *= min(len(good), 400) ** 0.5
        out.append(RenderClip(clip, crops, frames, offset, weight))
    log.info("%d clips teach texture, %d are too soft", len(out), soft)
    return out


def _registered(
    cache: Path, clip: FittedClip, crops: CropFile, good: list[int], mesh: RenderMesh,
    model: MorphableModel,
) -> tuple[list[int], Tensor, float]:  # fmt: skip
    """Frames to learn from, their registration, and the clip's detail."""
    path = cache / f"{clip.name}.registered.npz"
    if not path.exists():
        picked = np.linspace(0, len(good) - 1, min(MAX_FRAMES, len(good))).round().astype(int)
        frames = [good[k] for k in picked]
        opening = lip_opening(model.vertices(clip.template, clip.beta[frames])).numpy()
        bank = sorted({frames[k] for k in inference_lip_references(opening)})
        states, pictures = crop_windows(mesh, model, clip, crops, bank)
        registration = Registration(mesh, pictures, states)
        known = dict(zip(bank, registration.offset, strict=True))
        for frame in frames:
            if frame not in known:
                states, picture = crop_windows(mesh, model, clip, crops, [frame])
                known[frame] = registration.register(picture, states)
        offset = torch.stack([known[f] for f in frames]).half().numpy()
        save_arrays(
            path, frames=np.array(frames), offset=offset, detail=np.float32(detail_of(pictures))
        )
    with np.load(path) as file:
        return (
            file["frames"].tolist(),
            torch.from_numpy(file["offset"]).float(),
            float(file["detail"]),
        )


def detail_of(pictures: Tensor) -> float:
    """How sharp windows [N, 3, h, w] in 0..1 are: median over them of the mean squared Laplacian
    over the variance of the grey picture."""
    grey = pictures.mean(1, keepdim=True)
    kernel = grey.new_tensor([[0.0, 1.0, 0.0], [1.0, -4.0, 1.0], [0.0, 1.0, 0.0]]).view(1, 1, 3, 3)
    bend = torch.nn.functional.conv2d(grey, kernel).square().mean((1, 2, 3))
    return float((bend / grey.var((1, 2, 3)).clamp_min(1e-6)).median())
