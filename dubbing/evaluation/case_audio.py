"""The speech of a case, the same for every system: 16-kHz mono on the clock of its picture."""

from __future__ import annotations

import wave
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dubbing.evaluation.clips import Clip, Samples, speech_spans
from dubbing.evaluation.protocol_file import Case, EvaluationProtocol
from dubbing.evaluation.protocol_names import SILENCE
from dubbing.evaluation.silence import Span, with_silence
from dubbing.media.audio import SPEECH_RATE


@dataclass(frozen=True)
class CaseSpeech:
    """Speech [N] at 16 kHz, whose first sample belongs to the first picture of its own clip, and
    the digital silences (start, end) in it."""

    samples: Samples
    silences: tuple[Span, ...] = ()

    @property
    def seconds(self) -> float:
        return len(self.samples) / SPEECH_RATE


def case_speech(protocol: EvaluationProtocol, case: Case) -> CaseSpeech:
    """What a case's video is dubbed with.

    Raises:
        NoAudioStream, AudioUnusable: see `Clip.samples`.
        OptionInvalid: nobody speaks in a case of silence.
    """
    clip = Clip(protocol.path(case.audio), case.voice)
    samples = on_picture_clock(clip)
    if case.protocol == SILENCE:
        found = with_silence(samples, speech_spans(samples))
        return CaseSpeech(found.samples, found.silences)
    if case.seconds is not None:
        times = int(np.ceil(case.seconds * SPEECH_RATE / len(samples)))
        samples = np.tile(samples, times)[: round(case.seconds * SPEECH_RATE)]
    return CaseSpeech(samples)


def on_picture_clock(clip: Clip) -> Samples:
    """A clip's sound from its first picture on: padded where it begins later, cut where earlier."""
    late = round(clip.sound_offset * SPEECH_RATE)
    samples = clip.samples
    return np.pad(samples, (late, 0)) if late >= 0 else samples[-late:]


def write_wav(path: Path, samples: Samples) -> None:
    """[N] samples at 16 kHz as 16-bit PCM."""
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(SPEECH_RATE)
        file.writeframes((samples.clip(-1, 1) * 32767).astype("<i2").tobytes())
