"""Who is in a picture: the 128-d face embedding of dlib (evaluation only, the extra `evaluation`).

The networks are those of the package face-recognition-models 0.3.0 (`dlib_face_recognition_resnet_
model_v1`, CC0), which were never trained here and know nothing of the engine's own.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dubbing.errors import CheckpointNotFound
from dubbing.face.detector import FaceBox

VERSION = "dlib_face_recognition_resnet_model_v1 (face-recognition-models 0.3.0), 128-d"
HINT = "pip install --no-deps dlib-bin face-recognition-models==0.3.0"
CHIP = 150  # px: the network's input
ROOM = 0.25  # of the face on every side of the chip, as the network was trained

Embedding = NDArray[np.float64]


class IdentityMeter:
    """Embeddings of faces whose place is known.

    Raises:
        CheckpointNotFound: dlib or the package with its networks is not installed.
    """

    version = VERSION

    def __init__(self) -> None:
        package = find_spec("face_recognition_models")
        if find_spec("dlib") is None or package is None or package.origin is None:
            raise CheckpointNotFound("dlib and its face networks are not installed", hint=HINT)
        import dlib

        folder = Path(package.origin).parent / "models"
        self._dlib: Any = dlib
        self._points = dlib.shape_predictor(str(folder / "shape_predictor_5_face_landmarks.dat"))
        self._net = dlib.face_recognition_model_v1(
            str(folder / "dlib_face_recognition_resnet_model_v1.dat")
        )

    def embedding(self, picture: NDArray[np.uint8], box: FaceBox) -> Embedding:
        """[128] of the face in `box` of a picture [H, W, 3] uint8 RGB."""
        picture = np.ascontiguousarray(picture)
        where = self._dlib.rectangle(*(round(v) for v in (box.x0, box.y0, box.x1, box.y1)))
        shape = self._points(picture, where)
        chip = self._dlib.get_face_chip(picture, shape, CHIP, ROOM)
        return np.array(self._net.compute_face_descriptor(chip), np.float64)


def identity_distance(a: Embedding, b: Embedding) -> float:
    """Euclidean distance: of one person below about 0.6, usually 0.3."""
    return float(np.linalg.norm(a - b))
