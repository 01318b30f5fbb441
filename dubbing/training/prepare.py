"""`dub train prepare`: videos of speakers to tracks, face crops and 16-kHz sound.

Every clip becomes one folder entry `<name>.npz` (landmarks, frame times, crop boxes, sound) and,
where the face is large enough to teach texture, `<name>.crops` (JPEG crops, one blob). The report
says what was kept, what was dropped, and why.
"""

from __future__ import annotations

import json
import logging
import multiprocessing
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from dubbing.errors import DubbingError, InputNotFound
from dubbing.face.tracker import FaceTrack, FaceTracker
from dubbing.media.audio import load_speech
from dubbing.media.reader import VideoReader
from dubbing.render.crop import crop_boxes, cut_crop
from dubbing.training.devices import save_arrays
from dubbing.training.options import PrepareOptions

log = logging.getLogger(__name__)

VIDEO_SUFFIXES = {".mp4", ".mkv", ".mov", ".avi", ".webm", ".mpg", ".mpeg", ".m4v"}
CROP_SIZE = 256  # px, as in the paper
MIN_CROP_SOURCE = 200.0  # px: a crop enlarged from less teaches blur
MIN_FRAMES = 12
JPEG_QUALITY = 96


@dataclass
class PreparedClip:
    """What became of one video; `dropped` is the reason, empty where it was kept."""

    file: str
    frames: int = 0
    face_frames: int = 0
    crop_side: float = 0.0
    has_crops: bool = False
    dropped: str = ""


def clip_names(videos: Sequence[Path], folder: Path) -> list[str]:
    """A name for the prepared files of each video: its path below `folder`, without the suffix
    unless two videos differ by nothing else."""
    plain = ["__".join(v.relative_to(folder).with_suffix("").parts) for v in videos]
    uses = Counter(plain)
    return [
        name if uses[name] == 1 else f"{name}.{video.suffix[1:].lower()}"
        for name, video in zip(plain, videos, strict=True)
    ]


def run(options: PrepareOptions) -> list[PreparedClip]:
    """Prepare every video below `options.data` into `options.output`; finished clips are skipped.

    Raises:
        InputNotFound: the folder does not exist or holds no video.
    """
    videos = sorted(p for p in options.data.rglob("*") if p.suffix.lower() in VIDEO_SUFFIXES)
    if not videos:
        raise InputNotFound("no videos here", path=options.data, hint="give a folder of clips")
    videos = videos[: options.limit] if options.limit else videos
    options.output.mkdir(parents=True, exist_ok=True)
    names = clip_names(videos, options.data)
    jobs = [(video, options.output, name) for video, name in zip(videos, names, strict=True)]
    if options.workers > 1:
        with multiprocessing.get_context("spawn").Pool(options.workers) as pool:
            clips = list(pool.imap_unordered(_prepare_job, jobs, chunksize=4))
    else:
        clips = [_prepare_job(job) for job in jobs]
    clips.sort(key=lambda c: c.file)
    _write_report(clips, options.output)
    return clips


def _write_report(clips: list[PreparedClip], output: Path) -> None:
    dropped = Counter(c.dropped for c in clips if c.dropped)
    report = {
        "kept": sum(not c.dropped for c in clips),
        "with_crops": sum(c.has_crops for c in clips),
        "dropped": dict(dropped),
        "clips": [asdict(c) for c in clips],
    }
    (output / "prepare.json").write_text(json.dumps(report, indent=1))
    log.info("kept %d clips, dropped %s", report["kept"], dict(dropped))


def _prepare_job(job: tuple[Path, Path, str]) -> PreparedClip:
    video, output, name = job
    cv2.setNumThreads(1)
    done = output / f"{name}.json"
    if done.exists():
        return PreparedClip(**json.loads(done.read_text()))
    try:
        clip = prepare_clip(video, output, name)
    except DubbingError as error:
        clip = PreparedClip(video.name, dropped=f"{type(error).__name__}: {error.message}")
    partial = done.with_name(f".{done.name}.tmp")
    partial.write_text(json.dumps(asdict(clip)))
    partial.replace(done)
    return clip


def prepare_clip(video: Path, output: Path, name: str) -> PreparedClip:
    """Track the largest face of `video`, cut its crops, and save both with the sound."""
    times: list[float] = []
    with FaceTracker() as tracker, VideoReader(video) as reader:
        for frame in reader:
            tracker.add(frame.rgb())
            times.append(float(frame.offset))
        tracks = tracker.finish()
    clip = PreparedClip(video.name, frames=len(times))
    if not tracks:
        clip.dropped = "no face"
        return clip
    track = max(tracks, key=lambda t: t.weight)
    clip.face_frames = len(track.frames)
    if clip.face_frames < MIN_FRAMES:
        clip.dropped = "face on too few frames"
        return clip
    speech = load_speech(video)
    landmarks = track.stacked()
    boxes = crop_boxes(landmarks)
    clip.crop_side = float(np.median(boxes[:, 2]))
    clip.has_crops = clip.crop_side >= MIN_CROP_SOURCE
    if clip.has_crops:
        _save_crops(video, track, boxes, output / f"{name}.crops.npz")
    save_arrays(
        output / f"{name}.npz",
        landmarks=landmarks,
        frames=np.array(track.frames, np.int32),
        times=np.array(times)[track.frames],
        boxes=boxes,
        speech=np.round(speech * 32767).clip(-32768, 32767).astype(np.int16),
    )
    return clip


def _save_crops(video: Path, track: FaceTrack, boxes: NDArray[np.float32], path: Path) -> None:
    position = {frame: k for k, frame in enumerate(track.frames)}
    blobs: list[NDArray[np.uint8]] = []
    with VideoReader(video) as reader:
        for frame in reader:
            k = position.get(frame.index)
            if k is None:
                continue
            crop = cut_crop(frame.rgb(), boxes[k], CROP_SIZE)
            bgr = cv2.cvtColor(crop, cv2.COLOR_RGB2BGR)
            blobs.append(cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])[1])
    ends = np.cumsum([len(b) for b in blobs])
    save_arrays(path, data=np.concatenate([b.ravel() for b in blobs]), ends=ends)
