"""Where shots change: hard cuts, dissolves, and flashes that change nothing, from thumbnails."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

THUMB = (48, 27)  # px
MIN_CHANGE = 25.0  # mean absolute grey change, 0..255, that no movement inside a shot reaches
MIN_RATIO = 3.0  # times the shot's usual change
FLASH = 5  # frames: a shorter interruption after which the old picture is back is no cut
SAME = 0.5  # share of MIN_CHANGE within which a picture is the old one again

# A dissolve mixes two pictures: every frame of it lies on the straight line between its ends. Over
# 16,000 frames of talking and walking heads no window of these lengths came nearer to that line
# than 0.21 of the change; dissolves of 6 to 40 frames lie at 0.14 and below (97 %).
WINDOWS = (4, 6, 8, 12, 16, 24, 32, 48)  # frames
MAX_BEND = 0.17  # distance of inner frames from the line, as a share of the change
MIN_BLEND = 12.0  # mean absolute grey change over the window
MIN_UNLIT = 8.0  # of it, what no change of brightness and contrast explains
MIN_STRANGE = (
    0.55  # share of the change that no movement explains: 0.8 and more in dissolves; pans,
)
# zooms and heads that move evenly also lie on a line, but leave 0.35 at most
PURE = 0.04  # share of the second picture below which, or above one less it, a frame is not mixed
_SLOPES = np.stack(
    [np.ones(THUMB[::-1]), *np.mgrid[-1 : 1 : THUMB[1] * 1j, -1 : 1 : THUMB[0] * 1j]], -1
).reshape(-1, 3)
PATIENCE = 8  # frames off the line after which a dissolve has ended


@dataclass(frozen=True)
class ShotChange:
    """What a new frame tells.

    Attributes:
        cut: it is the first frame of a new shot.
        flash: number of frames before it that were an interruption: the picture of before is back,
            and the cut that was reported at their beginning was none.
        dissolve: first and last frame of a dissolve that has ended since, or None.
    """

    cut: bool = False
    flash: int = 0
    dissolve: tuple[int, int] | None = None


class ShotDetector:
    """Fed frame by frame, from number `first`; says where a new shot begins. Holds the last 49
    thumbnails."""

    def __init__(self, first: int = 0) -> None:
        self._recent: deque[NDArray[np.float32]] = deque(maxlen=max(WINDOWS) + 1)
        self._usual = 0.0
        self._index = first - 1
        self._since_cut = 0  # frames since the last cut, that one included
        self._before: NDArray[np.float32] | None = None  # the last picture before that cut
        self._blend: tuple[int, int] | None = None  # the dissolve that is going on

    def add(self, rgb: NDArray[np.uint8]) -> ShotChange:
        """Take the next frame, [H, W, 3] uint8 RGB."""
        self._index += 1
        small = cv2.resize(rgb, THUMB, interpolation=cv2.INTER_AREA)
        grey = cv2.cvtColor(small, cv2.COLOR_RGB2GRAY).astype(np.float32)
        last = self._recent[-1] if self._recent else grey
        change = float(np.abs(grey - last).mean())
        flash = self._flash(grey)
        cut = not flash and change > max(MIN_CHANGE, MIN_RATIO * self._usual)
        self._usual = 0.0 if cut or flash else 0.9 * self._usual + 0.1 * change
        if cut:
            self._recent.clear()
            if self._before is None:
                self._before, self._since_cut = last, 0
        self._recent.append(grey)
        if self._before is not None:
            self._since_cut += 1
            if self._since_cut > FLASH:
                self._before = None
        return ShotChange(cut, flash, self._dissolve(cut))

    def finish(self) -> tuple[int, int] | None:
        """The dissolve in which the video ends, or None."""
        return self._blend

    def _flash(self, grey: NDArray[np.float32]) -> int:
        """Frames of the interruption that ends with this frame, 0 for none."""
        if self._before is None or np.abs(grey - self._before).mean() > SAME * MIN_CHANGE:
            return 0
        self._before = None
        self._recent.clear()
        return self._since_cut

    def _dissolve(self, cut: bool) -> tuple[int, int] | None:
        """Follow a dissolve; its first and last frame once it is over."""
        found = self._mixed()
        if found is not None:
            first, last = found
            if self._blend is not None:
                first, last = min(first, self._blend[0]), max(last, self._blend[1])
            self._blend = (first, last)
        if self._blend is None or (not cut and self._index - self._blend[1] < PATIENCE):
            return None
        ended, self._blend = self._blend, None
        return ended

    def _mixed(self) -> tuple[int, int] | None:
        """First and last frame of the mixture in the longest window up to now whose frames lie on
        a line, None where there is no such window."""
        last = self._recent[-1]
        for length in reversed(WINDOWS):
            if length >= len(self._recent):
                continue
            first = self._recent[-1 - length]
            change = last - first
            size = float(np.abs(change).mean())
            if size < MIN_BLEND:
                continue
            inner = (round(length * share) for share in (0.25, 0.5, 0.75))
            bends = (
                np.abs(self._recent[k - 1 - length] - first - change * (k / length)).mean()
                for k in inner
            )
            if any(bend > MAX_BEND * size for bend in bends):
                continue
            lit = min(_unlit(first, change), _unlit(last, change)) < MIN_UNLIT
            if not lit and _strange(first, last):
                start, stop = self._ramp(length, first, change)
                return self._index - length + start, self._index - length + stop
        return None

    def _ramp(
        self, length: int, first: NDArray[np.float32], change: NDArray[np.float32]
    ) -> tuple[int, int]:
        """Where in a window the change begins and ends: it may have pure pictures at its ends."""
        unit = change / float((change * change).sum())
        frames = list(self._recent)[-1 - length :]
        share = np.array([float(((f - first) * unit).sum()) for f in frames])
        return int(np.flatnonzero(share <= PURE)[-1]), int(np.flatnonzero(share >= 1 - PURE)[0])


def _unlit(picture: NDArray[np.float32], change: NDArray[np.float32]) -> float:
    """Mean absolute part of `change` that is not a change of the picture's own brightness and
    contrast, evenly or with a slope over the picture."""
    slopes = _SLOPES * picture.reshape(-1, 1)
    basis = np.concatenate([_SLOPES, slopes / 128], 1)
    found = np.linalg.lstsq(basis, change.ravel(), rcond=None)[0]
    return float(np.abs(change.ravel() - basis @ found).mean())


def _strange(first: NDArray[np.float32], last: NDArray[np.float32]) -> bool:
    """Whether `last` can't be made by moving the contents of `first`."""
    size = (2 * THUMB[0], 2 * THUMB[1])  # the flow wants some pixels around every movement
    a, b = cv2.resize(first, size), cv2.resize(last, size)
    flow = cv2.calcOpticalFlowFarneback(
        a.astype(np.uint8), b.astype(np.uint8), np.zeros((size[1], size[0], 2), np.float32),
        0.5, 3, 13, 3, 5, 1.1, 0,
    )  # fmt: skip
    y, x = np.mgrid[: size[1], : size[0]].astype(np.float32)
    moved = cv2.remap(
        b, x + flow[..., 0], y + flow[..., 1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
    )
    return bool(np.abs(moved - a).mean() > MIN_STRANGE * np.abs(b - a).mean())
