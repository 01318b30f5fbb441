"""MediaPipe's 478-point face mesh on a square crop around one face."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from dubbing.closing import Closing
from dubbing.face.detector import FaceBox
from dubbing.face.native_log import muted_start

N_LANDMARKS = 478
CROP_SCALE = 1.7  # crop side / face box side: the mesh network wants hair and chin in sight
CROP_SIZE = 256  # px; the network's own input is 192 px


def landmark_box(points: NDArray[np.float32]) -> FaceBox:
    """Bounding box of landmarks [N, >=2] in their pixels."""
    low, high = points[:, :2].min(0), points[:, :2].max(0)
    return FaceBox(float(low[0]), float(low[1]), float(high[0]), float(high[1]))


class FaceMesher(Closing):
    """Landmarks of the face in a given box; no memory of earlier frames."""

    def __init__(self, min_confidence: float = 0.5):
        from mediapipe.python.solutions.face_mesh import FaceMesh

        with muted_start():
            self._net: Any = FaceMesh(
                static_image_mode=True,
                max_num_faces=1,
                refine_landmarks=True,
                min_detection_confidence=min_confidence,
            )
            self._net.process(np.zeros((CROP_SIZE, CROP_SIZE, 3), np.uint8))

    def landmarks(self, rgb: NDArray[np.uint8], box: FaceBox) -> NDArray[np.float32] | None:
        """Landmarks [478, 3] of the face in `box`, or None where the mesh network sees none.

        x, y are pixels of `rgb` ([H, W, 3] uint8, RGB); z is depth in the same unit, smaller is
        nearer, zero near the middle of the head.
        """
        side = max(box.side * CROP_SCALE, 8.0)
        x0 = (box.x0 + box.x1 - side) / 2
        y0 = (box.y0 + box.y1 - side) / 2
        scale = CROP_SIZE / side
        # pixel centres: u + 0.5 = scale * (x + 0.5 - x0)
        shift_x, shift_y = (scale * (0.5 - v) - 0.5 for v in (x0, y0))
        to_crop = np.array([[scale, 0, shift_x], [0, scale, shift_y]], np.float64)
        if scale < 0.5:  # average first: one bilinear tap would alias a large face
            crop = self._area_crop(rgb, x0, y0, side)
        else:
            size = (CROP_SIZE, CROP_SIZE)
            crop = cv2.warpAffine(rgb, to_crop, size, flags=cv2.INTER_LINEAR).astype(np.uint8)
        faces = self._net.process(crop).multi_face_landmarks
        if not faces:
            return None
        points = np.array([(p.x, p.y, p.z) for p in faces[0].landmark], np.float32) * side
        points[:, 0] += x0
        points[:, 1] += y0
        return points

    @staticmethod
    def _area_crop(rgb: NDArray[np.uint8], x0: float, y0: float, side: float) -> NDArray[np.uint8]:
        scale = CROP_SIZE / side
        height, width = rgb.shape[:2]
        left, top = max(int(x0), 0), max(int(y0), 0)
        right, bottom = min(int(x0 + side) + 1, width), min(int(y0 + side) + 1, height)
        part = rgb[top:bottom, left:right]
        size = (max(round(part.shape[1] * 2 * scale), 1), max(round(part.shape[0] * 2 * scale), 1))
        part = cv2.resize(part, size, interpolation=cv2.INTER_AREA).astype(np.uint8)
        sx, sy = size[0] / (right - left), size[1] / (bottom - top)
        matrix = np.array([[scale / sx, 0, 0], [0, scale / sy, 0]], np.float64)
        matrix[0, 2] = (left - x0 + 0.5 / sx) * scale - 0.5
        matrix[1, 2] = (top - y0 + 0.5 / sy) * scale - 0.5
        out = cv2.warpAffine(part, matrix, (CROP_SIZE, CROP_SIZE), flags=cv2.INTER_LINEAR)
        return out.astype(np.uint8)

    def close(self) -> None:
        self._net.close()
