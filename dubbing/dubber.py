"""`Dubber`: the one class that joins media, face, geometry, speech and both networks."""

from __future__ import annotations

import dataclasses
import logging
import resource
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from fractions import Fraction
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dubbing.adaptation import Adaptation, Adapter, adapted_network
from dubbing.analysis import (
    SpeakerTrack,
    VideoFaces,
    choose_speaker,
    easing,
    find_faces,
    fit_speaker,
)
from dubbing.errors import AudioUnusable, NoAudioStream, OptionInvalid, PersonaInvalid
from dubbing.geometry.fit import FaceFit
from dubbing.inspection import Inspection, inspection_of
from dubbing.media.audio import audio_duration, check_speech, load_speech
from dubbing.media.containers import check_video_codec
from dubbing.media.encoders import encoding_losses
from dubbing.media.mux import MuxResult, check_output, mux
from dubbing.media.probe import AudioStreamInfo, require_audio, require_video
from dubbing.media.reader import VideoReader
from dubbing.media.timeline import OutputPlan, iter_plan, plan_output
from dubbing.media.writer import VideoWriter
from dubbing.models.geometry_net import HUBERT, GeometryNet
from dubbing.motion import Motion, drive
from dubbing.options import DubOptions, check_device_name, to_dict
from dubbing.own_speech import own_speech
from dubbing.persona import Persona, fingerprint
from dubbing.persona_builder import build_persona
from dubbing.progress import ProgressCallback, StageProgress
from dubbing.render.mesh import RenderMesh
from dubbing.render.session import RenderSession
from dubbing.report import (
    AudioAction,
    CheckpointFacts,
    DubReport,
    FaceTrackFacts,
    PictureFacts,
    SoundFacts,
    StageTime,
    join_pass_through,
)
from dubbing.speech.features import SpeechFeatureExtractor, SpeechFeatures
from dubbing.speech.hubert import load_hubert
from dubbing.stream import DubbedFrames, StreamFrame, dub_stream
from dubbing.tail import Tail
from dubbing.weights import GEOMETRY, MORPHABLE, SPEECH, EngineWeights, load_engine

log = logging.getLogger(__name__)

PRODUCT = "persona-dub"


def marking(engine_version: str) -> str:
    """The provenance text that every result carries."""
    return (
        f"Synthetic media: mouth and lower face generated to new speech by Persona Dub "
        f"{engine_version}"
    )


def choose_device(name: str) -> torch.device:
    """The device for "auto", "cpu" or "cuda".

    Raises:
        OptionInvalid: an unknown name, or CUDA where there is none.
    """
    check_device_name(name)
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if name == "cuda" and not torch.cuda.is_available():
        raise OptionInvalid("no CUDA device is usable here", hint="use --device cpu")
    return torch.device(name)


class _Clock:
    """Wall-clock seconds and units per stage."""

    def __init__(self) -> None:
        self.stages: list[StageTime] = []
        self._start = time.perf_counter()

    @contextmanager
    def stage(self, name: str, units: list[int]) -> Iterator[None]:
        """Time a block; `units[0]` is read at its end."""
        start = time.perf_counter()
        yield
        self.stages.append(StageTime(name, time.perf_counter() - start, units[0]))

    @property
    def total(self) -> float:
        return time.perf_counter() - self._start


class Dubber:
    """Loads the networks once and dubs any number of videos. Not safe for use by several threads.

    Example:
        >>> dubber = Dubber.from_pretrained(device="auto")
        >>> report = dubber.dub("speaker.mp4", "speech.wav", "dubbed.mp4")
    """

    def __init__(self, weights: EngineWeights, device: torch.device, checkpoint: str):
        self.weights, self.device, self.checkpoint = weights, device, checkpoint
        self.mesh = RenderMesh.build(weights.morphable)
        self.features: SpeechFeatureExtractor = SpeechFeatures(
            weights.speech_encoder, standardised=True
        )
        if weights.geometry.config.features == HUBERT:
            self.features = load_hubert().to(device)
        self.version = version(PRODUCT)

    @classmethod
    def from_pretrained(cls, checkpoint: str | Path = "default", device: str = "auto") -> Dubber:
        """Load a checkpoint folder; "default" is the one that comes with the package.

        Raises:
            CheckpointNotFound, CheckpointCorrupt: see `dubbing.weights`.
            OptionInvalid: unknown or absent device.
        """
        place = choose_device(device)
        return cls(load_engine(checkpoint, place), place, str(checkpoint))

    def prepare(
        self,
        video: str | Path,
        options: DubOptions | None = None,
        progress: ProgressCallback | None = None,
    ) -> Persona:
        """Learn a speaker from a video: template, style, rest pose and reference bank.

        Raises:
            InputNotFound, NotAVideo: see `dubbing.media.probe`.
            NoFaceFound: no usable face, or not the chosen one.
        """
        options = options or DubOptions()
        with VideoReader(video, limits=options.limits) as reader:
            persona = self._prepare(reader, options, progress)[0]
            return self._adapted(reader, persona, progress) if options.adapt else persona

    @property
    def _stage1_hash(self) -> str:
        return f"{self.weights.hashes[GEOMETRY]}-{self.weights.hashes[SPEECH]}"

    def _adapted(
        self, reader: VideoReader, persona: Persona, progress: ProgressCallback | None
    ) -> Persona:
        """`persona` with stage 1 adapted to its video's own speech, or with the reason why not."""
        adapter = Adapter(self.weights.geometry, self.weights.morphable, self._stage1_hash)
        stage = StageProgress(progress, "adapt", adapter.total)
        try:
            speech = own_speech(reader, persona, self.features)
        except (NoAudioStream, AudioUnusable) as error:
            outcome = Adaptation.kept(error.message)
        else:
            outcome = adapter.adapt(speech, stage.advance)
        stage.finish()
        return dataclasses.replace(persona, adaptation=outcome)

    def _network(self, persona: Persona) -> GeometryNet:
        """Stage 1 for a speaker: the shared network, or an adapted copy of it."""
        learned = persona.adaptation
        if learned is None or not learned.applied or learned.weights != self._stage1_hash:
            return self.weights.geometry
        return adapted_network(self.weights.geometry, learned.changes)

    def _adaptation_notes(self, persona: Persona) -> list[str]:
        """What a user should know about the persona's adaptation."""
        learned = persona.adaptation
        if learned is None:
            return []
        if not learned.applied:
            return [learned.text]
        if learned.weights != self._stage1_hash:
            return ["the persona was adapted with another checkpoint: the generic weights are used"]
        return []

    def _prepare(
        self, reader: VideoReader, options: DubOptions, progress: ProgressCallback | None
    ) -> tuple[Persona, list[FaceTrackFacts]]:
        stage = StageProgress(progress, "analyse", reader.estimated_frames)
        faces = find_faces(reader, stage)
        track = choose_speaker(faces, options.speaker_track, reader.path)
        fitting = StageProgress(progress, "fit", len(track.frames))
        model = self.weights.morphable.to("cpu")
        speaker = fit_speaker(model, faces, track)
        persona = build_persona(
            reader, speaker, model, self.mesh.to("cpu"), faces.frames, self._morphable_hash
        )
        fitting.advance(len(track.frames))
        fitting.finish()
        return persona, _track_facts(faces, speaker)

    @property
    def _morphable_hash(self) -> str:
        return self.weights.hashes[MORPHABLE]

    def inspect(
        self,
        video: str | Path,
        options: DubOptions | None = None,
        progress: ProgressCallback | None = None,
    ) -> Inspection:
        """What the engine sees in a video: media, tracks, references, what would pass through.

        Raises:
            InputNotFound, NotAVideo: see `dubbing.media.probe`.
        """
        options = options or DubOptions()
        with VideoReader(video, limits=options.limits) as reader:
            stage = StageProgress(progress, "analyse", reader.estimated_frames)
            return inspection_of(reader, stage, self.weights.morphable.to("cpu"), options)

    def dub(
        self,
        video: str | Path,
        audio: str | Path,
        output: str | Path,
        options: DubOptions | None = None,
        persona: Persona | None = None,
        progress: ProgressCallback | None = None,
    ) -> DubReport:
        """Dub `video` with the speech of `audio` into `output`.

        Args:
            persona: from `prepare`, of the same speaker; saves its cost. Without it the video
                itself is prepared.
            progress: called with `ProgressEvent`s; an exception from it cancels the job.

        Returns:
            the report, also written to `options.report` where that is set.

        Raises:
            DubbingError: one of its subclasses, see `dubbing.errors`; the output is then not
                there, and an older file of its name is untouched.
        """
        options = options or DubOptions()
        clock = _Clock()
        target = check_output(output, [video, audio], options.overwrite)
        require_video(video, options.limits)
        sound = require_audio(audio, options.limits)
        samples = load_speech(audio, options.limits)
        check_speech(samples, audio)
        with (
            VideoReader(video, limits=options.limits) as reader,
            tempfile.TemporaryDirectory(prefix=".dub-", dir=target.parent) as folder,
        ):
            persona, speaker, faces = self._speaker(reader, options, persona, progress, clock)
            length = audio_duration(audio, options.limits)
            plan = plan_output(reader.index.times, reader.index.duration, length, options.length)  # type: ignore[arg-type]
            motion = self._motion(samples, plan, persona, options, progress, clock)
            picture = Path(folder) / "picture"
            passed = self._render(
                reader, plan, motion, persona, speaker, picture, target, options, progress, clock,
                length,
            )  # fmt: skip
            finishing = StageProgress(progress, "mux", 1)
            with clock.stage("mux", [1]):
                mixed = self._mux(picture, audio, reader, target, plan, options)
            finishing.advance()
            finishing.finish()
            report = self._report(
                reader, sound.audio[0], audio, length, plan, mixed, options, faces, passed, persona,
                clock,
            )  # fmt: skip
        if options.report is not None:
            report.save(options.report)
        return report

    def _speaker(
        self,
        reader: VideoReader,
        options: DubOptions,
        persona: Persona | None,
        progress: ProgressCallback | None,
        clock: _Clock,
    ) -> tuple[Persona, SpeakerTrack, list[FaceTrackFacts]]:
        """The persona and the speaker's track in this very video."""
        units = [0]
        with clock.stage("analyse and fit", units):
            if persona is None:
                persona, facts = self._prepare(reader, options, progress)
                speaker = _track_of(persona)
                if options.adapt:
                    persona = self._adapted(reader, persona, progress)
            else:
                self._check_persona(persona, reader.path)
                if persona.source == fingerprint(reader.path):
                    speaker, facts = _track_of(persona), []
                    if options.adapt and persona.adaptation is None:
                        persona = self._adapted(reader, persona, progress)
                else:
                    stage = StageProgress(progress, "analyse", reader.estimated_frames)
                    faces = find_faces(reader, stage)
                    track = choose_speaker(faces, options.speaker_track, reader.path)
                    model = self.weights.morphable.to("cpu")
                    speaker = fit_speaker(model, faces, track, persona.template)
                    facts = _track_facts(faces, speaker)
                    if options.adapt and persona.adaptation is None:
                        why = "the persona is of another video; 'dub persona --adapt' adapts it"
                        persona = dataclasses.replace(persona, adaptation=Adaptation.kept(why))
            units[0] = reader.index.count
        return persona, speaker, facts

    def _check_persona(self, persona: Persona, path: Path) -> None:
        if persona.morphable != self._morphable_hash:
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

    def _motion(
        self,
        samples: NDArray[np.float32],
        plan: OutputPlan,
        persona: Persona,
        options: DubOptions,
        progress: ProgressCallback | None,
        clock: _Clock,
    ) -> Motion:
        """Stage 1 for the whole result."""
        stage = StageProgress(progress, "geometry", plan.count)
        units = [plan.count]
        with clock.stage("speech and geometry", units):
            motion = self.drive(
                torch.from_numpy(samples), float(plan.duration), persona, options, progress
            )
        stage.advance(plan.count)
        stage.finish()
        return motion

    def drive(
        self,
        samples: Tensor,
        duration: float,
        persona: Persona,
        options: DubOptions | None = None,
        progress: ProgressCallback | None = None,
    ) -> Motion:
        """Lower-face motion for speech `samples` ([N] float32, 16 kHz mono), `duration` seconds."""
        options = options or DubOptions()
        net = self._network(persona)
        expressions = persona.style
        if options.style is not None:
            expressions = self.prepare(options.style, DubOptions(), progress).style
        style = self._style(net, expressions, options.style_strength)
        return drive(
            self.features,
            net,
            self.weights.morphable,
            samples,
            duration,
            persona.template.to(self.device),
            style,
            persona.rest.to(self.device),
            expressions.to(self.device),
            options.style_strength,
        )

    def _style(self, net: GeometryNet, expressions: Tensor, strength: float) -> Tensor:
        """Style embedding [D] of the expressions [F, E] of a speaker."""
        with torch.inference_mode():
            moved = self.weights.morphable.expression_vertices(expressions.to(self.device))
            return net.blend_style(net.style(moved[None]), strength)[0]

    def session(self, persona: Persona) -> RenderSession:
        """A renderer for one speaker."""
        return RenderSession(
            self.weights.renderer,
            self.weights.morphable,
            self.mesh,
            persona.template.to(self.device),
            persona.bank,
        )

    def _render(
        self,
        reader: VideoReader,
        plan: OutputPlan,
        motion: Motion,
        persona: Persona,
        speaker: SpeakerTrack,
        picture: Path,
        target: Path,
        options: DubOptions,
        progress: ProgressCallback | None,
        clock: _Clock,
        speech_end: Fraction,
    ) -> dict[int, str]:
        """Decode, render, compose and encode every frame of the plan; {output frame: reason} of
        those that passed through."""
        stage = StageProgress(progress, "render", plan.count)
        passed: dict[int, str] = {}
        weights = easing(speaker.reasons, reader.index.count)
        tail = Tail.original(plan, speech_end) if options.tail == "original" else Tail()
        source = (
            StreamFrame(f.number, f.source, float(f.time), f.pts, f.duration, tail.share(f.number))
            for f in iter_plan(reader, plan)
        )
        with clock.stage("render and encode", [plan.count]):
            frames = DubbedFrames(
                self.session(persona), self.weights, motion, speaker, persona.template, weights
            )
            with VideoWriter(
                picture, reader.video, options.codec, crf=float(options.crf), preset=options.preset
            ) as writer:
                check_video_codec(target, writer.codec_name)
                for done in frames.run(source):
                    ticks = max(round(done.source.duration / reader.time_base), 1)
                    writer.write(done.frame, done.source.pts, ticks)
                    if done.reason:
                        passed[done.source.number] = done.reason
                    stage.advance()
        stage.finish()
        return passed

    def _mux(
        self,
        picture: Path,
        audio: str | Path,
        reader: VideoReader,
        target: Path,
        plan: OutputPlan,
        options: DubOptions,
    ) -> MuxResult:
        note = marking(self.version)
        old = reader.info.metadata.get("comment", "")
        comment = note if not old or old.startswith("Synthetic media") else f"{old} | {note}"
        return mux(
            picture,
            audio,
            reader.path,
            target,
            duration=plan.duration,
            audio_codec=options.audio_codec,
            extra_metadata={"comment": comment},
            overwrite=options.overwrite,
        )

    def dub_frames(
        self,
        frames: Iterable[tuple[Fraction | float, NDArray[np.uint8]]],
        samples: NDArray[np.float32],
        persona: Persona,
        options: DubOptions | None = None,
    ) -> Iterator[NDArray[np.uint8]]:
        """Dub frames that a pipeline holds in memory; no file is read or written.

        Args:
            frames: (time in seconds from the start of the speech, [H, W, 3] uint8 RGB upright) in
                order, all of one size. They are taken as they are needed, about two seconds ahead.
            samples: [N] float32 mono speech at 16 kHz.
            persona: from `prepare` or `Persona.load`, of the speaker in the frames.

        Yields:
            one [H, W, 3] uint8 RGB frame per input frame; frames without a usable face come back
            equal to the input.

        Raises:
            AudioUnusable: the speech is empty, silent or too short.
        """
        check_speech(samples)
        self._check_persona(persona, Path("persona"))
        options = options or DubOptions()
        duration = len(samples) / 16000 + 1.0
        motion = self.drive(torch.from_numpy(samples), duration, persona, options)
        yield from dub_stream(frames, self.session(persona), self.weights, motion, persona)

    def _report(
        self, reader: VideoReader, sound: AudioStreamInfo, audio: str | Path, length: Fraction,
        plan: OutputPlan, mixed: MuxResult, options: DubOptions, faces: list[FaceTrackFacts],
        passed: dict[int, str], persona: Persona, clock: _Clock,
    ) -> DubReport:  # fmt: skip
        width, height = reader.video.display_size
        index = reader.index
        source = PictureFacts(
            str(reader.path), index.count, width, height, float(index.pts[0] * reader.time_base),
            float(index.duration), reader.video.codec,
        )  # fmt: skip
        return DubReport(
            video=source,
            audio=SoundFacts(
                str(audio), sound.codec, sound.sample_rate, sound.channels, float(length)
            ),
            output=dataclasses.replace(
                source, path=str(mixed.path), frames=plan.count, duration_s=float(plan.duration),
                start_s=float(mixed.video_start), codec=options.codec,
            ),
            options=to_dict(options),
            checkpoint=CheckpointFacts(self.checkpoint, self.weights.hashes),
            device=str(self.device),
            engine_version=self.version,
            marking=marking(self.version),
            frames_dubbed=plan.count - len(passed),
            passed_through=join_pass_through(passed),
            faces=faces,
            lip_references=persona.bank_frames,
            audio_action=AudioAction(mixed.audio_action, mixed.audio_codec),
            stages=clock.stages,
            total_seconds=clock.total,
            peak_memory_mib=peak_memory_mib(),
            warnings=[
                *(f"not taken over: {name}" for name in mixed.dropped),
                *encoding_losses(
                    reader.video.pix_fmt, options.codec, reader.video.width, reader.video.height,
                    mixed.path.suffix.lower(),
                ),
                *self._adaptation_notes(persona),
            ],
            adaptation=persona.adaptation.facts() if persona.adaptation else None,
        )  # fmt: skip


def _track_facts(faces: VideoFaces, speaker: SpeakerTrack) -> list[FaceTrackFacts]:
    """Every face track of a video for the report."""
    return [
        FaceTrackFacts(
            t.id, t.frames[0], t.frames[-1] + 1, len(t.frames), t.mean_side, t.id in speaker.ids
        )
        for t in faces.tracks
    ]


def _track_of(persona: Persona) -> SpeakerTrack:
    """The speaker's track as stored in a persona of the same video."""
    frames = persona.track_frames.tolist()
    fit = FaceFit(
        persona.alpha, persona.template, persona.track_beta, persona.track_pose, persona.track_error
    )
    return SpeakerTrack(
        persona.track_ids,
        {frame: row for row, frame in enumerate(frames)},
        dict(zip(frames, persona.track_parts.tolist(), strict=True)),
        fit,
        persona.faults,
    )


def peak_memory_mib() -> float:
    """Largest resident memory of this process so far in MiB; it never falls, so of several dubs
    in one process it is that of the hungriest."""
    status = Path("/proc/self/status")
    if status.exists():  # getrusage would count what the parent had before it started this process
        for line in status.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 1024 if sys.platform != "darwin" else peak / 2**20
