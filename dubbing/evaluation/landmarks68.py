"""Landmarks by a detector that does not drive the engine, in the 68-point scheme.

A system that follows MediaPipe's points should not be judged by MediaPipe alone. In order of
preference: face-alignment's 2D-FAN (where the package and its weights are there), dlib's 68 points,
and MediaPipe as the last resort; which one it was stands in the report.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from dubbing.face.detector import FaceBox
from dubbing.face.landmarks import FaceMesher

Points = NDArray[np.float64]
Picture = NDArray[np.uint8]

STEADY = tuple(range(27, 31)) + tuple(range(36, 48))  # bridge of the nose, eyes
MOUTH = tuple(range(48, 68))
EYE_CORNERS = (36, 45)
DLIB_FILE = "shape_predictor_68_face_landmarks.dat"
# vertices of the mesh nearest to the points that are used here; the others are not looked at
MESH_OF = {
    27: 168, 28: 197, 29: 5, 30: 4,
    36: 33, 37: 160, 38: 158, 39: 133, 40: 153, 41: 144,
    42: 362, 43: 385, 44: 387, 45: 263, 46: 373, 47: 380,
    48: 61, 49: 40, 50: 37, 51: 0, 52: 267, 53: 270, 54: 291, 55: 321, 56: 314, 57: 17, 58: 84,
    59: 91, 60: 78, 61: 81, 62: 13, 63: 311, 64: 308, 65: 402, 66: 14, 67: 178,
}  # fmt: skip


@dataclass(frozen=True)
class LandmarkDetector:
    """68 points of the face in a box; `version` is what stands in reports."""

    version: str
    find: Callable[[Picture, FaceBox], Points | None]


def independent_landmarks(mesher: FaceMesher) -> LandmarkDetector:
    """The best detector that is there."""
    return _face_alignment() or _dlib() or _mediapipe(mesher)


def lip_error(truth: Points, made: Points) -> float:
    """Mean distance of the 20 mouth points after the made face is laid over the true one by the
    eyes and the bridge of the nose (similarity), in distances of the true outer eye corners."""
    steady = list(STEADY)
    a, b = truth[steady], made[steady]
    middle_a, middle_b = a.mean(0), b.mean(0)
    u, s, vh = np.linalg.svd((b - middle_b).T @ (a - middle_a))
    flip = np.diag([1.0, np.sign(np.linalg.det(u @ vh))])
    rotation = u @ flip @ vh
    scale = (s * np.diag(flip)).sum() / np.square(b - middle_b).sum()
    laid = scale * (made[list(MOUTH)] - middle_b) @ rotation + middle_a
    unit = np.linalg.norm(truth[EYE_CORNERS[0]] - truth[EYE_CORNERS[1]])
    return float(np.linalg.norm(laid - truth[list(MOUTH)], axis=1).mean() / unit)


def _face_alignment() -> LandmarkDetector | None:
    weights = Path(torch.hub.get_dir()) / "checkpoints"
    if find_spec("face_alignment") is None or not any(weights.glob("2DFAN4*")):
        return None
    import face_alignment

    # faces come from us: the package's own detector would download its weights
    net: Any = face_alignment.FaceAlignment(
        face_alignment.LandmarksType.TWO_D, device="cpu", face_detector="folder"
    )

    def find(picture: Picture, box: FaceBox) -> Points | None:
        found = net.get_landmarks_from_image(
            picture, detected_faces=[np.array([box.x0, box.y0, box.x1, box.y1])]
        )
        return np.asarray(found[0], np.float64) if found else None

    return LandmarkDetector("face-alignment 2D-FAN4, 68 points", find)


def _dlib() -> LandmarkDetector | None:
    package = find_spec("face_recognition_models")
    if find_spec("dlib") is None or package is None or package.origin is None:
        return None
    import dlib

    net: Any = dlib.shape_predictor(str(Path(package.origin).parent / "models" / DLIB_FILE))

    def find(picture: Picture, box: FaceBox) -> Points | None:
        where = dlib.rectangle(*(round(v) for v in (box.x0, box.y0, box.x1, box.y1)))
        shape = net(np.ascontiguousarray(picture), where)
        return np.array([(p.x, p.y) for p in shape.parts()], np.float64)

    return LandmarkDetector("dlib 68 points (face-recognition-models 0.3.0)", find)


def _mediapipe(mesher: FaceMesher) -> LandmarkDetector:
    def find(picture: Picture, box: FaceBox) -> Points | None:
        mesh = mesher.landmarks(picture, box)
        if mesh is None:
            return None
        points = np.zeros((68, 2))
        for number, vertex in MESH_OF.items():
            points[number] = mesh[vertex, :2]
        return points

    return LandmarkDetector("MediaPipe 0.10.14 mesh: the detector that drives the engine", find)
