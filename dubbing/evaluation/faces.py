"""A face in motion, free of head pose: from a persona's own track, a video, or stage 1."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from dubbing.analysis import choose_speaker, find_faces, fit_speaker
from dubbing.evaluation.curves import Curve, LipCurve, resample, vertices_curve
from dubbing.geometry.morphable import MorphableModel
from dubbing.media.reader import VideoReader
from dubbing.motion import RATE, Motion
from dubbing.persona import Persona
from dubbing.progress import ProgressCallback, StageProgress


@dataclass(frozen=True)
class FaceMotion:
    """Canonical vertices of one face over time.

    Attributes:
        times: [N] seconds, strictly increasing; only moments at which the face was seen well.
        vertices: [N, V, 3] on the CPU, in the morphable model's unit, without head pose.
    """

    times: Curve
    vertices: Tensor

    @cached_property
    def curve(self) -> LipCurve:
        """Opening, width and jaw over time."""
        return vertices_curve(self.vertices, self.times)

    def shifted(self, seconds: float) -> FaceMotion:
        """The same movement `seconds` later."""
        return replace(self, times=self.times + seconds)

    def until(self, end: float) -> FaceMotion:
        """The part before `end` seconds."""
        kept = self.times < end
        return FaceMotion(self.times[kept], self.vertices[torch.from_numpy(kept)])

    def still(self, face: Tensor) -> FaceMotion:
        """One face [V, 3] held at all these times."""
        return FaceMotion(self.times, face.expand(len(self.times), -1, -1))


def persona_faces(persona: Persona, video: str | Path, model: MorphableModel) -> FaceMotion:
    """The face in the very video from which a persona was prepared, without tracking it again.

    Args:
        model: on the CPU.
    """
    times, beta = usable_expressions(persona, video)
    return FaceMotion(times, model.vertices(persona.template, beta))


def usable_expressions(persona: Persona, video: str | Path) -> tuple[Curve, Tensor]:
    """Times [N] and expressions [N, E] of the frames, in the very video from which a persona was
    prepared, in which the face was seen well."""
    with VideoReader(video) as reader:
        times = _seconds(reader)
    frames, rows = persona.usable_rows()
    return times[frames], persona.track_beta[rows]


def video_faces(
    path: str | Path,
    model: MorphableModel,
    template: Tensor | None = None,
    progress: ProgressCallback | None = None,
) -> FaceMotion:
    """Track the largest face of a video and fit it.

    Args:
        model: on the CPU.
        template: [V, 3] the face's neutral shape where it is known (the same person, another
            video), so that both are measured with one ruler; None estimates it.

    Returns:
        times count from the first frame; frames in which the face is not seen well are left out.

    Raises:
        InputNotFound, NotAVideo: see `VideoReader`.
        NoFaceFound: no usable face.
    """
    with VideoReader(path) as reader:
        faces = find_faces(reader, StageProgress(progress, "analyse", reader.estimated_frames))
        track = choose_speaker(faces, None, reader.path)
        speaker = fit_speaker(model, faces, track, template)
        times = _seconds(reader)
    frames = [f for f in sorted(speaker.position) if f not in speaker.reasons]
    rows = [speaker.position[f] for f in frames]
    vertices = model.vertices(speaker.fit.template, speaker.fit.beta[rows])
    return FaceMotion(times[frames], vertices)


def made_faces(
    motion: Motion, template: Tensor, lower: Tensor, weight: Tensor | None = None
) -> FaceMotion:
    """The face of generated motion, the upper part at rest: nothing rendered, nothing tracked.

    Args:
        template: [V, 3] neutral face; lower: [L] vertices that the motion displaces.
        weight: [V] share of the motion in each vertex, `MorphableModel.lower`; None is 1.
    """
    made = motion.lower
    index = lower.cpu()
    if weight is not None:
        made = weight.cpu()[index][None, :, None] * made
    vertices = template.cpu().expand(len(made), -1, -1).clone()
    vertices[:, index] += made
    return FaceMotion(np.arange(len(made)) / RATE, vertices)


def vertex_motion(
    faces: FaceMotion, template: Tensor, index: Tensor, start: float, frames: int
) -> tuple[Tensor, Tensor]:
    """Displacements of some vertices at 25 Hz.

    Args:
        template: [V, 3] the face's neutral shape; index: [L] vertices.
        start: seconds of the first frame on the face's clock; frames: T.

    Returns:
        (displacements [T, L, 3], known [T]); where a face is not known they repeat the nearest.
    """
    moments = start + np.arange(frames) / RATE
    flat = (faces.vertices[:, index] - template[index]).flatten(1).double().numpy()
    seen = np.isfinite(resample(faces.times, np.zeros(len(faces.times)), moments))
    columns = [np.interp(moments, faces.times, flat[:, k]) for k in range(flat.shape[1])]
    motion = torch.from_numpy(np.stack(columns, 1)).float().view(frames, -1, 3)
    return motion, torch.from_numpy(seen)


def _seconds(reader: VideoReader) -> Curve:
    """Times [frames] of a video in seconds since its first frame."""
    return np.array([float(t) for t in reader.index.times])
