"""Faces followed over a video: one track per person and shot, with dense landmarks."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from dubbing.closing import Closing
from dubbing.face.appearance import FaceSampler, sharpness
from dubbing.face.detector import FaceBox, FaceDetector
from dubbing.face.landmarks import FaceMesher, landmark_box
from dubbing.face.overlaps import Overlap, find_overlaps
from dubbing.face.rows import Held, LandmarkRows, face_sides
from dubbing.face.shots import FLASH, ShotDetector

DETECT_EVERY = 10  # frames between full detections while every track is held
MIN_IOU = 0.3  # of a track's last box with the new one
ONE_FACE = 0.5  # IoU above which two tracks have found one face: another was hidden behind it
SURELY = 2.0  # times nearer to the one track than to the next one where either may own a face
COAST = 5  # frames for which a lost face is taken to move on as before
MAX_GAP = 25  # frames a lost face may be away and keep its id within a shot
MIN_TRACK = 3  # frames; shorter tracks are flicker of the detector
PATTERN_BLOCK = 2000  # frames whose appearance is compared and then forgotten


@dataclass
class FaceTrack:
    """One face over a shot. `frames[k]` is the video frame of `landmarks[k]` ([478, 3] px).

    Attributes:
        sharp: per frame, see `appearance.sharpness`; empty where the tracker had no sampler.
        visible: per frame, see `FaceSampler.visibility`; empty without a sampler, complete once
            the track is closed.
        overlaps: {frame: how far} of the frames in which it overlaps with another face.
    """

    id: int
    shot: int
    frames: list[int] = field(default_factory=list)
    landmarks: LandmarkRows = field(default_factory=LandmarkRows)
    sharp: list[float] = field(default_factory=list)
    visible: list[float] = field(default_factory=list)
    overlaps: dict[int, Overlap] = field(default_factory=dict)
    _samples: Held = field(default_factory=Held, repr=False)

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

    def surprise(self, frame: int, points: NDArray[np.float32]) -> float:
        """How far `points` in video frame `frame` are from where this face would be if it had
        moved on as before: mean distance in sides of its box."""
        last = self.landmarks[-1][:, :2]
        gap = frame - self.frames[-1]
        moved = np.zeros(2, np.float32)
        if len(self.frames) > 1 and self.frames[-1] - self.frames[-2] == 1:
            moved = (last - self.landmarks[-2][:, :2]).mean(0) * min(gap, COAST)
        away = np.linalg.norm(points[:, :2] - last - moved, axis=1)
        return float(away.mean()) / max(self.box.side, 1.0)

    def stacked(self) -> NDArray[np.float32]:
        """Landmarks [T, 478, 3], all at once: 5.7 kB per frame."""
        return self.landmarks[:]

    def take(
        self,
        frame: int,
        points: NDArray[np.float32],
        rgb: NDArray[np.uint8],
        sampler: FaceSampler | None,
    ) -> None:
        """Go on with `points` in video frame `frame`."""
        self.frames.append(frame)
        self.landmarks.append(points)
        if sampler is not None:
            self.sharp.append(sharpness(rgb, points))
            self._samples.append(sampler.sample(rgb, points))
            if len(self._samples) >= 2 * PATTERN_BLOCK:
                self._compare(sampler, PATTERN_BLOCK)

    def close(self, sampler: FaceSampler | None) -> None:
        """Find out where the mouth was visible; no frame comes after this."""
        if sampler is not None:
            self._compare(sampler, len(self._samples))

    def _compare(self, sampler: FaceSampler, count: int) -> None:
        if count:
            self.visible += sampler.visibility(self._samples[:count]).tolist()
            self._samples.drop(count)

    def without(self, first: int, last: int) -> tuple[FaceTrack, FaceTrack]:
        """What lies before video frame `first` and after `last`, as two tracks of the same id."""
        before, after = FaceTrack(self.id, self.shot), FaceTrack(self.id, self.shot)
        for k, frame in enumerate(self.frames):
            if not first <= frame <= last:
                (before if frame < first else after)._copy(self, k)
        return before, after

    def extend(self, other: FaceTrack, frames: range) -> None:
        """Go on with what a closed track has of these video frames, all later than the own."""
        for k, frame in enumerate(other.frames):
            if frame in frames:
                self._copy(other, k)

    def _copy(self, other: FaceTrack, row: int) -> None:
        frame, known = other.frames[row], len(other.visible)
        self.frames.append(frame)
        self.landmarks.append(other.landmarks[row])
        if other.sharp:
            self.sharp.append(other.sharp[row])
        if frame in other.overlaps:
            self.overlaps[frame] = other.overlaps[frame]
        if row < known:
            self.visible.append(other.visible[row])
        elif len(other._samples):
            self._samples.append(other._samples[row - known])


class FaceNetworks(Closing):
    """A detector and a mesh network; they remember nothing, so any number of trackers may share
    them."""

    def __init__(self, min_confidence: float = 0.5):
        self.detector = FaceDetector(min_confidence)
        self.mesher = FaceMesher(min_confidence)

    def close(self) -> None:
        self.detector.close()
        self.mesher.close()


class FaceTracker(Closing):
    """Feed upright RGB frames in order with `add`; read `tracks` at the end with `finish`.

    Args:
        sampler: looks at sharpness and covered mouths where it is given.
        first: number of the first frame.
        networks: that several trackers share, which are then not closed with this one.

    Attributes:
        cuts: first frames of later shots.
        blended: {frame: True in a dissolve, False for a face in a flash}: frames that belong to no
            track.
    """

    def __init__(
        self,
        min_confidence: float = 0.5,
        sampler: FaceSampler | None = None,
        first: int = 0,
        networks: FaceNetworks | None = None,
    ):
        self._own = networks is None
        self._networks = networks or FaceNetworks(min_confidence)
        self._sampler = sampler
        self._shots = ShotDetector(first)
        self._open: list[FaceTrack] = []
        self._closed: list[FaceTrack] = []
        self._before_cut: list[FaceTrack] = []  # tracks that a cut ended, until it is sure
        self._cut_at = 0
        self._blend_end = -1
        self._next_id = 0
        self._shot = 0
        self._index = first - 1
        self._since_detection = DETECT_EVERY
        self.cuts: list[int] = []
        self.blended: dict[int, bool] = {}

    def add(self, rgb: NDArray[np.uint8]) -> None:
        """Take the next frame, [H, W, 3] uint8 RGB, upright."""
        self._index += 1
        change = self._shots.add(rgb)
        if change.dissolve is not None:
            self._split(*change.dissolve)
        if change.flash:
            self._undo_cut(change.flash)
        elif self._before_cut and self._index - self._cut_at > FLASH:
            self._end(self._before_cut)
            self._before_cut = []
        if change.cut:
            self._cut()
        held = [t for t in self._open if t.frames[-1] == self._index - 1]
        found = self._followed(held, rgb)
        for track, points in found:
            track.take(self._index, points, rgb, self._sampler)
        self._since_detection += 1
        if len(found) < len(held) or not held or self._since_detection >= DETECT_EVERY:
            self._since_detection = 0
            self._detect(rgb)
        here = [t for t in self._open if t.frames[-1] == self._index]
        for k, overlap in find_overlaps([t.landmarks[-1] for t in here]).items():
            here[k].overlaps[self._index] = overlap
        stale = [t for t in self._open if self._index - t.frames[-1] > MAX_GAP]
        self._end(stale)
        self._open = [t for t in self._open if t not in stale]

    def _cut(self) -> None:
        if self._before_cut:  # a second cut within the time of a flash
            self._end(self._open)
        else:
            self._before_cut, self._cut_at = self._open, self._index
        self._open = []
        self._shot += 1
        self.cuts.append(self._index)
        self._since_detection = DETECT_EVERY

    def _undo_cut(self, frames: int) -> None:
        """The last `frames` frames were a flash: the shot of before goes on."""
        first = self._index - frames
        while self.cuts and self.cuts[-1] >= first:
            self.cuts.pop()
            self._shot -= 1
        inside = (f for t in (*self._open, *self._closed) for f in t.frames if f >= first)
        self.blended |= dict.fromkeys(inside, False)
        self._open = [t for t in self._before_cut if t.frames[0] < first]
        self._before_cut = []
        self._closed = [t for t in self._closed if t.frames[0] < first]
        self._since_detection = DETECT_EVERY

    def _split(self, first: int, last: int) -> None:
        """Frames `first` to `last` were a dissolve: what follows is another shot."""
        self.blended |= dict.fromkeys(range(first, last + 1), True)
        if self.cuts and first <= self.cuts[-1] and self._blend_end == self.cuts[-1]:
            self.cuts[-1] = last + 1  # the same one goes on
        else:
            self._shot += 1
            self.cuts.append(last + 1)
        self._blend_end = last + 1
        kept = [t.without(first, last)[0] if t.frames[-1] >= first else t for t in self._closed]
        self._closed = [t for t in kept if t.frames]
        now = self._open
        self._open = []
        for track in now:
            before, after = track.without(first, last)
            after.shot = self._shot
            if before.frames and after.frames:
                after.id = self._next_id
                self._next_id += 1
            self._end([before] if before.frames else [])
            self._open += [after] if after.frames else []
        self._since_detection = DETECT_EVERY

    def _end(self, tracks: list[FaceTrack]) -> None:
        for track in tracks:
            track.close(self._sampler)
        self._closed += tracks

    def _followed(
        self, held: list[FaceTrack], rgb: NDArray[np.uint8]
    ) -> list[tuple[FaceTrack, NDArray[np.float32]]]:
        """Tracks of the last frame with their landmarks in this one.

        Where a face goes behind another the mesh network finds the nearer one in both places. It
        belongs to the track that it surprises less; the other one is lost for now. So it is where
        it was found for one track, but lies where a face that was lost just now would be.
        """
        seen = [(track, self._points(rgb, track.box)) for track in held]
        found = sorted(
            ((track.surprise(self._index, points), track, points)
             for track, points in seen if points is not None),
            key=lambda item: item[0],
        )  # fmt: skip
        away = [t for t in self._open if t not in held]
        kept: list[tuple[FaceTrack, NDArray[np.float32]]] = []
        for surprise, track, points in found:
            box = landmark_box(points)
            if any(landmark_box(other).iou(box) > ONE_FACE for _, other in kept):
                continue
            if any(
                t.box.iou(box) > MIN_IOU and t.surprise(self._index, points) < surprise
                for t in away
            ):
                continue
            kept.append((track, points))
        order = {id(track): k for k, track in enumerate(held)}
        return sorted(kept, key=lambda item: order[id(item[0])])

    def _points(self, rgb: NDArray[np.uint8], box: FaceBox) -> NDArray[np.float32] | None:
        """Landmarks of the face in a box, None where it is not there."""
        points = self._networks.mesher.landmarks(rgb, box)
        if points is None or landmark_box(points).iou(box) < MIN_IOU:
            return None
        return points

    def _detect(self, rgb: NDArray[np.uint8]) -> None:
        now = [t for t in self._open if t.frames[-1] == self._index]
        away = [t for t in self._open if t.frames[-1] != self._index]
        for box in self._networks.detector.detect(rgb):
            if any(t.box.iou(box) > MIN_IOU for t in now):
                continue
            points = self._points(rgb, box)
            if points is None:
                continue
            found = landmark_box(points)
            if any(t.box.iou(found) > ONE_FACE for t in now):
                continue
            track = self._owner(away, points)
            if track is None:
                track = FaceTrack(self._next_id, self._shot)
                self._next_id += 1
                self._open.append(track)
            else:
                away.remove(track)
            track.take(self._index, points, rgb, self._sampler)
            now.append(track)

    def _owner(self, away: list[FaceTrack], points: NDArray[np.float32]) -> FaceTrack | None:
        """The lost face that is back, None for a new one or where two could be it."""
        found = landmark_box(points)
        near = [t for t in away if t.box.iou(found) >= MIN_IOU / 3]
        near.sort(key=lambda t: t.surprise(self._index, points))
        if len(near) > 1:
            first, second = (t.surprise(self._index, points) for t in near[:2])
            if first * SURELY > second:
                return None
        return near[0] if near else None

    def finish(self) -> list[FaceTrack]:
        """Every track of at least MIN_TRACK frames, in order of id."""
        ending = self._shots.finish()
        if ending is not None:
            self._split(*ending)
            if self.cuts[-1] > self._index:  # no shot follows
                self.cuts.pop()
        self._end(self._before_cut + self._open)
        self._before_cut, self._open = [], []
        tracks = [t for t in self._closed if len(t.frames) >= MIN_TRACK]
        return sorted(tracks, key=lambda t: t.id)

    def close(self) -> None:
        if self._own:
            self._networks.close()
