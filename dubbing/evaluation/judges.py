"""Networks that look at finished pictures, loaded once for a whole report."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from dubbing.closing import Closing
from dubbing.errors import CheckpointNotFound
from dubbing.evaluation.identity import Embedding, IdentityMeter
from dubbing.evaluation.perceptual import PerceptualMeter, load_perceptual
from dubbing.face.detector import FaceBox, FaceDetector
from dubbing.face.landmarks import FaceMesher, landmark_box
from dubbing.geometry.topology import FACE_OVAL

Picture = NDArray[np.uint8]


@dataclass(frozen=True)
class Judges(Closing):
    """What looks at pictures. Close it when done.

    Attributes:
        perceptual: ST-LPIPS, identity: face embeddings; None where their weights are not there.
        missing: one line for each that is not there.
    """

    detector: FaceDetector
    mesher: FaceMesher
    perceptual: PerceptualMeter | None
    identity: IdentityMeter | None
    missing: list[str]

    @classmethod
    def load(cls, perceptual: str | Path | None) -> Judges:
        """Load what there is.

        Args:
            perceptual: wheel or file with the weights of ST-LPIPS, None for none.

        Raises:
            CheckpointNotFound, CheckpointCorrupt: the file given can't be used.
        """
        missing = []
        meter = None if perceptual is None else load_perceptual(perceptual)
        if meter is None:
            missing.append("no ST-LPIPS: its weights were not given")
        identity = None
        try:
            identity = IdentityMeter()
        except CheckpointNotFound as error:
            missing.append(f"no identity: {error}")
        return cls(FaceDetector(), FaceMesher(), meter, identity, missing)

    def close(self) -> None:
        self.detector.close()
        self.mesher.close()

    def sees_face(self, crop: Picture) -> bool:
        """Whether detector and mesh network both find a face in a face crop [H, W, 3]. Faces that
        fill the picture are missed by the detector, so the crop is given some surroundings."""
        around = crop.shape[0] // 4
        crop = cv2.copyMakeBorder(
            crop, around, around, around, around, cv2.BORDER_REPLICATE
        ).astype(np.uint8)
        boxes = sorted(self.detector.detect(crop), key=lambda b: -b.side)
        return bool(boxes) and self.mesher.landmarks(crop, boxes[0]) is not None

    def embedding(self, crop: Picture, points: NDArray[np.float32]) -> Embedding | None:
        """Identity of the face whose mesh [V, >=2] lies at `points`; None without the network."""
        if self.identity is None:
            return None
        return self.identity.embedding(crop, _face_box(points))


def _face_box(points: NDArray[np.float32]) -> FaceBox:
    """A box as face detectors give it: from the brows to the chin."""
    box = landmark_box(points[list(FACE_OVAL)])
    return FaceBox(box.x0, box.y0 + 0.2 * (box.y1 - box.y0), box.x1, box.y1)
