"""Faces followed over a video: one track per person and shot, with dense landmarks."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from dubbing.face.closing import Closing
from dubbing.face.detector import FaceBox, FaceDetector
from dubbing.face.landmarks import FaceMesher, landmark_box
from dubbing.face.rows import LandmarkRows, face_sides
from dubbing.face.shots import ShotDetector

DETECT_EVERY = 10  # frames between full detections while every track is held
MIN_IOU = 0.3  # of a track's last box with the new one
MAX_GAP = 25  # frames a lost face may be away and keep its id within a shot
MIN_TRACK = 3  # frames; shorter tracks are flicker of the detector


@dataclass
class FaceTrack:
    """One face over a shot. `frames[k]` is the video frame of `landmarks[k]` ([478, 3] px)."""

    id: int
    shot: int
    frames: list[int] = field(default_factory=list)
    landmarks: LandmarkRows = field(default_factory=LandmarkRows)

    @property
    def box(self) -> FaceBox:
        return landmark_box(self.landmarks[-1])

    @property
    def mean_side(self) -> float:
        """Mean side of the face box in pixels."""
        return float(face_sides(self.landmarks).mean())

    @property
    def weight(self) -> float:
        """Face area times presence: the 'largest' speaker has the greatest."""
        return self.mean_side**2 * len(self.frames)

    def stacked(self) -> NDArray[np.float32]:
        """Landmarks [T, 478, 3], all at once: 5.7 kB per frame."""
        return self.landmarks[:]


class FaceTracker(Closing):
    """Feed upright RGB frames in order with `add`; read `tracks` at the end with `finish`."""

    def __init__(self, min_confidence: float = 0.5):
        self._detector = FaceDetector(min_confidence)
        self._mesher = FaceMesher(min_confidence)
        self._shots = ShotDetector()
        self._open: list[FaceTrack] = []
        self._closed: list[FaceTrack] = []
        self._next_id = 0
        self._shot = 0
        self._index = -1
        self._since_detection = DETECT_EVERY
        self.cuts: list[int] = []

    def add(self, rgb: NDArray[np.uint8]) -> None:
        """Take the next frame, [H, W, 3] uint8 RGB, upright."""
        self._index += 1
        if self._shots.is_cut(rgb):
            self._shot += 1
            self.cuts.append(self._index)
            self._closed += self._open
            self._open = []
            self._since_detection = DETECT_EVERY
        held = [t for t in self._open if t.frames[-1] == self._index - 1]
        lost = []
        for track in held:
            if not self._extend(track, rgb, track.box):
                lost.append(track)
        self._since_detection += 1
        if lost or not held or self._since_detection >= DETECT_EVERY:
            self._since_detection = 0
            self._detect(rgb)
        stale = [t for t in self._open if self._index - t.frames[-1] > MAX_GAP]
        self._closed += stale
        self._open = [t for t in self._open if t not in stale]

    def _extend(self, track: FaceTrack, rgb: NDArray[np.uint8], box: FaceBox) -> bool:
        points = self._mesher.landmarks(rgb, box)
        if points is None or landmark_box(points).iou(box) < MIN_IOU:
            return False
        track.frames.append(self._index)
        track.landmarks.append(points)
        return True

    def _detect(self, rgb: NDArray[np.uint8]) -> None:
        now = [t for t in self._open if t.frames[-1] == self._index]
        away = [t for t in self._open if t.frames[-1] != self._index]
        for box in self._detector.detect(rgb):
            if any(t.box.iou(box) > MIN_IOU for t in now):
                continue
            points = self._mesher.landmarks(rgb, box)
            if points is None or landmark_box(points).iou(box) < MIN_IOU:
                continue
            found = landmark_box(points)
            track = max(away, key=lambda t: t.box.iou(found), default=None)
            if track is None or track.box.iou(found) < MIN_IOU / 3:
                track = FaceTrack(self._next_id, self._shot)
                self._next_id += 1
                self._open.append(track)
            else:
                away.remove(track)
            track.frames.append(self._index)
            track.landmarks.append(points)
            now.append(track)

    def finish(self) -> list[FaceTrack]:
        """Every track of at least MIN_TRACK frames, in order of id."""
        tracks = [t for t in self._closed + self._open if len(t.frames) >= MIN_TRACK]
        return sorted(tracks, key=lambda t: t.id)

    def close(self) -> None:
        self._detector.close()
        self._mesher.close()
