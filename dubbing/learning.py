"""Learning a speaker from a video: face track, geometry, style and references, and adaptation."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import torch

from dubbing.adaptation import Adaptation, Adapter, adapted_network
from dubbing.analysis import (
    KnownFaces,
    SpeakerTrack,
    VideoFaces,
    find_faces,
    fit_speaker,
    fit_speakers,
)
from dubbing.errors import AudioUnusable, NoAudioStream, PersonaInvalid
from dubbing.geometry.morphable import MorphableModel
from dubbing.media.reader import VideoReader
from dubbing.models.geometry_net import GeometryNet
from dubbing.options import DubOptions
from dubbing.own_speech import own_speech
from dubbing.persona import Persona, fingerprint
from dubbing.persona_builder import build_persona
from dubbing.progress import ProgressCallback, StageProgress
from dubbing.render.mesh import RenderMesh
from dubbing.report import FaceTrackFacts
from dubbing.speaker_choice import SpeakerChoice
from dubbing.speakers import Hearing, pick_speaker
from dubbing.speech.features import SpeechFeatureExtractor
from dubbing.sync import SYNC, load_sync
from dubbing.track_facts import speaker_facts, track_facts, track_of
from dubbing.weights import GEOMETRY, MORPHABLE, SPEECH, EngineWeights, resolve


@dataclasses.dataclass(frozen=True)
class LearnedSpeaker:
    """A speaker of several in a video; `name` as it was asked for."""

    name: str
    track: SpeakerTrack
    persona: Persona


@dataclasses.dataclass(frozen=True)
class SpeakerLearner:
    """Makes personas with one set of networks.

    Attributes:
        model, mesh: on the CPU.
        features: of the speech, as stage 1 wants them.
        checkpoint: name of the weights, where a sync expert of their own may lie.
    """

    weights: EngineWeights
    model: MorphableModel
    mesh: RenderMesh
    features: SpeechFeatureExtractor
    checkpoint: str
    device: torch.device

    @property
    def stage1_hash(self) -> str:
        """Of the weights that an adaptation belongs to."""
        return f"{self.weights.hashes[GEOMETRY]}-{self.weights.hashes[SPEECH]}"

    def learn(
        self,
        reader: VideoReader,
        options: DubOptions,
        progress: ProgressCallback | None,
        known: KnownFaces | None = None,
    ) -> tuple[Persona, list[FaceTrackFacts]]:
        """The persona of the chosen speaker, and every face track for the report.

        Args:
            known: faces that were found before; they make no difference to the result.

        Raises:
            NoFaceFound: no usable face, or not the chosen one.
        """
        model, faces = self._seen(reader, progress, known)
        chosen = pick_speaker(faces, options.speaker_choice, reader, model, self.hearing)
        fitting = StageProgress(progress, "fit", len(chosen.track.frames))
        speaker = fit_speaker(model, faces, chosen.track, limits=options.face_limits)
        persona = self._built(reader, speaker, faces.frames, chosen.note)
        fitting.advance(len(chosen.track.frames))
        fitting.finish()
        if options.adapt:
            persona = self.adapted(reader, persona, progress)
        return persona, track_facts(faces, [speaker], chosen.agreement)

    def locate(
        self,
        reader: VideoReader,
        options: DubOptions,
        persona: Persona | None,
        progress: ProgressCallback | None,
        known: KnownFaces | None = None,
    ) -> tuple[Persona, SpeakerTrack, list[FaceTrackFacts]]:
        """The persona and the speaker's track in this very video, of which the persona need not be.

        Raises:
            NoFaceFound: as `learn`.
            PersonaInvalid: see `check`.
        """
        if persona is None:
            persona, facts = self.learn(reader, options, progress, known)
            return persona, track_of(persona), facts
        self.check(persona, reader.path)
        if persona.source == fingerprint(reader.path):
            speaker = track_of(persona)
            if options.adapt and persona.adaptation is None:
                persona = self.adapted(reader, persona, progress)
            return persona, speaker, speaker_facts(speaker)
        model, faces = self._seen(reader, progress, known)
        chosen = pick_speaker(faces, options.speaker_choice, reader, model, self.hearing)
        speaker = fit_speaker(model, faces, chosen.track, persona.template, options.face_limits)
        note = [chosen.note] if chosen.note else []
        persona = dataclasses.replace(persona, notes=note, shot_banks={})
        if options.adapt and persona.adaptation is None:
            why = "the persona is of another video; 'dub persona --adapt' adapts it"
            persona = dataclasses.replace(persona, adaptation=Adaptation.kept(why))
        return persona, speaker, track_facts(faces, [speaker], chosen.agreement)

    def learn_several(
        self,
        reader: VideoReader,
        names: Sequence[str],
        options: DubOptions,
        progress: ProgressCallback | None,
        known: KnownFaces | None = None,
    ) -> tuple[list[LearnedSpeaker], list[FaceTrackFacts]]:
        """The same as `learn` for several speakers, the smallest face first.

        Args:
            names: as `DubOptions.speaker` names one.

        Raises:
            NoFaceFound: no usable frame of one of them.
            OptionInvalid: two names mean one person.
        """
        model, faces = self._seen(reader, progress, known)
        found = {
            name: pick_speaker(faces, SpeakerChoice.parse(name), reader, model, self.hearing)
            for name in names
        }
        order = sorted(names, key=lambda name: found[name].track.mean_side)
        chosen = {name: found[name].track for name in order}
        speakers = fit_speakers(model, faces, chosen, options.face_limits)
        learned = [
            LearnedSpeaker(
                name, speaker, self._built(reader, speaker, faces.frames, found[name].note)
            )
            for name, speaker in zip(order, speakers, strict=True)
        ]
        agreement = {t: a for choice in found.values() for t, a in choice.agreement.items()}
        return learned, track_facts(faces, speakers, agreement)

    def adapted(
        self, reader: VideoReader, persona: Persona, progress: ProgressCallback | None
    ) -> Persona:
        """`persona` with stage 1 adapted to its video's own speech, or with the reason why not."""
        adapter = Adapter(self.weights.geometry, self.weights.morphable, self.stage1_hash)
        stage = StageProgress(progress, "adapt", adapter.total)
        try:
            speech = own_speech(reader, persona, self.features)
        except (NoAudioStream, AudioUnusable) as error:
            outcome = Adaptation.kept(error.message)
        else:
            outcome = adapter.adapt(speech, stage.advance)
        stage.finish()
        return dataclasses.replace(persona, adaptation=outcome)

    def network(self, persona: Persona) -> GeometryNet:
        """Stage 1 for a speaker: the shared network, or an adapted copy of it."""
        learned = persona.adaptation
        if learned is None or not learned.applied or learned.weights != self.stage1_hash:
            return self.weights.geometry
        return adapted_network(self.weights.geometry, learned.changes)

    def adaptation_notes(self, persona: Persona) -> list[str]:
        """What a user should know about the persona's adaptation."""
        learned = persona.adaptation
        if learned is None:
            return []
        if not learned.applied:
            return [learned.text]
        if learned.weights != self.stage1_hash:
            return ["the persona was adapted with another checkpoint: the generic weights are used"]
        return []

    def check(self, persona: Persona, path: Path) -> None:
        """Make sure that the persona fits the networks.

        Raises:
            PersonaInvalid: it was made with another morphable model.
        """
        if persona.morphable != self.weights.hashes[MORPHABLE]:
            raise PersonaInvalid(
                "the persona was made with another morphable model",
                path=path,
                hint="make it again with 'dub persona'",
            )
        model = self.weights.morphable
        sizes = (len(persona.alpha), len(persona.template), persona.rest.shape[0])
        if sizes != (len(model.shape), len(model.mean), len(model.expression)):
            raise PersonaInvalid(
                f"the persona has {sizes} shapes, vertices and expressions; the model has others",
                path=path,
            )

    def hearing(self) -> Hearing:
        """What finds the active speaker: the checkpoint's own sync expert, or the packaged one."""
        own = resolve(self.checkpoint) / f"{SYNC}.safetensors"
        expert = load_sync(own) if own.is_file() else load_sync()
        return Hearing(self.weights.speech_encoder, expert.to(self.device))

    def _seen(
        self, reader: VideoReader, progress: ProgressCallback | None, known: KnownFaces | None
    ) -> tuple[MorphableModel, VideoFaces]:
        """The model, and every face of the video."""
        stage = StageProgress(progress, "analyse", reader.estimated_frames)
        return self.model, find_faces(reader, stage, self.model, known)

    def _built(self, reader: VideoReader, speaker: SpeakerTrack, frames: int, note: str) -> Persona:
        persona = build_persona(
            reader, speaker, self.model, self.mesh, frames, self.weights.hashes[MORPHABLE]
        )
        return dataclasses.replace(persona, notes=[note] if note else [])
