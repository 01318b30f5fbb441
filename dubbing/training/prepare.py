"""`dub train prepare`: videos of speakers to tracks, face crops and 16-kHz sound.

Every clip becomes one folder entry `<name>.npz` (landmarks, frame times, crop boxes, sound) and,
where the face is large enough to teach texture, `<name>.crops.npz` (JPEG crops, one blob). Then
the clips are looked after (`dubbing.training.care`): offset between sound and lips, frames to leave
out, speech and silence. `<name>.json` holds what is known of a clip; the report, `prepare.json`,
says what was kept, what was left out, and why.
"""

from __future__ import annotations

import json
import logging
import multiprocessing
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from dubbing.errors import DubbingError, InputNotFound
from dubbing.face.tracker import FaceTrack, FaceTracker
from dubbing.media.audio import load_speech
from dubbing.media.reader import VideoReader
from dubbing.render.crop import crop_boxes, cut_crop
from dubbing.training.care import (
    CareFacts,
    CarePaths,
    care_paths,
    care_report,
    care_summary,
    look_after,
)
from dubbing.training.options import PrepareOptions
from dubbing.training.speakers import load_speakers
from dubbing.whole_file import save_arrays, whole_file

log = logging.getLogger(__name__)

VIDEO_SUFFIXES = {".mp4", ".mkv", ".mov", ".avi", ".webm", ".mpg", ".mpeg", ".m4v"}
CROP_SIZE = 256  # px, as in the paper
MIN_CROP_SOURCE = 200.0  # px: a crop enlarged from less teaches blur
MIN_FRAMES = 12
JPEG_QUALITY = 96


@dataclass
class PreparedClip:
    """What became of one video.

    Attributes:
        dropped: the reason, empty where the clip was kept.
        care: what is known of its sound and lips; None where nobody looked.
    """

    file: str
    frames: int = 0
    face_frames: int = 0
    crop_side: float = 0.0
    has_crops: bool = False
    dropped: str = ""
    care: CareFacts | None = None

    @classmethod
    def load(cls, path: Path) -> PreparedClip:
        """The clip of a `<name>.json`."""
        values = json.loads(path.read_text())
        care = values.pop("care", None)
        return cls(**values, care=None if care is None else CareFacts(**care))

    def save(self, path: Path) -> None:
        """Write a `<name>.json`; it appears complete or not at all."""
        with whole_file(path) as partial:
            partial.write_text(json.dumps(asdict(self)))


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
    """Prepare every video below `options.data` into `options.output`; finished clips are skipped,
    those that nobody has looked after yet are looked after.

    Raises:
        InputNotFound: the folder does not exist or holds no video, or no table of speakers.
        CheckpointNotFound, CheckpointCorrupt: a model that was named can't be loaded.
        OptionInvalid: the sync expert and the morphable model don't belong together.
    """
    videos = sorted(p for p in options.data.rglob("*") if p.suffix.lower() in VIDEO_SUFFIXES)
    if not videos:
        raise InputNotFound("no videos here", path=options.data, hint="give a folder of clips")
    videos = videos[: options.limit] if options.limit else videos
    names = clip_names(videos, options.data)
    speakers = load_speakers(options.speakers, names)
    options.output.mkdir(parents=True, exist_ok=True)
    jobs = [(video, options.output, name) for video, name in zip(videos, names, strict=True)]
    if options.workers > 1:
        with multiprocessing.get_context("spawn").Pool(options.workers) as pool:
            clips = list(pool.imap(_prepare_job, jobs, chunksize=4))
    else:
        clips = [_prepare_job(job) for job in jobs]
    prepared = dict(zip(names, clips, strict=True))
    if paths := care_paths(options):
        _look_after(options, prepared, speakers, paths)
    report = make_report(prepared)
    (options.output / "prepare.json").write_text(json.dumps(report, indent=1))
    for line in summary(report):
        log.info(line)
    return sorted(clips, key=lambda c: c.file)


def _look_after(
    options: PrepareOptions,
    prepared: dict[str, PreparedClip],
    speakers: dict[str, str],
    paths: CarePaths,
) -> None:
    """Find out what is not yet known of the kept clips and store it."""
    kept = {name: speakers[name] for name, clip in prepared.items() if not clip.dropped}
    known = {name: c.care for name, c in prepared.items() if c.care is not None}
    for name, facts in look_after(options.output, kept, known, paths, options.workers).items():
        if prepared[name].care != facts:
            prepared[name].care = facts
            prepared[name].save(options.output / f"{name}.json")


def make_report(clips: dict[str, PreparedClip]) -> dict[str, Any]:
    """What `prepare.json` says about the clips {name: clip}.

    Returns:
        kept, with_crops: clips; dropped: {reason: clips}; clips: one object each. Where clips were
        looked after also stage1: what it learns from (kept clips, left_out {reason: clips}, offsets
        {frames: clips}, offsets_from {how they are known: clips}, frames and of them masked
        {reason: frames}, seconds of speech and silence).
    """
    report: dict[str, Any] = {
        "kept": sum(not c.dropped for c in clips.values()),
        "with_crops": sum(c.has_crops for c in clips.values()),
        "dropped": dict(Counter(c.dropped for c in clips.values() if c.dropped)),
    }
    facts = [c.care for c in clips.values() if c.care is not None and not c.dropped]
    if facts:
        report["stage1"] = care_report(facts)
    report["clips"] = [{"name": name, **asdict(clip)} for name, clip in sorted(clips.items())]
    return report


def summary(report: dict[str, Any]) -> list[str]:
    """The report in a few lines for people."""
    lines = [f"kept {report['kept']} clips, {report['with_crops']} of them with face crops"]
    lines += [f"dropped {count}: {why}" for why, count in sorted(report["dropped"].items())]
    return lines + (care_summary(report["stage1"]) if "stage1" in report else [])


def _prepare_job(job: tuple[Path, Path, str]) -> PreparedClip:
    video, output, name = job
    cv2.setNumThreads(1)
    done = output / f"{name}.json"
    if done.exists():
        return PreparedClip.load(done)
    try:
        clip = prepare_clip(video, output, name)
    except DubbingError as error:
        clip = PreparedClip(video.name, dropped=f"{type(error).__name__}: {error.message}")
    clip.save(done)
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
