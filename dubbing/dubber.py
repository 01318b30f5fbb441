"""`Dubber`: the one class that joins media, face, geometry, speech and both networks."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from fractions import Fraction
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dubbing.device import choose_device
from dubbing.inspection import Inspection, inspection_of
from dubbing.job.finishing import finish_job, finished_report
from dubbing.job.folder import JobFolder, clean_state, state_path
from dubbing.job.job import Job
from dubbing.job.planning import JobPlanner, Request
from dubbing.job.rendering import SegmentRenderer
from dubbing.job.shared_faces import SharedFaces
from dubbing.learning import SpeakerLearner
from dubbing.media.audio import check_speech
from dubbing.media.hardware import check_decoder
from dubbing.media.reader import VideoReader
from dubbing.models.geometry_net import HUBERT, GeometryNet
from dubbing.motion import Motion, drive
from dubbing.options import DubOptions
from dubbing.persona import Persona
from dubbing.progress import ProgressCallback, StageProgress
from dubbing.render.mesh import RenderMesh
from dubbing.render.pictures import FacePicture
from dubbing.render.session import RenderSession
from dubbing.report import DubReport
from dubbing.speech.features import SpeechFeatureExtractor, SpeechFeatures
from dubbing.speech.hubert import load_hubert
from dubbing.stream import dub_stream
from dubbing.weights import EngineWeights, load_engine

PRODUCT = "persona-dub"


class Dubber:
    """Loads the networks once and dubs any number of videos. Not safe for use by several threads.

    Attributes:
        model, mesh, lower: the morphable model, the mesh that is drawn, and the numbers [L] of the
            vertices that speech moves; on the CPU.

    Example:
        >>> dubber = Dubber.from_pretrained(device="auto")
        >>> report = dubber.dub("speaker.mp4", "speech.wav", "dubbed.mp4")
    """

    def __init__(self, weights: EngineWeights, device: torch.device, checkpoint: str):
        self.weights, self.device, self.checkpoint = weights, device, checkpoint
        self.model, self.lower = weights.morphable.to("cpu"), weights.geometry.lower.cpu()
        self.mesh = RenderMesh.build(self.model)
        self.features: SpeechFeatureExtractor = SpeechFeatures(
            weights.speech_encoder, standardised=True
        )
        if weights.geometry.config.features == HUBERT:
            self.features = load_hubert().to(device)
        self.learner = SpeakerLearner(
            weights, self.model, self.mesh, self.features, checkpoint, device
        )
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
        check_decoder(options.decoder)
        with VideoReader(video, limits=options.limits, decoder=options.decoder) as reader:
            return self.learner.learn(reader, options, progress)[0]

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
            return inspection_of(reader, stage, self.model, options, self.learner.hearing)

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
                there, and an older file of its name is untouched. Once the analysis is done, what
                was reached stays in a folder beside the output, for `options.resume`.
        """
        return self._dub(video, audio, output, options, persona, progress)

    def dub_speakers(
        self,
        video: str | Path,
        speeches: Mapping[str, str | Path],
        output: str | Path,
        options: DubOptions | None = None,
        sound: str | Path | None = None,
        progress: ProgressCallback | None = None,
    ) -> DubReport:
        """Dub several people of `video` in one pass, each with an own speech.

        Args:
            speeches: {speaker, as `DubOptions.speaker` names one: speech file}. All begin with the
                first frame. Where two faces overlap, the larger one is drawn on top.
            sound: the result's sound; without it the speeches are added sample by sample, turned
                down together where their sum would clip (see `dubbing.media.mixing`).

        Raises:
            OptionInvalid: two names mean one person, or an option that is for one speaker.
            DubbingError: as `dub`.
        """
        return self._dub(video, dict(speeches), output, options, None, progress, sound)

    def _dub(
        self,
        video: str | Path,
        audio: str | Path | Mapping[str, str | Path],
        output: str | Path,
        options: DubOptions | None,
        persona: Persona | None,
        progress: ProgressCallback | None,
        sound: str | Path | None = None,
    ) -> DubReport:
        options = options or DubOptions()
        request = Request.of(video, audio, sound, options, persona)
        finished = self._finished(request, output)
        if finished is not None:
            return finished
        with JobPlanner(self).plan(request, output, progress) as job:
            self.render(job, progress)
            return self.finish(job, options, progress)

    def plan(
        self,
        video: str | Path,
        audio: str | Path | Mapping[str, str | Path],
        output: str | Path,
        options: DubOptions | None = None,
        persona: Persona | None = None,
        progress: ProgressCallback | None = None,
        sound: str | Path | None = None,
        faces: Path | None = None,
    ) -> AbstractContextManager[Job]:
        """Everything before the first frame is rendered, done or found done by an earlier run.

        While the block runs the output is locked against other runs, and workers may render the
        job's segments (see `dubbing.job`). When it ends well the state folder is removed.

        Args:
            audio: the speech, or {speaker: speech} as for `dub_speakers`; `sound` as there.
            faces: folder of `share_faces`; what was found there is not looked for again.

        Raises:
            DubbingError: as `dub`.
        """
        request = Request.of(video, audio, sound, options or DubOptions(), persona)
        return JobPlanner(self).plan(request, output, progress, faces)

    def share_faces(
        self, video: str | Path, folder: str | Path, options: DubOptions | None = None
    ) -> SharedFaces:
        """Index a long video, so that several processes can look for its faces before `plan`.

        Args:
            folder: for what is found; all of them must see it, and `plan` is told it.

        Raises:
            DubbingError: see `SharedFaces.begin`.
        """
        options = dataclasses.replace(options or DubOptions(), style=None)
        request = Request(video, None, {}, None, options, None)
        return SharedFaces.begin(Path(folder), JobPlanner(self).describe(request, None))

    def render(self, job: Job, progress: ProgressCallback | None = None) -> None:
        """Render every segment of `job` that is missing, one after another.

        Raises:
            DubbingError: see `SegmentRenderer.render`.
        """
        missing = job.missing()
        done = job.plan.count - sum(job.spans[k].stop - job.spans[k].start for k in missing)
        stage = StageProgress(progress, "render", job.plan.count, before=done)
        if missing:
            with SegmentRenderer(self, job) as renderer:
                for number in missing:
                    renderer.render(number, stage.advance)
        stage.finish()

    def finish(
        self,
        job: Job,
        options: DubOptions | None = None,
        progress: ProgressCallback | None = None,
    ) -> DubReport:
        """Join the segments of `job` and put the result at its place.

        Args:
            options: of this run, where they differ from those the job was planned with.

        Raises:
            DubbingError: see `finish_job`.
        """
        options = options or job.options
        stage = StageProgress(progress, "mux", 1)
        notes = self.learner.adaptation_notes(job.persona)
        notes += [note for voice in job.voices for note in voice.persona.notes]
        report = finish_job(job, self.checkpoint, notes, options.overwrite)
        stage.advance()
        stage.finish()
        if options.report is not None:
            report.save(options.report)
        return report

    def _finished(self, request: Request, output: str | Path) -> DubReport | None:
        """The report of this very job, where an earlier run was stopped after its last step."""
        options, folder = request.options, JobFolder(state_path(output))
        if not (options.resume and folder.report.is_file()):
            return None
        described = JobPlanner(self).describe(request, request.heard)
        report = finished_report(folder, Path(output).absolute(), described)
        if report is None:
            return None
        clean_state(output)
        if options.report is not None:
            report.save(options.report)
        return report

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
        net = self.learner.network(persona)
        reference = persona.style
        if options.style is not None:
            reference = self.prepare(options.style, DubOptions(), progress).style
        style = self._style(net, reference.expressions, options.style_strength)
        return drive(
            self.features,
            net,
            self.weights.morphable,
            samples,
            duration,
            persona.template.to(self.device),
            style,
            persona.rest.to(self.device),
            reference,
            options.style_strength,
            self.weights.style_metric,
        )

    def _style(self, net: GeometryNet, expressions: Tensor, strength: float) -> Tensor:
        """Style embedding [D] of the expressions [F, E] of a speaker."""
        with torch.inference_mode():
            moved = self.weights.morphable.expression_vertices(expressions.to(self.device))
            return net.blend_style(net.style(moved[None]), strength)[0]

    def session(self, persona: Persona, bank: list[FacePicture] | None = None) -> RenderSession:
        """A renderer for one speaker, with its lip references or those of `bank`."""
        return RenderSession(
            self.weights.renderer,
            self.model,
            self.mesh,
            persona.template,
            persona.bank if bank is None else bank,
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
        self.learner.check(persona, Path("persona"))
        options = options or DubOptions()
        duration = len(samples) / 16000 + 1.0
        motion = self.drive(torch.from_numpy(samples), duration, persona, options)
        yield from dub_stream(frames, self.session(persona), self.lower, motion, persona)
