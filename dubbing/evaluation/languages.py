"""Speech of many languages to drive a mouth with."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from dubbing.errors import InputNotFound
from dubbing.evaluation.clips import Samples, clip_of, read_manifest, speech_spans
from dubbing.media.audio import SPEECH_RATE, check_speech, load_speech

SPEECH_S = 5.0  # seconds of speech per language, where there are so many
MARGIN_S = 0.1  # kept on either side of each stretch of speech
SUFFIXES = {".wav", ".flac", ".mp3", ".ogg", ".opus", ".m4a", ".mp4", ".mkv", ".webm"}


def manifest_speech(manifest: Path, without: Sequence[str]) -> dict[str, Samples]:
    """{language: [N] speech at 16 kHz} from every clip of a manifest that tells its language.

    Clips that speak most are taken first, until there are 5 s of speech; a language of which there
    is less gives what it has.

    Args:
        manifest: CSV whose `file` is relative to its folder; without: speakers to leave out.

    Raises:
        InputNotFound: a file is missing.
    """
    lines = [line for line in read_manifest(manifest) if line.get("speaker") not in without]
    lines.sort(key=lambda line: -_spoken_seconds(line))
    found: dict[str, Samples] = {}
    for clip in (clip_of(manifest.parent / line["file"], line) for line in lines):
        so_far = found.get(clip.language, np.zeros(0, np.float32))
        if clip.language and len(so_far) < SPEECH_S * SPEECH_RATE:
            found[clip.language] = np.concatenate([so_far, spoken(clip.samples)])
    return {language: _shortened(found[language]) for language in sorted(found)}


def folder_speech(folder: Path) -> dict[str, Samples]:
    """{language: [N] speech at 16 kHz} of a folder's sound files, whose names begin with the
    language and perhaps "_": de.wav, fr_news.flac.

    Raises:
        InputNotFound: no such folder.
        NoAudioStream, AudioUnusable: see `load_speech`, `check_speech`.
    """
    if not folder.is_dir():
        raise InputNotFound("no such folder", path=folder)
    found: dict[str, Samples] = {}
    for path in sorted(p for p in folder.iterdir() if p.suffix.lower() in SUFFIXES):
        samples = load_speech(path)
        check_speech(samples, path)
        found.setdefault(path.stem.split("_")[0], samples)
    return {language: _shortened(samples) for language, samples in found.items()}


def spoken(samples: Samples) -> Samples:
    """The stretches of speech in [N] samples, joined."""
    margin = round(MARGIN_S * SPEECH_RATE)
    spans = [(round(a * SPEECH_RATE), round(b * SPEECH_RATE)) for a, b in speech_spans(samples)]
    parts = [samples[max(a - margin, 0) : b + margin] for a, b in spans]
    return np.concatenate([np.zeros(0, np.float32), *parts])


def _shortened(samples: Samples) -> Samples:
    return samples[: round(SPEECH_S * SPEECH_RATE)]


def _spoken_seconds(line: dict[str, str]) -> float:
    return float(line.get("seconds") or 0) * float(line.get("speech_share") or 1)
