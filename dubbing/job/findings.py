"""What the analysis of a job found, as files that every worker can read."""

from __future__ import annotations

import dataclasses
import json
from array import array
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from dubbing.analysis import SpeakerTrack
from dubbing.errors import UnfinishedJob
from dubbing.geometry.fit import FaceFit
from dubbing.media.index import FrameIndex
from dubbing.motion import RATE, REACH, Motion
from dubbing.report import FaceTrackFacts, StageTime, join_pass_through, save_bytes

FORMAT = "1"


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
        index, fit = self.index, self.speaker.fit
        tensors = {
            "pts": torch.from_numpy(np.array(index.pts, np.int64)),
            "keys": torch.from_numpy(np.array(index.keys, np.int64)),
            "track_frames": torch.tensor(list(self.speaker.position), dtype=torch.int64),
            "track_rows": torch.tensor(list(self.speaker.position.values()), dtype=torch.int64),
            "track_parts": torch.tensor(
                [self.speaker.part[frame] for frame in self.speaker.position], dtype=torch.int64
            ),
            **{name: getattr(fit, name) for name in _FIT},
        }
        facts = {
            "format": FORMAT,
            "time_base": str(index.time_base),
            "last_duration": index.last_duration,
            "seekable": index.seekable,
            "ids": self.speaker.ids,
            "reasons": [dataclasses.asdict(x) for x in join_pass_through(self.speaker.reasons)],
            "faces": [dataclasses.asdict(item) for item in self.faces],
            "audio_seconds": str(self.audio_seconds),
            "stages": [dataclasses.asdict(item) for item in self.stages],
        }
        _save(path, tensors, facts)

    @classmethod
    def load(cls, path: Path) -> Findings:
        """Read `save`'s file.

        Raises:
            UnfinishedJob: it is damaged or of another format.
        """
        facts, tensors = _load(path)
        pts, keys = (array("q", tensors[name].tolist()) for name in ("pts", "keys"))
        index = FrameIndex(
            Fraction(facts["time_base"]), pts, keys, facts["last_duration"], facts["seekable"]
        )
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
        )
        return cls(
            index,
            speaker,
            [FaceTrackFacts(**item) for item in facts["faces"]],
            Fraction(facts["audio_seconds"]),
            [StageTime(**item) for item in facts["stages"]],
        )


_FIT = ("alpha", "template", "beta", "pose", "error")


def save_motion(motion: Motion, path: Path) -> None:
    """Write a whole motion by atomic rename.

    Raises:
        OutputUnwritable, DiskFull: see `save_bytes`.
    """
    _save(path, {"lower": motion.lower.cpu()}, {"format": FORMAT})


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
        raise _damaged(path) from error


def _save(path: Path, tensors: dict[str, Tensor], facts: dict[str, Any]) -> None:
    held = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    save_bytes(path, save(held, {"facts": json.dumps(facts)}))


def _load(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    try:
        with safe_open(path, "pt") as file:
            facts = json.loads((file.metadata() or {})["facts"])
            if facts["format"] != FORMAT:
                raise _damaged(path)
            return facts, {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, KeyError, ValueError) as error:
        raise _damaged(path) from error


def _damaged(path: Path) -> UnfinishedJob:
    return UnfinishedJob("the state can't be read", path=path, hint="remove it with --clean")
