"""What the engine sees in a video: face tracks, and the chosen speaker's fitted geometry."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dubbing.errors import NoFaceFound
from dubbing.face.rows import face_sides
from dubbing.face.tracker import FaceTrack, FaceTracker
from dubbing.geometry.fit import FaceFit, Landmarks, fit_track
from dubbing.geometry.morphable import MorphableModel
from dubbing.geometry.pose import yaw_pitch_roll
from dubbing.media.reader import VideoReader
from dubbing.progress import StageProgress

MIN_FACE = 48.0  # px: a smaller face has no lips to speak of
MAX_YAW = 50.0  # degrees: beyond it half the mouth is hidden
SAME_FACE = 0.018  # mean distance of two neutral faces in half face heights: of one person nearly
# always below 0.014, of two people nearly never below 0.022 (measured on 120 clips)
MIN_SAME_FRAMES = 8  # a shorter track does not show its neutral face
MAX_ERROR = 0.02  # face heights between fit and landmarks: beyond it the mesh is not on a face

NO_FACE = "no face found"
TOO_SMALL = f"face smaller than {MIN_FACE:.0f} px"
TURNED = f"face turned beyond {MAX_YAW:.0f} degrees"
UNSURE = "face tracked badly"


@dataclass(frozen=True)
class VideoFaces:
    """Face tracks of a whole video. `cuts` are the first frames of later shots."""

    frames: int
    tracks: list[FaceTrack]
    cuts: list[int] = field(default_factory=list)


@dataclass(frozen=True)
class SpeakerTrack:
    """The chosen speaker with its geometry, over one or more face tracks.

    Attributes:
        ids: of the face tracks, the chosen one first.
        position: {video frame: row of the tensors}.
        part: {video frame: id of its face track}; references never cross from one to another.
        fit: geometry of the tracks' frames; poses in pixels of the upright frame.
        reasons: {video frame: why it passes through} for every frame that is not dubbed.
    """

    ids: list[int]
    position: dict[int, int]
    part: dict[int, int]
    fit: FaceFit
    reasons: dict[int, str]


def find_faces(reader: VideoReader, progress: StageProgress) -> VideoFaces:
    """Decode the video once and track every face in it."""
    count = 0
    with FaceTracker() as tracker:
        for frame in reader:
            tracker.add(frame.rgb())
            count += 1
            progress.advance()
        progress.finish()
        return VideoFaces(count, tracker.finish(), tracker.cuts)


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
) -> SpeakerTrack:
    """Fit the chosen track and the other tracks of the same person, and decide which frames can
    be dubbed.

    A face that was away, or another shot, starts a new track. It belongs to the speaker if it is
    never in the picture together with the tracks taken so far and has the same neutral face.

    Args:
        template: [V, 3] the speaker's neutral face where it is known from another video.

    Raises:
        NoFaceFound: no frame is usable.
    """
    fits = [fit_track(model, chosen.landmarks, template=template)]
    own = fits[0].template
    tracks = [chosen]
    taken = set(chosen.frames)
    for track in sorted(faces.tracks, key=lambda t: -t.weight):
        if len(track.frames) < MIN_SAME_FRAMES or taken & set(track.frames):
            continue
        distance = (fit_track(model, track.landmarks).template - own).norm(dim=-1).mean()
        if distance > SAME_FACE:
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
        for fault in frame_faults(own_fit, track.landmarks)
    ]
    seen = [(frame, track.id) for track in tracks for frame in track.frames]
    reasons = dict.fromkeys(range(faces.frames), NO_FACE)
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
    )


def frame_faults(fit: FaceFit, landmarks: Landmarks) -> list[str]:
    """Why each fitted frame can't be dubbed, "" where it can."""
    side = face_sides(landmarks)
    yaw = yaw_pitch_roll(fit.pose)[:, 0].abs()
    out = []
    for s, y, e in zip(side.tolist(), yaw.tolist(), fit.error.tolist(), strict=True):
        fault = TOO_SMALL if s < MIN_FACE else TURNED if y > MAX_YAW else ""
        out.append(fault or (UNSURE if e > MAX_ERROR else ""))
    return out


def easing(reasons: dict[int, str], frames: int, over: int = 4) -> NDArray[np.float32]:
    """Weight [frames] of the dub: 0 in frames that pass through, rising over `over` frames beside
    them, 1 elsewhere."""
    blocked = np.array(sorted(reasons), np.int64)
    if len(blocked) == 0:
        return np.ones(frames, np.float32)
    here = np.arange(frames)
    after = np.searchsorted(blocked, here)
    right = blocked[np.minimum(after, len(blocked) - 1)] - here
    left = here - blocked[np.maximum(after - 1, 0)]
    away = np.minimum(
        np.where(after < len(blocked), right, frames), np.where(after > 0, left, frames)
    )
    return np.clip(away / (over + 1), 0, 1).astype(np.float32)
