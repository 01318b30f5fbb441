"""Which frames of a tracked face can be dubbed, and why the others can't."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dubbing.face.limits import BLURRED, COVERED, UNSURE, FaceLimits
from dubbing.face.rows import face_sides
from dubbing.geometry.fit import FaceFit, Landmarks
from dubbing.geometry.pose import yaw_pitch_roll

HALF_ERROR = 0.02  # face heights between fit and landmarks at which confidence is one half
GROWN = 1  # frames on either side of a covered one that are likely to be half covered
BRIDGED = 2  # frames between covered ones that are too few to be dubbed


def confidence(fit: FaceFit) -> Tensor:
    """How surely the mesh lies on the face, [T] in 0..1: one half at a mean distance of 0.02 face
    heights between the fitted mesh and the landmarks, 0.95 at a quarter of that."""
    return torch.exp2(-(fit.error / HALF_ERROR).square())


def frame_faults(
    fit: FaceFit,
    landmarks: Landmarks,
    limits: FaceLimits | None = None,
    sharp: list[float] | None = None,
    visible: list[float] | None = None,
) -> list[str]:
    """Why each frame of a fitted track can't be dubbed, "" where it can.

    Args:
        landmarks: [T, >=468, >=2] of the T consecutive frames.
        sharp, visible: per frame (see `FaceTrack`), where they are known.
    """
    limits = limits or FaceLimits()
    side = torch.from_numpy(face_sides(landmarks))
    checks = [
        (limits.too_small, side < limits.min_face),
        (limits.turned, yaw_pitch_roll(fit.pose)[:, 0].abs() > limits.max_yaw),
        (UNSURE, confidence(fit) < limits.min_confidence),
    ]
    if sharp:
        checks.append((BLURRED, torch.tensor(sharp) < limits.min_sharpness))
    if visible:
        checks.append((COVERED, torch.from_numpy(covered(np.array(visible), limits.min_visible))))
    faults = [""] * len(fit.error)
    for reason, failed in reversed(checks):
        for k in failed.nonzero()[:, 0].tolist():
            faults[k] = reason
    return faults


def covered(visible: NDArray[np.floating], least: float) -> NDArray[np.bool_]:
    """Frames [T] whose mouth is covered: below `least`, next to such a frame, or between two."""
    low = visible < least
    out: NDArray[np.bool_] = low.copy()
    places = np.flatnonzero(low)
    for a, b in pairwise(places.tolist()):
        if b - a - 1 <= BRIDGED + 2 * GROWN:
            out[a:b] = True
    for k in range(1, GROWN + 1):
        out[k:] |= low[:-k]
        out[:-k] |= low[k:]
    return out
