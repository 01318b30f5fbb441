"""The faces of a video that several processes look for, as files that all of them see."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from dubbing.analysis import find_stretch
from dubbing.errors import UnfinishedJob
from dubbing.face.overlaps import Overlap
from dubbing.face.rows import LandmarkRows
from dubbing.face.stretches import StretchFaces, stretches
from dubbing.face.tracker import FaceTrack
from dubbing.geometry.morphable import MorphableModel
from dubbing.job.description import JobDescription
from dubbing.job.facts import index_facts, index_of, load_facts, save_facts
from dubbing.job.inputs import InputFile
from dubbing.media.index import FrameIndex
from dubbing.media.reader import VideoReader
from dubbing.report import save_bytes


class SharedFaces:
    """A folder in which any number of processes put what they find, see `analysis.KnownFaces`.

    faces.json                 the video by content, and what else decides the result
    index.safetensors          times of its frames
    stretch-00000.safetensors  faces of a stretch
    """

    def __init__(self, folder: Path, description: JobDescription, index: FrameIndex):
        self.folder, self.description, self.index = folder, description, index

    @classmethod
    def begin(cls, folder: Path, description: JobDescription) -> SharedFaces:
        """Index the video of a job; nothing is decoded again that an earlier call has indexed.

        Args:
            description: of a job with that video; its other inputs make no difference.

        Raises:
            NotAVideo, InputTooLarge: see `VideoReader`.
            InputChanged: the video was changed meanwhile.
            OutputUnwritable, DiskFull: see `save_bytes`.
        """
        folder.mkdir(parents=True, exist_ok=True)
        known = cls.load(folder, description)
        if known is not None:
            index = known.index
        else:
            for left in folder.iterdir():
                left.unlink()
            with _reader(description) as reader:
                index = reader.index
            description.check_inputs()
            facts, tensors = index_facts(index)
            save_facts(folder / "index.safetensors", tensors, facts)
        save_bytes(folder / "faces.json", description.to_json().encode())
        return cls(folder, description, index)

    @classmethod
    def load(cls, folder: Path, wanted: JobDescription | None = None) -> SharedFaces | None:
        """What `begin` has put there; None where there is nothing, or not of the video, decoder,
        weights and versions of the job `wanted`."""
        place = folder / "faces.json"
        try:
            description = JobDescription.from_json(place.read_text(), place)
            index = index_of(*load_facts(folder / "index.safetensors"))
        except (OSError, UnfinishedJob):
            return None
        if wanted is not None and _decisive(wanted) != _decisive(description):
            return None
        return cls(folder, description, index)

    def missing(self) -> list[int]:
        """Numbers of the stretches that are still to do."""
        return [s.number for s in stretches(self.index.count) if not self._place(s.number).exists()]

    def find(self, number: int, model: MorphableModel) -> int:
        """Look for the faces of a stretch; how many frames it has.

        Raises:
            InputChanged: the video is not what it was.
            MediaFailed: it decodes differently.
            OutputUnwritable, DiskFull: see `save_bytes`.
        """
        stretch = next(s for s in stretches(self.index.count) if s.number == number)
        with _reader(self.description) as reader:
            reader.use_index(self.index)
            found = find_stretch(reader, stretch, model)
        self.description.check_inputs()
        _save(found, self._place(number))
        return stretch.stop - stretch.start

    def stretch(self, number: int) -> StretchFaces | None:
        """What was found in a stretch; None where that is still to do."""
        try:
            return _load(self._place(number))
        except UnfinishedJob:
            return None

    def _place(self, number: int) -> Path:
        return self.folder / f"stretch-{number:05d}.safetensors"


def _reader(description: JobDescription) -> VideoReader:
    options = description.dub_options
    return VideoReader(_video(description).path, limits=options.limits, decoder=options.decoder)


def _decisive(job: JobDescription) -> tuple[object, ...]:
    """What decides which faces are found."""
    decoder = job.dub_options.decoder
    return _video(job).sha256, decoder, job.weights, job.engine, job.libraries


def _video(job: JobDescription) -> InputFile:
    return next(item for item in job.inputs if item.role == "video")


def _save(found: StretchFaces, path: Path) -> None:
    tensors: dict[str, Tensor] = {}
    for number, track in enumerate(found.tracks):
        shares = [(o.face, o.head) for o in track.overlaps.values()]
        tensors |= {
            f"{number}.frames": torch.tensor(track.frames, dtype=torch.int64),
            f"{number}.landmarks": torch.from_numpy(track.stacked()),
            f"{number}.sharp": torch.tensor(track.sharp, dtype=torch.float64),
            f"{number}.visible": torch.tensor(track.visible, dtype=torch.float64),
            f"{number}.overlaps": torch.tensor(list(track.overlaps), dtype=torch.int64),
            f"{number}.shares": torch.tensor(shares, dtype=torch.float64),
        }
    facts = {
        "tracks": [(track.id, track.shot) for track in found.tracks],
        "cuts": found.cuts,
        "blended": list(found.blended.items()),
    }
    save_facts(path, tensors, facts)


def _load(path: Path) -> StretchFaces:
    facts, tensors = load_facts(path)
    tracks = []
    for number, (own, shot) in enumerate(facts["tracks"]):
        frames, sharp, visible, overlaps, shares = (
            tensors[f"{number}.{name}"].tolist()
            for name in ("frames", "sharp", "visible", "overlaps", "shares")
        )
        landmarks = LandmarkRows()
        for row in tensors[f"{number}.landmarks"].numpy():
            landmarks.append(row)
        over = {frame: Overlap(*share) for frame, share in zip(overlaps, shares, strict=True)}
        tracks.append(FaceTrack(own, shot, frames, landmarks, sharp, visible, over))
    return StretchFaces(tracks, facts["cuts"], dict(facts["blended"]))
