"""What the analysis of a job found, as files that every worker can read."""

from __future__ import annotations

import dataclasses
import json
import struct
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open

from dubbing.analysis import SpeakerTrack
from dubbing.geometry.fit import FaceFit
from dubbing.job.facts import FORMAT, damaged, index_facts, index_of, load_facts, save_facts
from dubbing.media.index import FrameIndex
from dubbing.media.output import atomic_output, disk_errors
from dubbing.motion import RATE, REACH, Motion
from dubbing.report import FaceTrackFacts, StageTime, join_pass_through


@dataclass(frozen=True)
class Findings:
    """Everything that is found before the first frame is rendered, but persona and motion.

    Attributes:
        index: times of the source's frames.
        speaker: the speaker's track in this video.
        faces: all face tracks, for the report.
        audio_seconds: exact length of the new speech.
        stages: seconds spent so far, for the report.
    """

    index: FrameIndex
    speaker: SpeakerTrack
    faces: list[FaceTrackFacts]
    audio_seconds: Fraction
    stages: list[StageTime]

    def save(self, path: Path) -> None:
        """Write them by atomic rename.

        Raises:
            OutputUnwritable, DiskFull: see `save_bytes`.
        """
        fit = self.speaker.fit
        times, frames = index_facts(self.index)
        tensors = {
            **frames,
            "track_frames": torch.tensor(list(self.speaker.position), dtype=torch.int64),
            "track_rows": torch.tensor(list(self.speaker.position.values()), dtype=torch.int64),
            "track_parts": torch.tensor(
                [self.speaker.part[frame] for frame in self.speaker.position], dtype=torch.int64
            ),
            **{name: getattr(fit, name) for name in _FIT},
        }
        facts = {
            **times,
            "ids": self.speaker.ids,
            "reasons": [dataclasses.asdict(x) for x in join_pass_through(self.speaker.reasons)],
            "cuts": self.speaker.cuts,
            "faces": [dataclasses.asdict(item) for item in self.faces],
            "audio_seconds": str(self.audio_seconds),
            "stages": [dataclasses.asdict(item) for item in self.stages],
        }
        save_facts(path, tensors, facts)

    @classmethod
    def load(cls, path: Path) -> Findings:
        """Read `save`'s file.

        Raises:
            UnfinishedJob: it is damaged or of another format.
        """
        facts, tensors = load_facts(path)
        frames = tensors["track_frames"].tolist()
        reasons = {
            frame: item["reason"]
            for item in facts["reasons"]
            for frame in range(item["start_frame"], item["stop_frame"])
        }
        speaker = SpeakerTrack(
            facts["ids"],
            dict(zip(frames, tensors["track_rows"].tolist(), strict=True)),
            dict(zip(frames, tensors["track_parts"].tolist(), strict=True)),
            FaceFit(**{name: tensors[name] for name in _FIT}),
            reasons,
            facts["cuts"],
        )
        return cls(
            index_of(facts, tensors),
            speaker,
            [FaceTrackFacts(**item) for item in facts["faces"]],
            Fraction(facts["audio_seconds"]),
            [StageTime(**item) for item in facts["stages"]],
        )


_FIT = ("alpha", "template", "beta", "pose", "error")


def save_motion(motion: Motion, path: Path) -> None:
    """Write a whole motion by atomic rename, in safetensors' format (the length of a JSON header,
    the header, the values), without a copy of its hundreds of megabytes in memory.

    Raises:
        DiskFull: no room left.
    """
    values = motion.lower.contiguous().numpy().astype("<f4", copy=False)
    place = {"dtype": "F32", "shape": values.shape, "data_offsets": [0, values.nbytes]}
    header = json.dumps({"__metadata__": {"format": FORMAT}, "lower": place}).encode()
    header += b" " * (-len(header) % 8)
    with atomic_output(path) as part, disk_errors(path), part.open("wb") as file:
        file.write(struct.pack("<Q", len(header)) + header)
        file.write(values.data)


def load_motion(path: Path, start: float, stop: float) -> Motion:
    """The states of a stored motion that the times `start` to `stop` (seconds) need.

    Raises:
        UnfinishedJob: the file is damaged.
    """
    try:
        with safe_open(path, "pt") as file:
            states = file.get_slice("lower")
            total = states.get_shape()[0]
            first = min(max(int(start * RATE) - 1 - REACH, 0), total - 1)
            last = min(max(int(stop * RATE) + 3 + REACH, first + 1), total)
            return Motion(states[first:last], first, total)
    except (SafetensorError, OSError) as error:
        raise damaged(path) from error
