"""What the engine sees in a video: face tracks, and the chosen speaker's fitted geometry."""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dubbing.errors import NoFaceFound, OptionInvalid
from dubbing.face.appearance import FaceSampler
from dubbing.face.faults import confidence, covered, frame_faults
from dubbing.face.limits import AWAY, DISSOLVE, FLASH, NO_FACE, OVERLAPPED, FaceLimits
from dubbing.face.overlaps import hidden_frames
from dubbing.face.rows import LandmarkRows
from dubbing.face.stretches import Stretch, StretchFaces, StretchJoiner, stretches
from dubbing.face.tracker import FaceNetworks, FaceTrack, FaceTracker
from dubbing.geometry.fit import FaceFit, fit_track
from dubbing.geometry.morphable import MorphableModel
from dubbing.media.index import FrameIndex
from dubbing.media.reader import VideoReader
from dubbing.progress import StageProgress

SAME_FACE = 0.018  # mean distance of two neutral faces in half face heights: of one person nearly
# always below 0.014, of two people nearly never below 0.022 (measured on 120 clips)
MIN_SAME_FRAMES = 8  # a shorter track does not show its neutral face


@dataclass(frozen=True)
class VideoFaces:
    """Face tracks of a whole video.

    Attributes:
        cuts: first frames of later shots.
        blended: {frame: why} for frames that belong to no track although a face may be in them.
    """

    frames: int
    tracks: list[FaceTrack]
    cuts: list[int] = field(default_factory=list)
    blended: dict[int, str] = field(default_factory=dict)


@dataclass(frozen=True)
class SpeakerTrack:
    """The chosen speaker with its geometry, over one or more face tracks.

    Attributes:
        ids: of the face tracks, the chosen one first.
        position: {video frame: row of the tensors}.
        part: {video frame: id of its face track}; references never cross from one to another.
        fit: geometry of the tracks' frames; poses in pixels of the upright frame.
        reasons: {video frame: why it passes through} for every frame that is not dubbed.
        cuts: first frames of later shots; nothing is eased across them.
    """

    ids: list[int]
    position: dict[int, int]
    part: dict[int, int]
    fit: FaceFit
    reasons: dict[int, str]
    cuts: list[int] = field(default_factory=list)

    def confidences(self) -> dict[int, float]:
        """{face track: mean confidence 0..1 of its frames}."""
        sure = confidence(self.fit)
        rows: dict[int, list[int]] = {}
        for frame, row in self.position.items():
            rows.setdefault(self.part[frame], []).append(row)
        return {part: float(sure[own].mean()) for part, own in rows.items()}


class KnownFaces(Protocol):
    """A video that was indexed, and what was found in some of its stretches."""

    @property
    def index(self) -> FrameIndex: ...

    def stretch(self, number: int) -> StretchFaces | None:
        """What was found in a stretch; None where it is still to do."""
        ...


def find_faces(
    reader: VideoReader,
    progress: StageProgress,
    model: MorphableModel | None = None,
    known: KnownFaces | None = None,
) -> VideoFaces:
    """Decode the video once and track every face in it.

    Args:
        model: with it covered mouths and blurred faces are looked for too.
        known: of this very video, found with the same `model`. Makes no difference to the result.
    """
    joiner = StretchJoiner()
    if known is not None:
        reader.use_index(known.index)
        for stretch in stretches(known.index.count):
            found = known.stretch(stretch.number)
            if found is None:
                found = find_stretch(reader, stretch, model)
            joiner.add(stretch, found)
            progress.advance(stretch.stop - stretch.start)
    else:
        for stretch, found in _each_stretch(reader, progress, model):
            joiner.add(stretch, found)
    tracks = joiner.finish()
    progress.finish()
    blended = {k: DISSOLVE if mixed else FLASH for k, mixed in joiner.blended.items()}
    return VideoFaces(reader.index.count, tracks, joiner.cuts, blended)


def find_stretch(
    reader: VideoReader, stretch: Stretch, model: MorphableModel | None = None
) -> StretchFaces:
    """The faces of one stretch of a video whose index is known."""
    with _tracker(stretch, model) as tracker:
        for frame in reader.read_range(stretch.first, stretch.last):
            tracker.add(frame.rgb())
        return _found(tracker)


def _each_stretch(
    reader: VideoReader, progress: StageProgress, model: MorphableModel | None
) -> Iterator[tuple[Stretch, StretchFaces]]:
    """The same for all stretches from one decode, of a video whose length is not known before."""
    coming = stretches(None)
    following = next(coming)
    running: deque[tuple[Stretch, FaceTracker]] = deque()
    count = 0
    with FaceNetworks() as networks:
        for frame in reader:
            if count == following.first:
                running.append((following, _tracker(following, model, networks)))
                following = next(coming)
            rgb = frame.rgb()
            for _, tracker in running:
                tracker.add(rgb)
            count += 1
            progress.advance()
            if running[0][0].last == count:
                yield running[0][0], _found(running[0][1])
                running.popleft()
        for stretch, tracker in running:
            if stretch.start < count:
                yield stretch, _found(tracker)


def _tracker(
    stretch: Stretch, model: MorphableModel | None, networks: FaceNetworks | None = None
) -> FaceTracker:
    sampler = None if model is None else FaceSampler(model)
    return FaceTracker(sampler=sampler, first=stretch.first, networks=networks)


def _found(tracker: FaceTracker) -> StretchFaces:
    return StretchFaces(tracker.finish(), tracker.cuts, tracker.blended)


def choose_speaker(faces: VideoFaces, wanted: int | None, path: object) -> FaceTrack:
    """The track with id `wanted`, or the largest one.

    Raises:
        NoFaceFound: the video shows none, or not that one.
    """
    where = str(path)
    if not faces.tracks:
        raise NoFaceFound(
            f"no face in any of {faces.frames} frames",
            path=where,
            hint="the engine needs a face of 48 px or more that looks about this way",
        )
    if wanted is None:
        return max(faces.tracks, key=lambda t: t.weight)
    for track in faces.tracks:
        if track.id == wanted:
            return track
    known = ", ".join(str(t.id) for t in faces.tracks)
    raise NoFaceFound(f"no face track {wanted}", path=where, hint=f"tracks are {known}")


def fit_speaker(
    model: MorphableModel,
    faces: VideoFaces,
    chosen: FaceTrack,
    template: Tensor | None = None,
    limits: FaceLimits | None = None,
    others: Collection[int] = (),
) -> SpeakerTrack:
    """Fit the chosen track and the other tracks of the same person, and decide which frames can
    be dubbed.

    A face that was away, or another shot, starts a new track. It belongs to the speaker if it is
    never in the picture together with the tracks taken so far and has the same neutral face; the
    most alike is taken first.

    Args:
        template: [V, 3] the speaker's neutral face where it is known from another video.
        others: face tracks that are known to be of other people.

    Raises:
        NoFaceFound: no frame is usable.
    """
    clear = uncovered(chosen)
    if template is None and len(clear) < len(chosen.landmarks):
        template = fit_track(model, clear).template
    fits = [fit_track(model, chosen.landmarks, template=template)]
    own = fits[0].template
    tracks = [chosen]
    taken = set(chosen.frames)
    for track in _alike(model, faces, chosen, own):
        if track.id in others or taken & set(track.frames):
            continue
        fits.append(fit_track(model, track.landmarks, template=own))
        tracks.append(track)
        taken |= set(track.frames)
    fit = FaceFit(
        fits[0].alpha,
        own,
        torch.cat([f.beta for f in fits]),
        torch.cat([f.pose for f in fits]),
        torch.cat([f.error for f in fits]),
    )
    bad = [
        fault
        for own_fit, track in zip(fits, tracks, strict=True)
        for fault in frame_faults(own_fit, track.landmarks, limits, track.sharp, track.visible)
    ]
    limits = limits or FaceLimits()
    if limits.min_visible > -1:
        hidden = [hidden_frames(track, faces.tracks) for track in tracks]
        where = [
            frame in hid
            for track, hid in zip(tracks, hidden, strict=True)
            for frame in track.frames
        ]
        bad = [fault or (OVERLAPPED if hid else "") for fault, hid in zip(bad, where, strict=True)]
    seen = [(frame, track.id) for track in tracks for frame in track.frames]
    reasons = _unseen(faces)
    for (frame, _), fault in zip(seen, bad, strict=True):
        if fault:
            reasons[frame] = fault
        else:
            del reasons[frame]
    if len(reasons) == faces.frames:
        common = max(set(bad), key=bad.count)
        raise NoFaceFound(f"face track {chosen.id} has no usable frame: {common}")
    return SpeakerTrack(
        [t.id for t in tracks],
        {frame: row for row, (frame, _) in enumerate(seen)},
        dict(seen),
        fit,
        reasons,
        faces.cuts,
    )


def fit_speakers(
    model: MorphableModel,
    faces: VideoFaces,
    chosen: Mapping[str, FaceTrack],
    limits: FaceLimits | None = None,
) -> list[SpeakerTrack]:
    """`fit_speaker` for several people at once; no face track goes to two of them.

    Args:
        chosen: {name: face track}.

    Raises:
        NoFaceFound: no frame of one of them is usable.
        OptionInvalid: two names mean one person.
    """
    owner: dict[int, str] = {}
    for name, track in chosen.items():
        if track.id in owner:
            raise OptionInvalid(f"speakers {owner[track.id]} and {name} are one face: {track.id}")
        owner[track.id] = name
    found = []
    for name, track in chosen.items():
        others = [other for other, whose in owner.items() if whose != name]
        speaker = fit_speaker(model, faces, track, limits=limits, others=others)
        owner |= dict.fromkeys(speaker.ids, name)
        found.append(speaker)
    return found


def uncovered(track: FaceTrack) -> LandmarkRows:
    """Landmarks of the frames whose mouth is visible, or of all where hardly one is:
    under a cover the mesh network guesses, and the neutral face would be a guess too."""
    if not track.visible:
        return track.landmarks
    clear = ~covered(np.array(track.visible), FaceLimits().min_visible)
    if clear.all() or clear.sum() < MIN_SAME_FRAMES:
        return track.landmarks
    seen = LandmarkRows()
    for k in np.flatnonzero(clear).tolist():
        seen.append(track.landmarks[k])
    return seen


def _alike(
    model: MorphableModel, faces: VideoFaces, chosen: FaceTrack, template: Tensor
) -> list[FaceTrack]:
    """Tracks with the neutral face `template` that are never seen beside `chosen`, the most alike
    first."""
    found = []
    there = set(chosen.frames)
    for track in faces.tracks:
        if len(track.frames) < MIN_SAME_FRAMES or there & set(track.frames):
            continue
        neutral = fit_track(model, uncovered(track)).template
        distance = float((neutral - template).norm(dim=-1).mean())
        if distance <= SAME_FACE:
            found.append((distance, track))
    return [track for _, track in sorted(found, key=lambda pair: pair[0])]


def _unseen(faces: VideoFaces) -> dict[int, str]:
    """{frame: reason} of every frame as if the speaker were in none."""
    reasons = dict.fromkeys(range(faces.frames), NO_FACE)
    reasons |= {frame: AWAY for track in faces.tracks for frame in track.frames}
    return reasons | faces.blended


def easing(
    reasons: dict[int, str], frames: int, over: int = 4, cuts: Sequence[int] = ()
) -> NDArray[np.float32]:
    """Weight [frames] of the dub: 0 in frames that pass through, rising over `over` frames beside
    them, 1 elsewhere. Beyond a cut (first frames of later shots) nothing is eased."""
    weights = np.ones(frames, np.float32)
    edges = [0, *sorted(c for c in set(cuts) if 0 < c < frames), frames]
    blocked = np.array(sorted(reasons), np.int64)
    for start, stop in pairwise(edges):
        inside = blocked[np.searchsorted(blocked, start) : np.searchsorted(blocked, stop)]
        if len(inside) == 0:
            continue
        here = np.arange(start, stop)
        after = np.searchsorted(inside, here)
        right = inside[np.minimum(after, len(inside) - 1)] - here
        left = here - inside[np.maximum(after - 1, 0)]
        away = np.minimum(
            np.where(after < len(inside), right, frames), np.where(after > 0, left, frames)
        )
        weights[start:stop] = np.clip(away / (over + 1), 0, 1)
    return weights
