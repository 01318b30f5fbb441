"""Hard shot cuts from a thumbnail's change."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

THUMB = (48, 27)  # px
MIN_CHANGE = 25.0  # mean absolute grey change, 0..255, that no movement inside a shot reaches
MIN_RATIO = 3.0  # times the shot's usual change


class ShotDetector:
    """Fed frame by frame; says where a new shot begins."""

    def __init__(self) -> None:
        self._last: NDArray[np.float32] | None = None
        self._usual = 0.0

    def is_cut(self, rgb: NDArray[np.uint8]) -> bool:
        """True when `rgb` ([H, W, 3] uint8, RGB) is the first frame of a new shot."""
        grey = cv2.cvtColor(
            cv2.resize(rgb, THUMB, interpolation=cv2.INTER_AREA), cv2.COLOR_RGB2GRAY
        ).astype(np.float32)
        if self._last is None:
            self._last = grey
            return False
        change = float(np.abs(grey - self._last).mean())
        self._last = grey
        cut = change > max(MIN_CHANGE, MIN_RATIO * self._usual)
        self._usual = 0.0 if cut else 0.9 * self._usual + 0.1 * change
        return cut
