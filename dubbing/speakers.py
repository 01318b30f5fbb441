"""Which face of a video is the speaker: the largest, the one at a place, or the one that speaks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from fractions import Fraction

import numpy as np
import torch
from torch import Tensor

from dubbing.analysis import MIN_SAME_FRAMES, SAME_FACE, VideoFaces, choose_speaker, uncovered
from dubbing.errors import AudioUnusable, NoAudioStream, NoFaceFound
from dubbing.face.landmarks import landmark_box
from dubbing.face.tracker import FaceTrack
from dubbing.geometry.fit import FaceFit, fit_track
from dubbing.geometry.morphable import MorphableModel
from dubbing.media.audio import SPEECH_RATE, audio_start, check_speech, load_speech
from dubbing.media.reader import VideoReader
from dubbing.models.speech_encoder import SpeechEncoder
from dubbing.models.sync_net import SyncNet
from dubbing.motion import RATE
from dubbing.speaker_choice import SpeakerChoice
from dubbing.sync import best_offset, offset_distances, sync_audio

NEAR_FRAMES = 12  # a face named by place and time may be away for so many frames
HEARD_FRAMES = 1500  # 25-Hz frames of one person that are compared with the sound
MIN_HEARD = 25  # 25-Hz frames; a shorter track says nothing about speech
MAX_GAP_S = 0.25  # a moment farther from a frame of the track is not seen
# Standard errors by which the lips' best offset beats all others. Of 600 pairs of a clip's sound
# and another clip's lips 2 % reach this; of 25 clips with their own sound all do.
SURE = 1.5


@dataclass(frozen=True)
class ChosenSpeaker:
    """The chosen face.

    Attributes:
        track: its largest face track.
        agreement: {face track: standard errors by which its person's lips agree with the sound},
            where that was looked at.
        note: what a user should know about the choice, "" for nothing.
    """

    track: FaceTrack
    agreement: dict[int, float] = field(default_factory=dict)
    note: str = ""


@dataclass(frozen=True)
class Hearing:
    """What listening needs: the engine's speech encoder and the sync expert that belongs to it."""

    encoder: SpeechEncoder
    expert: SyncNet


def pick_speaker(
    faces: VideoFaces,
    choice: SpeakerChoice,
    reader: VideoReader,
    model: MorphableModel,
    hearing: Callable[[], Hearing],
) -> ChosenSpeaker:
    """The face that `choice` means.

    Args:
        model: on the CPU.
        hearing: called where the sound has to be listened to.

    Raises:
        NoFaceFound: the video shows none, or not that one.
    """
    if choice.place is not None:
        return ChosenSpeaker(_at_place(faces, choice.place, reader))
    largest = choose_speaker(faces, choice.track, reader.path)
    if not choice.active or len(faces.tracks) == 1:
        return ChosenSpeaker(largest)
    try:
        samples = load_speech(reader.path, None)
        check_speech(samples, reader.path)
    except (NoAudioStream, AudioUnusable) as error:
        return ChosenSpeaker(
            largest, note=f"who speaks can't be heard ({error.message}): the largest face is taken"
        )
    late = Fraction(audio_start(reader.path)) - reader.video.start_time
    seconds = np.array([float(t) for t in reader.index.times])
    return most_active(
        faces, largest, torch.from_numpy(samples), float(late), seconds, model, hearing()
    )


def _at_place(
    faces: VideoFaces, place: tuple[float, float, float], reader: VideoReader
) -> FaceTrack:
    """The track whose face covers a pixel at a time, or does within NEAR_FRAMES of it."""
    x, y, t = place
    times = reader.index.times
    wanted = max(int(np.searchsorted(np.array([float(v) for v in times]), t, "right")) - 1, 0)
    found: list[tuple[int, float, FaceTrack]] = []
    for track in faces.tracks:
        frames = np.array(track.frames)
        k = int(np.abs(frames - wanted).argmin())
        away = abs(int(frames[k]) - wanted)
        box = landmark_box(track.landmarks[k])
        if away <= NEAR_FRAMES and box.x0 <= x <= box.x1 and box.y0 <= y <= box.y1:
            middle = abs(x - (box.x0 + box.x1) / 2) + abs(y - (box.y0 + box.y1) / 2)
            found.append((away, middle / box.side, track))
    if t > float(reader.index.duration) or not found:
        there = ", ".join(
            f"{track.id} around {box.x0 + box.side / 2:.0f},{box.y0 + box.side / 2:.0f}"
            for track in faces.tracks
            if wanted in track.frames
            for box in [landmark_box(track.landmarks[track.frames.index(wanted)])]
        )
        raise NoFaceFound(
            f"no face at {x:g},{y:g} at {t:g} s (frame {wanted})",
            path=str(reader.path),
            hint=f"face tracks in that frame: {there or 'none'}",
        )
    return min(found, key=lambda item: item[:2])[2]


def most_active(
    faces: VideoFaces,
    largest: FaceTrack,
    samples: Tensor,
    late: float,
    seconds: np.ndarray,
    model: MorphableModel,
    hearing: Hearing,
) -> ChosenSpeaker:
    """The person whose lips move with the sound, or `largest` where none surely does.

    Args:
        samples: [N] the video's own sound at 16 kHz, which begins `late` seconds after the first
            frame; seconds: [F] times of all frames since the first.
    """
    best: tuple[float, FaceTrack] | None = None
    agreement: dict[int, float] = {}
    for person in people(model, faces):
        rows = []
        left = HEARD_FRAMES
        for track, fit in person:
            if left >= MIN_HEARD:
                distances = _heard(track, fit, samples, late, seconds, model, hearing, left)
                if distances is not None:
                    rows.append(distances)
                    left -= len(distances)
        sure = best_offset(torch.cat(rows))[1] if rows else 0.0
        agreement |= {track.id: round(sure, 2) for track, _ in person}
        if best is None or sure > best[0]:
            best = sure, person[0][0]
    if best is None or best[0] < SURE:
        note = "nobody's lips surely move with the video's sound: the largest face is taken"
        return ChosenSpeaker(largest, agreement, note)
    return ChosenSpeaker(best[1], agreement)


def people(model: MorphableModel, faces: VideoFaces) -> list[list[tuple[FaceTrack, FaceFit]]]:
    """The face tracks of each person with their fits, the largest track first.

    Tracks are of one person if their neutral faces are alike and they are never seen together.
    """
    found: list[list[tuple[FaceTrack, FaceFit]]] = []
    for track in sorted(faces.tracks, key=lambda t: -t.weight):
        clear = uncovered(track)
        hidden = len(clear) < len(track.frames)
        own = fit_track(model, clear).template if hidden else None
        fit = fit_track(model, track.landmarks, template=own)
        there = set(track.frames)
        for person in found:
            apart = float((person[0][1].template - fit.template).norm(dim=-1).mean())
            beside = any(there & set(other.frames) for other, _ in person)
            if len(track.frames) >= MIN_SAME_FRAMES and apart <= SAME_FACE and not beside:
                person.append((track, fit))
                break
        else:
            found.append([(track, fit)])
    return found


def _heard(
    track: FaceTrack,
    fit: FaceFit,
    samples: Tensor,
    late: float,
    seconds: np.ndarray,
    model: MorphableModel,
    hearing: Hearing,
    most: int,
) -> Tensor | None:
    """Distances of a track's lips to the sound at every offset (see `offset_distances`), of at
    most `most` 25-Hz frames from its beginning; None where it is too short or the sound is."""
    times = seconds[track.frames]
    count = min(int((times[-1] - times[0]) * RATE) + 1, most)
    begin = round((times[0] - late) * SPEECH_RATE)
    piece = samples[max(begin, 0) : max(begin, 0) + round((count + 10) / RATE * SPEECH_RATE)]
    if begin < 0:
        piece = torch.cat([torch.zeros(-begin), piece])
    if count < MIN_HEARD or len(piece) < SPEECH_RATE:
        return None
    moments = times[0] + np.arange(count) / RATE
    right = np.searchsorted(times, moments).clip(1, max(len(times) - 1, 1))
    near = np.minimum(np.abs(moments - times[right - 1]), np.abs(times[right] - moments))
    beta = np.stack([np.interp(moments, times, column) for column in fit.beta.T.numpy()], 1)
    lower = model.lower.gt(0).nonzero()[:, 0]
    motion = model.expression_vertices(torch.from_numpy(beta).float())[:, lower]
    device = next(hearing.expert.parameters()).device
    with torch.inference_mode():
        audio = sync_audio(hearing.encoder, piece, count).to(device)
        seen = torch.from_numpy(near <= MAX_GAP_S)
        return offset_distances(hearing.expert, audio, motion.to(device), seen)
