"""Prepared clips as training examples: fitted geometry and speech states, computed once."""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from dubbing.errors import InputNotFound
from dubbing.geometry.fit import FaceFit, fit_track, rigid_weights
from dubbing.geometry.morphable import MorphableModel
from dubbing.geometry.pose import align, remove_pose, yaw_pitch_roll
from dubbing.geometry.topology import RIGID
from dubbing.whole_file import save_arrays

log = logging.getLogger(__name__)

RATE = 25  # Hz of the motion model
MAX_ERROR = 0.012  # face heights: a worse fit is no face or an occluded one
MAX_YAW = 45.0  # degrees: beyond it the lips' landmarks are twice as unsure as just below
MAX_TREMBLE = 0.010  # face heights: hands before the face, a mesh that slid off a blurred profile
FAULTS = ("", "turned away", "badly fitted", "trembling")  # by code, see `frame_faults`


@dataclass(frozen=True)
class FittedClip:
    """One clip with its geometry at the video's own frame times.

    Attributes:
        name: stem of the source file; also names the group of like-recorded clips by its letter.
        times: [T] seconds from the first frame; beta [T, E]; pose [T, 6] in frame pixels.
        boxes: [T, 3] crop squares; template [V, 3]; usable [T] bool.
        lag: frames at 25 Hz by which the lips are late behind the sound; 0 where unknown.
        weight: 0 where stage 1 should not learn from the clip, else 1.
    """

    name: str
    times: Tensor
    beta: Tensor
    pose: Tensor
    boxes: Tensor
    template: Tensor
    usable: Tensor
    lag: int = 0
    weight: float = 1.0


@dataclass(frozen=True)
class ClipCare:
    """What was found out about sound and lips of a prepared clip.

    Attributes:
        lag: frames at 25 Hz by which the lips are late behind the sound; 0 where unknown.
        sure: the lag is known, from this clip or from all clips of its speaker.
        reasons: why stage 1 should not learn from the clip; empty where it may.
    """

    lag: int = 0
    sure: bool = False
    reasons: tuple[str, ...] = ()

    @property
    def weight(self) -> float:
        """0 where there is a reason against the clip, else 1."""
        return 0.0 if self.reasons else 1.0


def load_care(folder: Path, name: str) -> ClipCare:
    """What 'dub train prepare' found out about a clip; nothing known where it did not look."""
    path = folder / f"{name}.json"
    record = json.loads(path.read_text()) if path.exists() else {}
    known = record.get("care")
    if known is None:
        return ClipCare()
    return ClipCare(int(known["lag"]), bool(known["sure"]), tuple(known["reasons"]))


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
        faults = frame_faults(model, landmarks, fit)
        cache.mkdir(parents=True, exist_ok=True)
        save_arrays(
            path,
            beta=fit.beta.numpy(),
            pose=fit.pose.numpy(),
            template=fit.template.numpy(),
            usable=faults.eq(0).numpy(),
            faults=faults.numpy(),
        )
    with np.load(path) as file:
        parts = {k: torch.from_numpy(file[k]) for k in file.files}
    care = load_care(folder, name)
    return FittedClip(
        name,
        times,
        parts["beta"],
        parts["pose"],
        boxes,
        parts["template"],
        parts["usable"],
        care.lag,
        care.weight,
    )


def load_faults(cache: Path, name: str) -> Tensor:
    """What is wrong with each frame of a clip that `fitted` has fitted: codes [T], see `FAULTS`."""
    with np.load(cache / f"{name}.fit.npz") as file:
        return torch.from_numpy(file["faults"])


def frame_faults(model: MorphableModel, landmarks: Tensor, fit: FaceFit) -> Tensor:
    """Why frames of a fitted track teach nothing about lips: codes [T] uint8 into `FAULTS`."""
    faults = torch.zeros(len(landmarks), dtype=torch.uint8)
    faults[tremble(model, landmarks, fit) > MAX_TREMBLE] = 3
    faults[fit.error >= MAX_ERROR] = 2
    faults[yaw_pitch_roll(fit.pose)[:, 0].abs() >= MAX_YAW] = 1
    return faults


def tremble(model: MorphableModel, landmarks: Tensor, fit: FaceFit) -> Tensor:
    """How much the landmarks of the skull jump against each other about each frame.

    Bone does not bend: what remains there when the head's movement is taken off is the tracker's
    own error, and it grows with that of the lips.

    Args:
        landmarks: [T, >=468, 3] of consecutive frames, in pixels.

    Returns:
        [T] second difference over time, root mean square over the vertices, in face heights; of
        the nine frames around each the sixth smallest, so that a blink or a cut does not count.
    """
    points = landmarks[:, : len(model.mean)].to(model.mean)
    pose, shifted = align(points, model.vertices(fit.template, fit.beta), rigid_weights(model))
    skull = remove_pose(shifted, pose)[:, list(RIGID), :2] / 2
    jump = torch.zeros(len(points))
    if len(points) > 2:
        jump[1:-1] = skull.diff(n=2, dim=0).square().sum(-1).mean(1).sqrt()
    around = F.pad(jump[None, None], (4, 4), mode="replicate")[0, 0].unfold(0, 9, 1)
    return around.sort(1).values[:, 5]


def at_rate(clip: FittedClip, rate: float = RATE) -> tuple[Tensor, Tensor]:
    """Expressions [N, E] and usability [N] of a clip at times k / rate."""
    count = int(clip.times[-1].item() * rate) + 1
    times = torch.arange(count, dtype=torch.float64) / rate
    right = torch.searchsorted(clip.times, times).clamp(1, len(clip.times) - 1)
    left = right - 1
    span = (clip.times[right] - clip.times[left]).clamp_min(1e-6)
    share = ((times - clip.times[left]) / span).clamp(0, 1).float()[:, None]
    beta = torch.lerp(clip.beta[left], clip.beta[right], share)
    known = (span < 2.5 / rate + 0.05) & (times > clip.times[0] - 0.5 / rate)
    return beta, clip.usable[left] & clip.usable[right] & known
