"""Full-range face detection (MediaPipe's 2-5 m model, which also sees close faces)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from dubbing.closing import Closing
from dubbing.face.native_log import muted_start

# The detector's own input is 192 px; more than this only costs time in its first resize.
MAX_INPUT_SIDE = 640


@dataclass(frozen=True)
class FaceBox:
    """Axis-aligned box in pixels of the upright frame; `score` in 0..1."""

    x0: float
    y0: float
    x1: float
    y1: float
    score: float = 1.0

    @property
    def side(self) -> float:
        return max(self.x1 - self.x0, self.y1 - self.y0)

    def iou(self, other: FaceBox) -> float:
        """Intersection over union, 0..1."""
        w = min(self.x1, other.x1) - max(self.x0, other.x0)
        h = min(self.y1, other.y1) - max(self.y0, other.y0)
        if w <= 0 or h <= 0:
            return 0.0
        inter = w * h
        area = (self.x1 - self.x0) * (self.y1 - self.y0)
        area_other = (other.x1 - other.x0) * (other.y1 - other.y0)
        return inter / (area + area_other - inter)


class FaceDetector(Closing):
    """Finds every face of a frame. Stateless between frames, hence deterministic."""

    def __init__(self, min_confidence: float = 0.5):
        # mediapipe takes about 2 s to import, and only detection needs it
        from mediapipe.python.solutions.face_detection import FaceDetection

        with muted_start():
            self._net: Any = FaceDetection(
                model_selection=1, min_detection_confidence=min_confidence
            )
            self._net.process(np.zeros((192, 192, 3), np.uint8))

    def detect(self, rgb: NDArray[np.uint8]) -> list[FaceBox]:
        """Faces in `rgb` ([H, W, 3] uint8, RGB, upright), best first, in its pixels."""
        height, width = rgb.shape[:2]
        scale = MAX_INPUT_SIDE / max(height, width)
        small = rgb
        if scale < 1:
            size = (round(width * scale), round(height * scale))
            small = cv2.resize(rgb, size, interpolation=cv2.INTER_AREA).astype(np.uint8)
        found = self._net.process(np.ascontiguousarray(small)).detections or []
        boxes = []
        for detection in found:
            box, score = detection.location_data.relative_bounding_box, detection.score[0]
            x0, y0 = box.xmin * width, box.ymin * height
            boxes.append(FaceBox(x0, y0, x0 + box.width * width, y0 + box.height * height, score))
        return sorted(boxes, key=lambda b: -b.score)

    def close(self) -> None:
        self._net.close()
