"""Whether a dub carries the new speech sample by sample."""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dubbing.media.audio import audio_start, decode_audio, decoded_frames
from dubbing.media.index import FrameIndex

MAX_START_ERROR = Fraction(1, 1000)
"""Seconds between the first sample and the first picture: Matroska's clock, or half a sample."""


@dataclass(frozen=True)
class SoundComparison:
    """The sound of a dub against the speech that was given.

    Attributes:
        formats: (sample rate, channels) of the speech and of the result.
        samples: decoded samples per channel of the speech and of the result.
        expected: samples the result should have: all of the speech, or those up to the picture's
            end; `slack`: one packet, with which copied sound may go beyond or fall short.
        unequal: samples (of any channel) that differ over the common length, at offset 0.
        first_unequal: the first of them, None without any.
        start_error: seconds from the first picture to the first sample of the result.
    """

    formats: tuple[tuple[int, int], tuple[int, int]]
    samples: tuple[int, int]
    expected: int
    slack: int
    unequal: int
    first_unequal: int | None
    start_error: Fraction

    def verdicts(self) -> dict[str, bool]:
        """Whether each demand is met: equal samples, as many as there should be, at time 0."""
        given, made = self.samples
        return {
            "samples": self.formats[0] == self.formats[1] and self.unequal == 0 and made > 0,
            "length": made <= given and abs(made - self.expected) <= self.slack,
            "start": abs(self.start_error) <= MAX_START_ERROR,
        }

    def figures(self) -> dict[str, Any]:
        """The measured values as JSON values."""
        return {
            "speech_format": list(self.formats[0]),
            "output_format": list(self.formats[1]),
            "speech_samples": self.samples[0],
            "output_samples": self.samples[1],
            "expected_samples": self.expected,
            "packet_samples": self.slack,
            "unequal_samples": self.unequal,
            "first_unequal_sample": self.first_unequal,
            "sound_start_error_ms": round(float(self.start_error * 1000), 4),
        }


def compare_sound(speech: str | Path, output: str | Path, pictures: FrameIndex) -> SoundComparison:
    """Decode both and compare at offset 0, without any tolerance of value.

    Args:
        pictures: the output's frame index: the sound may end where they end.

    Raises:
        InputNotFound, NoAudioStream: a file is missing or holds no sound.
    """
    given, rate = decode_audio(speech)
    made, made_rate = decode_audio(output)
    first, count = _differences(given, made)
    shown = math.ceil(pictures.duration * rate)
    return SoundComparison(
        formats=((rate, len(given)), (made_rate, len(made))),
        samples=(given.shape[1], made.shape[1]),
        expected=min(given.shape[1], shown),
        slack=max(frame.samples for frame in decoded_frames(output)),
        unequal=count,
        first_unequal=first,
        start_error=audio_start(output) - pictures.pts[0] * pictures.time_base,
    )


def _differences(a: NDArray[Any], b: NDArray[Any]) -> tuple[int | None, int]:
    """(first place that differs, how many do) of [C, N] samples over their common length."""
    channels, length = min(len(a), len(b)), min(a.shape[1], b.shape[1])
    a, b = a[:channels, :length], b[:channels, :length]
    if a.dtype != b.dtype:
        a, b = full_scale(a), full_scale(b)
    unequal = (a != b).any(axis=0)
    count = int(unequal.sum())
    return (int(unequal.argmax()) if count else None), count


def full_scale(samples: NDArray[Any]) -> NDArray[np.float64]:
    """Samples of any type as -1..1; exact, so that one value in two types compares as equal."""
    wide = samples.astype(np.float64)
    if samples.dtype == np.uint8:
        return (wide - 128) / 128
    if np.issubdtype(samples.dtype, np.integer):
        return wide / -float(np.iinfo(samples.dtype).min)
    return wide
