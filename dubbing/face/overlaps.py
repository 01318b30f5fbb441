"""Two faces at one place of the picture: how much they overlap, and which may be hidden.

A mesh follows a face for a while after another one, or the other's hair, has come before a part of
it. What would be drawn there would be drawn on the other person.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING

import cv2
import numpy as np
from numpy.typing import NDArray

from dubbing.face.limits import FaceLimits
from dubbing.geometry.topology import N_VERTICES, SUBNASALE

if TYPE_CHECKING:
    from dubbing.face.tracker import FaceTrack

FACE, HEAD = 1.15, 1.5  # sizes of the outline: with its uncertainty, and with hair and ears
MIN_SHARE = 0.02  # of the lower face: less is the rounding of an outline
NEARER = 1.15  # times the other's size: surely nearer to the camera
NEAR_FRAMES = 25  # how long it is known who is in front after one of the two was hidden


@dataclass(frozen=True)
class Overlap:
    """Shares, 0..1, of a face's lower half that lie inside another face or its head."""

    face: float = 0.0
    head: float = 0.0

    def __or__(self, other: Overlap) -> Overlap:
        return Overlap(max(self.face, other.face), max(self.head, other.head))


def find_overlaps(faces: Sequence[NDArray[np.float32]]) -> dict[int, Overlap]:
    """{number of a face: its overlap} of all faces of a frame that overlap with another.

    Args:
        faces: landmarks [>=468, >=2].
    """
    found: dict[int, Overlap] = {}
    lows = [points[:N_VERTICES, :2].min(0) for points in faces]
    highs = [points[:N_VERTICES, :2].max(0) for points in faces]
    for a, b in combinations(range(len(faces)), 2):
        reach = (HEAD - 1) / 2 * np.maximum(highs[a] - lows[a], highs[b] - lows[b])
        if ((lows[a] > highs[b] + reach) | (lows[b] > highs[a] + reach)).any():
            continue
        pair = {a: _overlap(faces[a], faces[b]), b: _overlap(faces[b], faces[a])}
        if any(overlap.head >= MIN_SHARE for overlap in pair.values()):
            found |= {face: overlap | found.get(face, overlap) for face, overlap in pair.items()}
    return found


def _overlap(own: NDArray[np.float32], other: NDArray[np.float32]) -> Overlap:
    points = own[:N_VERTICES, :2]
    lower = cv2.convexHull(np.ascontiguousarray(points[points[:, 1] >= own[SUBNASALE, 1]]))
    outline = cv2.convexHull(np.ascontiguousarray(other[:N_VERTICES, :2]))
    whole = max(cv2.contourArea(lower), 1.0)
    middle = outline.mean(0, keepdims=True)
    grown = ((middle + (outline - middle) * size).astype(np.float32) for size in (FACE, HEAD))
    return Overlap(*(float(cv2.intersectConvexConvex(lower, g)[0]) / whole for g in grown))


def hidden_frames(track: FaceTrack, tracks: Sequence[FaceTrack]) -> set[int]:
    """Frames in which another person may be before the lower face of `track`.

    Of two faces that overlap the one that vanishes, comes out, or has its mouth covered is the
    hidden one for about a second around that: then the other's hair counts too. Where nothing of
    that happens the larger face is in front, and where neither is larger either may be hidden.
    """
    hidden: set[int] = set()
    for other in tracks:
        if other is track:
            continue
        for first, last in _runs(sorted(track.overlaps.keys() & other.overlaps.keys())):
            frames = np.arange(first, last + 1)
            here = _near(frames, _moments(track, other, first, last))
            there = _near(frames, _moments(other, track, first, last))
            smaller = _side(track, first, last) < NEARER * _side(other, first, last)
            for frame, own, others in zip(frames.tolist(), here, there, strict=True):
                overlap = track.overlaps[frame]
                unsure = own == others and smaller and overlap.face >= MIN_SHARE
                if unsure or (own and not others and overlap.head >= MIN_SHARE):
                    hidden.add(frame)
    return hidden


def _runs(frames: list[int]) -> list[tuple[int, int]]:
    """First and last of every row of consecutive frames."""
    runs: list[tuple[int, int]] = []
    for frame in frames:
        if runs and runs[-1][1] == frame - 1:
            runs[-1] = (runs[-1][0], frame)
        else:
            runs.append((frame, frame))
    return runs


def _moments(track: FaceTrack, other: FaceTrack, first: int, last: int) -> list[int]:
    """Frames of a run in which `track` is not seen, or its mouth is not, while the other's is."""
    found = [frame for frame in (first - 1, last + 1)
             if not _rows(track, frame, frame) and _rows(other, frame, frame)]  # fmt: skip
    rows = zip(_rows(track, first, last), _rows(other, first, last), strict=True)
    for frame, (own, theirs) in enumerate(rows, first):
        if _covered(track, own) and not _covered(other, theirs):
            found.append(frame)
    return found


def _covered(track: FaceTrack, row: int) -> bool:
    return row < len(track.visible) and track.visible[row] < FaceLimits().min_visible


def _near(frames: NDArray[np.int64], moments: list[int]) -> list[bool]:
    """Which frames are near one of the moments."""
    close = [abs(frames - moment) <= NEAR_FRAMES for moment in moments]
    return np.any(close, axis=0).tolist() if close else [False] * len(frames)


def _side(track: FaceTrack, first: int, last: int) -> float:
    """Mean side of the face in these frames, pixels."""
    rows = _rows(track, first, last)
    boxes = (np.ptp(track.landmarks[k][:N_VERTICES, :2], axis=0) for k in rows)
    return float(np.mean([box.max() for box in boxes]))


def _rows(track: FaceTrack, first: int, last: int) -> range:
    """Rows of the track that lie between video frames `first` and `last`."""
    return range(bisect_left(track.frames, first), bisect_right(track.frames, last))
