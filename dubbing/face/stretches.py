"""A long video's faces, stretch by stretch: each is found by a tracker of its own.

A stretch is a function of its own frames and of the few around it, so that any process may find
its faces, in any order. Neighbouring stretches watch some frames together: a face that both see at
one place there is one track.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from dubbing.face.landmarks import landmark_box
from dubbing.face.tracker import MIN_TRACK, ONE_FACE, FaceTrack

STRETCH = 1500  # frames
REACH = 50  # frames watched on either side: the longest window of a dissolve, two gaps of a track


@dataclass(frozen=True)
class Stretch:
    """Frames [start, stop) of a video, for which [first, last) are watched."""

    number: int
    start: int
    stop: int
    first: int
    last: int


def stretches(count: int | None) -> Iterator[Stretch]:
    """The stretches of a video of `count` frames, in order; without end where that is None."""
    number = 0
    while count is None or number * STRETCH < count:
        start, stop = number * STRETCH, (number + 1) * STRETCH
        first, last = max(start - REACH, 0), stop + REACH
        if count is not None:
            stop, last = min(stop, count), min(last, count)
        yield Stretch(number, start, stop, first, last)
        number += 1


@dataclass(frozen=True)
class StretchFaces:
    """What a tracker found in all frames that were watched for a stretch, see `FaceTracker`."""

    tracks: list[FaceTrack]
    cuts: list[int] = field(default_factory=list)
    blended: dict[int, bool] = field(default_factory=dict)


class StretchJoiner:
    """Takes stretches in order and makes one video of them.

    Attributes:
        cuts, blended: of the stretches so far, see `FaceTracker`.
    """

    def __init__(self) -> None:
        self.cuts: list[int] = []
        self.blended: dict[int, bool] = {}
        self._tracks: list[FaceTrack] = []
        self._seen: list[tuple[FaceTrack, FaceTrack | None]] = []  # the last stretch's: own, joined
        self._next_id = 0

    def add(self, stretch: Stretch, found: StretchFaces) -> None:
        """Take the next stretch; the landmarks of the one before are forgotten."""
        own = range(stretch.start, stretch.stop)
        self.cuts += [cut for cut in found.cuts if cut in own]
        self.blended |= {frame: why for frame, why in found.blended.items() if frame in own}
        before = self._matched(found.tracks)
        seen = []
        for track in found.tracks:
            target = None
            begin = next((frame for frame in track.frames if frame in own), None)
            if track.id in before:
                known, target = before[track.id]
                # a detector that looks every few frames may see a new face later than the other
                target.extend(known, range(own.start, own.start if begin is None else begin))
            elif begin is not None:
                target = self._new_track(track.id if stretch.number == 0 else None)
            if target is not None:
                target.extend(track, own)
            seen.append((track, target))
        for track, _ in self._seen:
            track.landmarks.forget()
        self._seen = seen

    def finish(self) -> list[FaceTrack]:
        """Every track of at least MIN_TRACK frames, in order of id."""
        for track in self._tracks:
            track.shot = bisect_right(self.cuts, track.frames[0])
        return [track for track in self._tracks if len(track.frames) >= MIN_TRACK]

    def _new_track(self, wanted: int | None) -> FaceTrack:
        track = FaceTrack(self._next_id if wanted is None else wanted, 0)
        self._next_id = track.id + 1
        self._tracks.append(track)
        return track

    def _matched(self, tracks: list[FaceTrack]) -> dict[int, tuple[FaceTrack, FaceTrack]]:
        """{id of a track: the last stretch's own track of that face, and the joined one}."""
        pairs = []
        for known, target in self._seen:
            for track in tracks:
                shared, agreement = _agreement(known, track)
                if target is not None and agreement > ONE_FACE:
                    pairs.append((shared * agreement, known, target, track))
        found: dict[int, tuple[FaceTrack, FaceTrack]] = {}
        taken: set[int] = set()
        for _, known, target, track in sorted(pairs, key=lambda pair: -pair[0]):
            if track.id not in found and target.id not in taken:
                found[track.id] = known, target
                taken.add(target.id)
        return found


def _agreement(first: FaceTrack, second: FaceTrack) -> tuple[int, float]:
    """Frames that both tracks have, and the mean overlap (IoU) of their faces in them."""
    rows = {frame: row for row, frame in enumerate(first.frames)}
    common = [(rows[f], row) for row, f in enumerate(second.frames) if f in rows]
    if not common:
        return 0, 0.0
    boxes = (
        (landmark_box(first.landmarks[a]), landmark_box(second.landmarks[b])) for a, b in common
    )
    return len(common), float(np.mean([a.iou(b) for a, b in boxes]))
