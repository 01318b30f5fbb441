"""What the engine sees in a video: face tracks, and the chosen speaker's fitted geometry."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dubbing.errors import NoFaceFound
from dubbing.face.tracker import FaceTrack, FaceTracker
from dubbing.geometry.fit import FaceFit, fit_track
from dubbing.geometry.morphable import MorphableModel
from dubbing.geometry.pose import yaw_pitch_roll
from dubbing.media.reader import VideoReader
from dubbing.progress import StageProgress

MIN_FACE = 48.0  # px: a smaller face has no lips to speak of
MAX_YAW = 50.0  # degrees: beyond it half the mouth is hidden
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
    """The chosen face with its geometry.

    Attributes:
        id: of the face track.
        position: {video frame: row of the tensors}.
        fit: geometry of the track's frames; poses in pixels of the upright frame.
        reasons: {video frame: why it passes through} for every frame that is not dubbed.
    """

    id: int
    position: dict[int, int]
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
    model: MorphableModel, track: FaceTrack, frames: int, template: Tensor | None = None
) -> SpeakerTrack:
    """Fit a track and decide which frames can be dubbed.

    Raises:
        NoFaceFound: none of its frames is usable.
    """
    landmarks = torch.from_numpy(track.stacked())
    fit = fit_track(model, landmarks, template=template)
    bad = frame_faults(fit, landmarks)
    reasons = dict.fromkeys(range(frames), NO_FACE)
    for row, frame in enumerate(track.frames):
        if bad[row]:
            reasons[frame] = bad[row]
        else:
            del reasons[frame]
    if len(reasons) == frames:
        common = max(set(bad), key=bad.count)
        raise NoFaceFound(f"face track {track.id} has no usable frame: {common}")
    position = {frame: row for row, frame in enumerate(track.frames)}
    return SpeakerTrack(track.id, position, fit, reasons)


def frame_faults(fit: FaceFit, landmarks: Tensor) -> list[str]:
    """Why each fitted frame can't be dubbed, "" where it can."""
    low, high = landmarks[..., :2].amin(1), landmarks[..., :2].amax(1)
    side = (high - low).amax(1)
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
