"""One face followed from frame to frame, for streams without an end."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from dubbing.closing import Closing
from dubbing.face.detector import FaceBox
from dubbing.face.landmarks import landmark_box
from dubbing.face.tracker import MIN_IOU, FaceNetworks


class FaceFollower(Closing):
    """The largest face at first, then the same face while it stays near its last place."""

    def __init__(self, min_confidence: float = 0.5):
        self._networks = FaceNetworks(min_confidence)
        self._last: FaceBox | None = None

    def landmarks(self, rgb: NDArray[np.uint8]) -> NDArray[np.float32] | None:
        """Landmarks [478, 3] (pixels) in the next frame [H, W, 3] uint8 RGB, or None."""
        points = None if self._last is None else self._mesh(rgb, self._last)
        if points is None:
            boxes = self._networks.detector.detect(rgb)
            boxes.sort(key=lambda b: -b.side if self._last is None else -b.iou(self._last or b))
            points = self._mesh(rgb, boxes[0]) if boxes else None
        if points is not None:
            self._last = landmark_box(points)
        return points

    def _mesh(self, rgb: NDArray[np.uint8], box: FaceBox) -> NDArray[np.float32] | None:
        points = self._networks.mesher.landmarks(rgb, box)
        if points is None or landmark_box(points).iou(box) < MIN_IOU:
            return None
        return points

    def close(self) -> None:
        self._networks.close()
