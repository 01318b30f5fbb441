"""A video's own sound beside its own lips: what a persona adapts to."""

from __future__ import annotations

from functools import partial

import numpy as np
import torch

from dubbing.adaptation import OwnSpeech
from dubbing.media.audio import audio_start, check_speech, load_speech
from dubbing.media.reader import VideoReader
from dubbing.persona import Persona
from dubbing.speech.features import SpeechFeatureExtractor
from dubbing.speech.vad import segment_gate, speech_segments


def own_speech(
    reader: VideoReader, persona: Persona, features: SpeechFeatureExtractor
) -> OwnSpeech:
    """Sound and lips of the video from which `persona` was prepared.

    Raises:
        NoAudioStream: the video has no sound.
        AudioUnusable: its sound is silent or too short.
        NotAVideo: see `dubbing.media.probe`.
    """
    samples = load_speech(reader.path, None)
    check_speech(samples, reader.path)
    seconds = np.array([float(t) for t in reader.index.times])
    frames, rows = persona.usable_rows()
    sound = torch.from_numpy(samples)
    return OwnSpeech(
        features=features.encode(sound).float().cpu(),
        offset=float(audio_start(reader.path) - reader.video.start_time),
        gate=partial(segment_gate, speech_segments(sound)),
        times=torch.from_numpy(seconds[frames]),
        beta=persona.track_beta[rows],
        template=persona.template,
        style=persona.style,
        rest=persona.rest,
    )
