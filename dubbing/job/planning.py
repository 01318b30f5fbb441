"""Everything before the first frame of a job is rendered: checks, persona, tracks and motion."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from dubbing.analysis import KnownFaces
from dubbing.errors import OptionInvalid
from dubbing.job.description import JobDescription, library_versions
from dubbing.job.findings import Findings, save_motion
from dubbing.job.folder import JobFolder, held_state
from dubbing.job.inputs import InputFile
from dubbing.job.job import SPEECH_OF, Job, resumed_job
from dubbing.job.shared_faces import SharedFaces
from dubbing.media.audio import audio_duration, check_speech, load_speech
from dubbing.media.containers import check_video_codec
from dubbing.media.encoders import check_encoder, video_encoder
from dubbing.media.hardware import check_decoder
from dubbing.media.index import FrameIndex
from dubbing.media.mixing import mix_speech
from dubbing.media.output import check_output
from dubbing.media.probe import require_audio, require_video
from dubbing.media.reader import VideoReader
from dubbing.media.timeline import OutputPlan, plan_output
from dubbing.motion import Motion
from dubbing.options import DubOptions, to_dict
from dubbing.persona import Persona
from dubbing.progress import ProgressCallback, StageProgress
from dubbing.report import StageTime
from dubbing.speaker_choice import SpeakerChoice

if TYPE_CHECKING:
    from dubbing.dubber import Dubber

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Request:
    """What is to be dubbed: a video with the speech of one speaker, or with those of several.

    Attributes:
        audio: the speech of one speaker; None where there are several.
        speeches: {speaker, as `DubOptions.speaker` names one: speech}; empty for one speaker.
        sound: the result's sound where there are several; None: their speeches, mixed.
        persona: of the one speaker; None: learned from the video.
    """

    video: str | Path
    audio: str | Path | None
    speeches: Mapping[str, str | Path]
    sound: str | Path | None
    options: DubOptions
    persona: Persona | None

    @classmethod
    def of(
        cls,
        video: str | Path,
        audio: str | Path | Mapping[str, str | Path],
        sound: str | Path | None,
        options: DubOptions,
        persona: Persona | None,
    ) -> Request:
        """One speaker's `audio`, or {speaker: speech}."""
        if isinstance(audio, Mapping):
            return cls(video, None, dict(audio), sound, options, persona)
        return cls(video, audio, {}, sound, options, persona)

    @property
    def files(self) -> list[str | Path]:
        """The sounds that are given."""
        given = [self.audio, *self.speeches.values(), self.sound]
        return [file for file in given if file is not None]

    @property
    def heard(self) -> str | Path | None:
        """The file that the result sounds like; None: the speeches are still to be mixed."""
        return self.sound if self.audio is None else self.audio


class JobPlanner:
    """Plans jobs with the networks of a `Dubber`."""

    def __init__(self, dubber: Dubber):
        self._dubber = dubber

    @contextmanager
    def plan(
        self,
        request: Request,
        output: str | Path,
        progress: ProgressCallback | None = None,
        faces: Path | None = None,
    ) -> Iterator[Job]:
        """See `Dubber.plan`."""
        started = time.perf_counter()
        options = request.options
        target = _checked(request, output)
        with held_state(target, resume=options.resume, clean=options.clean) as folder:
            heard = request.heard or _mixed(request, folder)
            described = self.describe(request, heard)
            if folder.planned:
                yield resumed_job(folder, target, described, started)
                return
            for file in request.speeches.values() or (heard,):
                check_speech(load_speech(file, options.limits), file)
            known = SharedFaces.load(faces, described) if faces is not None else None
            work = _Work(self._dubber, folder, described, progress, known)
            if request.speeches:
                findings = work.several_speakers()
            else:
                findings = work.one_speaker(request.persona)
            described.check_inputs()
            folder.save_job(described)
            yield Job(folder, target, described, findings, started=started)

    def describe(self, request: Request, heard: str | Path | None) -> JobDescription:
        """The identity of a job: its inputs, options, networks and libraries.

        Args:
            heard: the file that the result sounds like; None where nothing is to be heard.
        """
        dubber, style = self._dubber, request.options.style
        files = [("video", request.video)] + ([("audio", heard)] if heard is not None else [])
        files += [(SPEECH_OF + who, path) for who, path in request.speeches.items()]
        files += [("style", style)] if style is not None else []
        return JobDescription(
            inputs=tuple(InputFile.read(role, path) for role, path in files),
            options=to_dict(request.options),
            persona=request.persona.sha256 if request.persona else "",
            weights=dubber.weights.digests,
            device=str(dubber.device),
            engine=dubber.version,
            libraries=library_versions(),
        )


def _checked(request: Request, output: str | Path) -> Path:
    """The output's place, once everything that can be told without looking into files has been."""
    options = request.options
    if request.audio is None:
        _check_speeches(request.speeches, options)
    target = check_output(output, [request.video, *request.files], options.overwrite)
    require_video(request.video, options.limits)
    for file in request.files:
        require_audio(file, options.limits)
    check_video_codec(target, str(video_encoder(options.codec).canonical_name))
    check_encoder(options.codec)
    check_decoder(options.decoder)
    return target


def _check_speeches(speeches: Mapping[str, str | Path], options: DubOptions) -> None:
    """Raises OptionInvalid where several speakers can't be dubbed so."""
    if not speeches:
        raise OptionInvalid("no speaker is given a speech", hint="--map SPEAKER=SPEECH")
    for name in speeches:
        SpeakerChoice.parse(name)
    if options.adapt:
        raise OptionInvalid(
            "adapt learns from a sound that belongs to one speaker; it can't be used with several"
        )


def _mixed(request: Request, folder: JobFolder) -> Path:
    """All speeches in one file of the job's folder."""
    speeches = list(request.speeches.values())
    if not folder.sound.is_file():
        gain = mix_speech(speeches, folder.sound, request.options.limits)
        log.info("%d speeches mixed at a gain of %.3f", len(speeches), gain)
    return folder.sound


@dataclass
class _Work:
    """Persona, tracks and motion of a new job, saved in its folder."""

    dubber: Dubber
    folder: JobFolder
    described: JobDescription
    progress: ProgressCallback | None
    known: KnownFaces | None
    stages: list[StageTime] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.options = self.described.dub_options
        self.video, self.audio = (item.path for item in self.described.inputs[:2])

    def one_speaker(self, persona: Persona | None) -> Findings:
        """The speaker chosen, with the persona given or one learned from the video."""
        with self._video() as reader, self._stage("analyse and fit") as units:
            persona, speaker, faces = self.dubber.learner.locate(
                reader, self.options, persona, self.progress, self.known
            )
            index = reader.index
            units[0] = index.count
        length, plan = self._output(index)
        motion = self._motion(self.audio, plan, persona)
        findings = Findings(index, speaker, faces, length, self.stages)
        persona.save(self.folder.persona)
        save_motion(motion, self.folder.motion)
        findings.save(self.folder.findings)
        return findings

    def several_speakers(self) -> Findings:
        """Every speaker with a speech, the smallest face first; the findings of that one."""
        speeches = {
            item.role.removeprefix(SPEECH_OF): item.path
            for item in self.described.inputs
            if SPEECH_OF in item.role
        }
        with self._video() as reader, self._stage("analyse and fit") as units:
            learned, facts = self.dubber.learner.learn_several(
                reader, list(speeches), self.options, self.progress, self.known
            )
            index = reader.index
            units[0] = index.count
        length, plan = self._output(index)
        for number, speaker in enumerate(learned):
            motion = self._motion(speeches[speaker.name], plan, speaker.persona)
            places = self.folder.voice(number)
            speaker.persona.save(places[0])
            save_motion(motion, places[2])
        each = [Findings(index, s.track, facts, length, self.stages) for s in learned]
        for number, findings in enumerate(each):
            findings.save(self.folder.voice(number)[1])
        return each[0]

    def _video(self) -> VideoReader:
        return VideoReader(self.video, limits=self.options.limits, decoder=self.options.decoder)

    def _output(self, index: FrameIndex) -> tuple[Fraction, OutputPlan]:
        """Seconds of the sound, and the frames of the result."""
        length = audio_duration(self.audio, self.options.limits)
        return length, plan_output(index.times, index.duration, length, self.options.length)  # type: ignore[arg-type]

    def _motion(self, speech: str, plan: OutputPlan, persona: Persona) -> Motion:
        """Stage 1 for the whole result."""
        samples = torch.from_numpy(load_speech(speech, self.options.limits))
        stage = StageProgress(self.progress, "geometry", plan.count)
        with self._stage("speech and geometry", plan.count):
            motion = self.dubber.drive(
                samples, float(plan.duration), persona, self.options, self.progress
            )
        stage.advance(plan.count)
        stage.finish()
        return motion

    @contextmanager
    def _stage(self, name: str, count: int = 0) -> Iterator[list[int]]:
        """Time a block; the number that it is given, and may set, are the units done."""
        units = [count]
        start = time.perf_counter()
        yield units
        self.stages.append(StageTime(name, time.perf_counter() - start, units[0]))
