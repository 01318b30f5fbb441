"""Clips of known speakers with their own sound: what a folder and its manifest say of them."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from dubbing.errors import InputNotFound, OptionInvalid
from dubbing.media.audio import SPEECH_RATE, audio_start, check_speech, load_speech
from dubbing.media.reader import VideoReader
from dubbing.speech.vad import speech_segments

Samples = NDArray[np.float32]
SUFFIXES = {".mp4", ".m4v", ".mov", ".mkv", ".mpg", ".mpeg", ".webm"}


@dataclass(frozen=True)
class Clip:
    """One video whose sound is its own.

    Attributes:
        path: the file; speaker: who is in it; language: of its speech, "" where nobody knows.
    """

    path: Path
    speaker: str
    language: str = ""

    @property
    def name(self) -> str:
        return self.path.name

    @cached_property
    def samples(self) -> Samples:
        """[N] speech at 16 kHz.

        Raises:
            NoAudioStream, AudioUnusable: see `load_speech`, `check_speech`.
        """
        samples = load_speech(self.path)
        check_speech(samples, self.path)
        return samples

    @property
    def seconds(self) -> float:
        return len(self.samples) / SPEECH_RATE

    @cached_property
    def sound_offset(self) -> float:
        """Seconds by which the sound begins after the first picture."""
        with VideoReader(self.path) as reader:
            return float(audio_start(self.path) - reader.video.start_time)

    @cached_property
    def speech(self) -> list[tuple[float, float]]:
        """(start, end) of speech on the picture's clock."""
        shift = self.sound_offset
        return [(a + shift, b + shift) for a, b in speech_spans(self.samples)]


def speech_spans(samples: Samples) -> list[tuple[float, float]]:
    """(start, end) in seconds of speech in [N] samples."""
    return [(a, b) for a, b in speech_segments(torch.from_numpy(samples)).tolist()]


def load_clips(folder: Path, manifest: Path | None, role: str = "dev") -> list[Clip]:
    """The clips of a folder in the order of their names.

    Args:
        manifest: CSV with columns file and role (only clips of `role` are taken), and perhaps
            speaker and language. Without it every video counts, each as a speaker of its own.

    Raises:
        InputNotFound: no such folder or manifest.
    """
    if not folder.is_dir():
        raise InputNotFound("no such folder", path=folder)
    videos = sorted(p for p in folder.iterdir() if p.suffix.lower() in SUFFIXES)
    if manifest is None:
        return [Clip(path, path.stem) for path in videos]
    lines = {Path(line["file"]).name: line for line in read_manifest(manifest)}
    return [
        clip_of(path, lines[path.name])
        for path in videos
        if lines.get(path.name, {}).get("role") == role
    ]


def chosen(clips: list[Clip], names: Sequence[str] | None) -> list[Clip]:
    """The clips of these file names or stems, all without names.

    Raises:
        OptionInvalid: a name that none of the clips has.
    """
    if not names:
        return clips
    known = {name for clip in clips for name in (clip.name, clip.path.stem)}
    if missing := [name for name in names if name not in known]:
        raise OptionInvalid(f"no clip {', '.join(missing)} among those that count")
    return [clip for clip in clips if {clip.name, clip.path.stem} & set(names)]


def clip_of(path: Path, line: dict[str, str]) -> Clip:
    """A clip with what a manifest's line says of it."""
    return Clip(path, line.get("speaker") or path.stem, _language(line))


def read_manifest(path: Path) -> list[dict[str, str]]:
    """Lines of a manifest.

    Raises:
        InputNotFound: no such file.
        OptionInvalid: the columns file and role are missing.
    """
    if not path.is_file():
        raise InputNotFound("no such manifest", path=path)
    with path.open(newline="") as file:
        lines = list(csv.DictReader(file))
    if not lines or not {"file", "role"} <= set(lines[0]):
        raise OptionInvalid(f"{path}: a manifest needs lines with the columns file and role")
    return lines


def _language(line: dict[str, str]) -> str:
    """A manifest's language as a code; "" where it is a guess."""
    words = line.get("language", "").split()
    known = len(words) > 0 and words[0].isalpha() and words[0] != "unknown"
    return words[0] if known else ""


def other_speaker(clips: Sequence[Clip], clip: Clip) -> Clip:
    """The next clip of another speaker, round the end.

    Raises:
        OptionInvalid: all are of one speaker.
    """
    return other_voices(clips, clip, 1)[0]


def other_voices(clips: Sequence[Clip], clip: Clip, count: int) -> list[Clip]:
    """The next clips of `count` other speakers, one of each, round the end; fewer if there are no
    more.

    Raises:
        OptionInvalid: all are of one speaker.
    """
    at = clips.index(clip)
    found: dict[str, Clip] = {}
    for candidate in [*clips[at + 1 :], *clips[:at]]:
        found.setdefault(candidate.speaker, candidate)
    found.pop(clip.speaker, None)
    if not found:
        raise OptionInvalid("all clips are of one speaker", hint="give clips of two speakers")
    return list(found.values())[:count]
