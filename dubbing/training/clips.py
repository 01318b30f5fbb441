"""Prepared clips as training examples: fitted geometry and speech states, computed once."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from dubbing.errors import InputNotFound
from dubbing.geometry.fit import fit_track
from dubbing.geometry.morphable import MorphableModel
from dubbing.geometry.pose import yaw_pitch_roll
from dubbing.training.devices import save_arrays

log = logging.getLogger(__name__)

RATE = 25  # Hz of the motion model
MAX_ERROR = 0.012  # face heights: a worse fit is no face or an occluded one
MAX_YAW = 45.0  # degrees


@dataclass(frozen=True)
class FittedClip:
    """One clip with its geometry at the video's own frame times.

    Attributes:
        name: stem of the source file; also names the group of like-recorded clips by its letter.
        times: [T] seconds from the first frame; beta [T, E]; pose [T, 6] in frame pixels.
        boxes: [T, 3] crop squares; template [V, 3]; usable [T] bool.
    """

    name: str
    times: Tensor
    beta: Tensor
    pose: Tensor
    boxes: Tensor
    template: Tensor
    usable: Tensor


def prepared_names(folder: Path) -> list[str]:
    """Stems of the prepared clips of a folder, sorted.

    Raises:
        InputNotFound: none.
    """
    names = sorted(
        p.stem
        for p in folder.glob("*.npz")
        if not p.name.endswith((".crops.npz", ".fit.npz", ".states.npz"))
    )
    if not names:
        raise InputNotFound("no prepared clips", path=folder, hint="run 'dub train prepare' first")
    return names


def load_landmarks(folder: Path, name: str) -> Tensor:
    """Landmarks [T, 478, 3] of a prepared clip."""
    with np.load(folder / f"{name}.npz") as file:
        return torch.from_numpy(file["landmarks"])


def load_speech_samples(folder: Path, name: str) -> Tensor:
    """Sound [N] float32, 16 kHz, from the first frame on."""
    with np.load(folder / f"{name}.npz") as file:
        return torch.from_numpy(file["speech"].astype(np.float32) / 32767)


def fitted(folder: Path, cache: Path, name: str, model: MorphableModel) -> FittedClip:
    """The fit of a clip, from `cache` where it has been computed before."""
    path = cache / f"{name}.fit.npz"
    with np.load(folder / f"{name}.npz") as file:
        times, boxes = torch.from_numpy(file["times"]), torch.from_numpy(file["boxes"])
        landmarks = None if path.exists() else torch.from_numpy(file["landmarks"])
    if landmarks is not None:
        fit = fit_track(model, landmarks)
        yaw = yaw_pitch_roll(fit.pose)[:, 0].abs()
        usable = (fit.error < MAX_ERROR) & (yaw < MAX_YAW)
        cache.mkdir(parents=True, exist_ok=True)
        save_arrays(
            path,
            beta=fit.beta.numpy(),
            pose=fit.pose.numpy(),
            template=fit.template.numpy(),
            usable=usable.numpy(),
        )
    with np.load(path) as file:
        parts = {k: torch.from_numpy(file[k]) for k in file.files}
    return FittedClip(
        name, times, parts["beta"], parts["pose"], boxes, parts["template"], parts["usable"]
    )


def at_rate(clip: FittedClip, rate: float = RATE) -> tuple[Tensor, Tensor]:
    """Expressions [N, E] and usability [N] of a clip at times k / rate."""
    count = int(clip.times[-1].item() * rate) + 1
    times = torch.arange(count, dtype=torch.float64) / rate
    right = torch.searchsorted(clip.times, times).clamp(1, len(clip.times) - 1)
    left = right - 1
    span = (clip.times[right] - clip.times[left]).clamp_min(1e-6)
    share = ((times - clip.times[left]) / span).clamp(0, 1).float()[:, None]
    beta = torch.lerp(clip.beta[left], clip.beta[right], share)
    near = span < 2.5 / rate + 0.05
    return beta, clip.usable[left] & clip.usable[right] & near
