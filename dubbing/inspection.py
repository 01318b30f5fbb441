"""`Dubber.inspect`: what the engine sees in a video, as facts and as a preview sheet."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from dubbing.analysis import find_faces, fit_speaker
from dubbing.errors import NoFaceFound
from dubbing.face.landmarks import landmark_box
from dubbing.face.limits import NO_FACE
from dubbing.face.tracker import FaceTrack
from dubbing.geometry.morphable import MorphableModel
from dubbing.media.reader import VideoReader
from dubbing.options import DubOptions
from dubbing.persona_builder import lip_reference_frames
from dubbing.progress import StageProgress
from dubbing.report import join_pass_through, timed_intervals
from dubbing.speakers import Hearing, pick_speaker

SHEET_WIDTH = 1280  # px
TILE = 160  # px, one reference
OVERVIEWS = 3  # whole frames on the sheet


@dataclass(frozen=True)
class Inspection:
    """Facts about a video and a preview sheet ([H, W, 3] uint8 RGB)."""

    facts: dict[str, Any]
    preview: NDArray[np.uint8]

    def to_dict(self) -> dict[str, Any]:
        """The facts as JSON values."""
        return self.facts


def inspection_of(
    reader: VideoReader,
    stage: StageProgress,
    model: MorphableModel,
    options: DubOptions,
    hearing: Callable[[], Hearing],
) -> Inspection:
    """Track the faces of a video and show what a dub of it would use."""
    faces = find_faces(reader, stage, model)
    info, video = reader.info, reader.video
    width, height = video.display_size
    media: dict[str, Any] = {
        "file": str(reader.path),
        "container": info.container,
        "picture_codec": video.codec,
        "width": width,
        "height": height,
        "rotation": video.rotation,
        "pixel_format": video.pix_fmt,
        "frames": faces.frames,
        "duration_s": round(float(reader.index.duration), 3),
        "start_s": round(float(video.start_time), 3),
        "frame_rate": str(video.average_rate or "variable"),
        "sound": [f"{a.codec} {a.sample_rate} Hz {a.layout}" for a in info.audio],
        "other_streams": [f"{s.type} {s.codec}" for s in info.other_streams],
        "shot_cuts": faces.cuts,
    }
    references: list[int] = []
    confidence: dict[int, float] = {}
    agreement: dict[int, float] = {}
    taken: list[FaceTrack] = []
    try:
        found = pick_speaker(faces, options.speaker_choice, reader, model, hearing)
        agreement = found.agreement
        media |= {"note": found.note} if found.note else {}
        speaker = fit_speaker(model, faces, found.track, limits=options.face_limits)
        confidence = speaker.confidences()
        references = lip_reference_frames(model, speaker)
        reasons = speaker.reasons
        taken = [t for t in faces.tracks if t.id in speaker.ids]
    except NoFaceFound as error:  # to be inspected, not to be dubbed: say so among the facts
        media["problem"] = error.message
        reasons = dict.fromkeys(range(faces.frames), NO_FACE)
    tracks = [
        {"id": t.id, "shot": t.shot, "first_frame": t.frames[0], "last_frame": t.frames[-1],
         "frames": len(t.frames), "size_px": round(t.mean_side),
         "confidence": round(confidence[t.id], 3) if t.id in confidence else None,
         "agreement": agreement.get(t.id)}
        for t in faces.tracks
    ]  # fmt: skip
    media["speaker_tracks"] = [t.id for t in taken]
    media["dubbed_frames"] = faces.frames - len(reasons)
    seconds = [float(t) for t in reader.index.times] + [float(reader.index.duration)]
    facts = media | {
        "face_tracks": tracks,
        "passes_through": [
            asdict(p) for p in timed_intervals(join_pass_through(reasons), seconds.__getitem__)
        ],
        "lip_references": references,
    }
    return Inspection(facts, _sheet(reader, faces.tracks, taken, references))


def _sheet(
    reader: VideoReader, tracks: list[FaceTrack], taken: list[FaceTrack], references: list[int]
) -> NDArray[np.uint8]:
    """Frames with the tracks' boxes on top, mouths of the reference frames below."""
    count = reader.index.count
    shown = sorted({round(k) for k in np.linspace(0, count - 1, OVERVIEWS + 2)[1:-1]})
    overview = [_overview(f.index, f.rgb(), tracks, taken) for f in reader.read_indices(shown)]
    width = SHEET_WIDTH // len(overview)
    rows = [np.hstack([_fit_width(picture, width) for picture in overview])]
    if references:
        marks = {f: p for t in taken for f, p in zip(t.frames, t.landmarks, strict=True)}
        tiles = {}
        for frame in reader.read_indices(sorted(set(references))):
            tiles[frame.index] = _tile(frame.rgb(), marks[frame.index])
        rows += _tile_rows([tiles[f] for f in references])
    full = max(r.shape[1] for r in rows)
    return np.vstack([np.pad(r, ((0, 0), (0, full - r.shape[1]), (0, 0))) for r in rows])


def _overview(
    index: int, rgb: NDArray[np.uint8], tracks: list[FaceTrack], taken: list[FaceTrack]
) -> NDArray[np.uint8]:
    picture = rgb.copy()
    thick = max(round(picture.shape[1] / 300), 1)
    for track in tracks:
        if index not in track.frames:
            continue
        box = landmark_box(track.landmarks[track.frames.index(index)])
        colour = (80, 220, 90) if track in taken else (235, 170, 40)
        corners = (round(box.x0), round(box.y0)), (round(box.x1), round(box.y1))
        cv2.rectangle(picture, *corners, colour, thick)
        cv2.putText(picture, f"id {track.id}", (corners[0][0], max(corners[0][1] - 4, 12)),
                    cv2.FONT_HERSHEY_SIMPLEX, thick / 2, colour, thick)  # fmt: skip
    return picture


def _fit_width(picture: NDArray[np.uint8], width: int) -> NDArray[np.uint8]:
    height = max(round(picture.shape[0] * width / picture.shape[1]), 1)
    return cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA).astype(np.uint8)


def _tile(rgb: NDArray[np.uint8], landmarks: NDArray[np.float32]) -> NDArray[np.uint8]:
    box = landmark_box(landmarks)
    half = box.side * 0.35
    x, y = (box.x0 + box.x1) / 2, box.y0 + 0.72 * (box.y1 - box.y0)
    scale = TILE / (2 * half)
    matrix = np.array([[scale, 0, (half - x) * scale], [0, scale, (half - y) * scale]])
    return cv2.warpAffine(rgb, matrix, (TILE, TILE)).astype(np.uint8)


def _tile_rows(tiles: list[NDArray[np.uint8]]) -> list[NDArray[np.uint8]]:
    per_row = SHEET_WIDTH // TILE
    return [np.hstack(tiles[k : k + per_row]) for k in range(0, len(tiles), per_row)]
