"""A checkpoint at work on clips: personas prepared once and kept, lips made once per speech."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import cache, cached_property
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

import dubbing.analysis
import dubbing.face
import dubbing.geometry
import dubbing.persona
import dubbing.persona_builder
from dubbing.dubber import Dubber
from dubbing.errors import OptionInvalid
from dubbing.evaluation.clips import Clip, Samples
from dubbing.evaluation.faces import (
    FaceMotion,
    made_faces,
    persona_faces,
    usable_expressions,
    video_faces,
)
from dubbing.geometry.morphable import MorphableModel
from dubbing.media.audio import SPEECH_RATE
from dubbing.motion import Motion
from dubbing.options import DubOptions
from dubbing.persona import Persona, fingerprint
from dubbing.progress import ProgressCallback
from dubbing.speech.features import SpeechFeatureExtractor
from dubbing.style_reference import StyleReference
from dubbing.weights import MORPHABLE

_MAKERS = (
    dubbing.face,
    dubbing.geometry,
    dubbing.analysis,
    dubbing.persona,
    dubbing.persona_builder,
)

PARTS = 4  # of a clip in its own style, each made in that of the others
APART_S = 0.2  # between a part and the moments that its style is taken from


@cache
def makers_digest() -> str:
    """Hash of the code that finds and fits a face: a persona that older code made is not what
    today's code would make."""
    digest = hashlib.sha256()
    for module in _MAKERS:
        place = Path(str(module.__file__))
        files = sorted(place.parent.glob("*.py")) if place.name == "__init__.py" else [place]
        for file in files:
            digest.update(file.read_bytes())
    return digest.hexdigest()[:8]


class RememberedFeatures:
    """A feature extractor that encodes the same speech once."""

    def __init__(self, features: SpeechFeatureExtractor):
        self._features = features
        self._known: dict[bytes, Tensor] = {}

    @property
    def feature_dim(self) -> int:
        return self._features.feature_dim

    def encode(self, samples: Tensor) -> Tensor:
        """See `SpeechFeatureExtractor`."""
        key = hashlib.sha256(samples.cpu().numpy().tobytes()).digest()
        if key not in self._known:
            self._known[key] = self._features.encode(samples)
        return self._known[key]

    def blocks(self, samples: Tensor) -> Iterator[Tensor]:
        """See `SpeechFeatureExtractor`."""
        yield self.encode(samples)


@dataclass(frozen=True)
class Studio:
    """Lips from stage 1: nothing is rendered.

    Attributes:
        dubber: the engine.
        folder: where personas are kept, one file per clip, morphable model and version of the code
            that makes them.
        progress: of preparing a persona, where that has to be done.
    """

    dubber: Dubber
    folder: Path
    progress: ProgressCallback | None = None
    _personas: dict[Clip, Persona] = field(default_factory=dict)
    _truths: dict[Clip, FaceMotion] = field(default_factory=dict)
    _lips: dict[tuple[Clip, Clip], FaceMotion] = field(default_factory=dict)

    @cached_property
    def model(self) -> MorphableModel:
        """The morphable model, on the CPU."""
        return self.dubber.model

    @cached_property
    def _driver(self) -> Dubber:
        """The engine with a memory for speech that is used more than once."""
        driver = copy.copy(self.dubber)
        driver.features = RememberedFeatures(self.dubber.features)
        return driver

    def persona(self, clip: Clip) -> Persona:
        """The clip's persona, prepared now or kept from an earlier run.

        Raises:
            DubbingError: see `Dubber.prepare`; PersonaInvalid if the kept file is damaged.
        """
        if clip not in self._personas:
            model = self.dubber.weights.hashes[MORPHABLE]
            parts = (clip.path.stem, fingerprint(clip.path)[:16], model, makers_digest())
            kept = self.folder / f"{'-'.join(parts)}.persona"
            if not kept.is_file():
                self.folder.mkdir(parents=True, exist_ok=True)
                self.dubber.prepare(clip.path, progress=self.progress).save(kept)
            self._personas[clip] = Persona.load(kept)
        return self._personas[clip]

    def truth(self, clip: Clip) -> FaceMotion:
        """The clip's real lips on the picture's clock."""
        if clip not in self._truths:
            self._truths[clip] = persona_faces(self.persona(clip), clip.path, self.model)
        return self._truths[clip]

    def motion(
        self, samples: Samples, persona: Persona, options: DubOptions | None = None
    ) -> Motion:
        """Stage 1's motion for speech [N] at 16 kHz."""
        seconds = len(samples) / SPEECH_RATE
        return self._driver.drive(torch.from_numpy(samples), seconds, persona, options)

    def driven(self, samples: Samples, persona: Persona) -> FaceMotion:
        """Lips for speech [N] at 16 kHz, on the clock of the speech."""
        motion = self.motion(samples, persona)
        net, weight = self.dubber.weights.geometry, self.dubber.weights.morphable.lower
        faces = made_faces(motion, persona.template, net.lower, weight)
        return faces.until(len(samples) / SPEECH_RATE)

    def lips(self, clip: Clip, speech: Clip) -> FaceMotion:
        """Lips of the clip's speaker for another clip's speech (or the clip's own), on the clock
        of the speech."""
        if (clip, speech) not in self._lips:
            self._lips[clip, speech] = self._made(clip, speech)
        return self._lips[clip, speech]

    def _made(self, clip: Clip, speech: Clip) -> FaceMotion:
        if clip == speech:
            return self._held_out(clip)
        return self.driven(speech.samples, self.persona(clip))

    def _held_out(self, clip: Clip) -> FaceMotion:
        """Lips for the clip's own sound, each part of them in the style of the other parts: else
        the style would hold the very movements that are asked for."""
        persona = self.persona(clip)
        times, beta = usable_expressions(persona, clip.path)
        shown = times - clip.sound_offset
        edges = np.linspace(0.0, clip.seconds, PARTS + 1)
        edges[0], edges[-1] = -np.inf, np.inf
        parts = []
        for start, end in pairwise(edges):
            known = torch.from_numpy((shown < start - APART_S) | (shown > end + APART_S))
            if not known.any():
                raise OptionInvalid(f"{clip.name} is too short to be held out from its own style")
            style = StyleReference.of(torch.from_numpy(times)[known], beta[known])
            made = self.driven(clip.samples, replace(persona, style=style))
            parts.append((made, (made.times >= start) & (made.times < end)))
        return FaceMotion(
            np.concatenate([made.times[inside] for made, inside in parts]),
            torch.cat([made.vertices[torch.from_numpy(inside)] for made, inside in parts]),
        )

    def rest(self, clip: Clip) -> FaceMotion:
        """The speaker's resting mouth, at one moment."""
        persona = self.persona(clip)
        face = self.model.vertices(persona.template, persona.rest)
        return FaceMotion(torch.zeros(1).double().numpy(), face[None])


@dataclass(frozen=True)
class PictureStudio(Studio):
    """Lips read back from the finished picture: every dub is rendered and tracked.

    Attributes:
        dubs: where the dubbed videos are kept.
    """

    dubs: Path = Path("dubs")

    def _made(self, clip: Clip, speech: Clip) -> FaceMotion:
        self.dubs.mkdir(parents=True, exist_ok=True)
        output = self.dubs / f"{clip.path.stem}_{speech.path.stem}.mkv"
        persona = self.persona(clip)
        options = DubOptions(length="video", overwrite=True)
        self.dubber.dub(clip.path, speech.path, output, options, persona, self.progress)
        return video_faces(output, self.model, persona.template).until(speech.seconds)
