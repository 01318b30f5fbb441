"""Systems that nobody has to train: every report shows them beside what it measures."""

from __future__ import annotations

import tempfile
import time
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from dubbing.dubber import Dubber
from dubbing.evaluation.mesh_warp import nearest_by_lips, warp_face
from dubbing.evaluation.protocol_file import Case
from dubbing.evaluation.protocol_names import SELF
from dubbing.evaluation.systems import Making, Work
from dubbing.geometry.morphable import MorphableModel
from dubbing.geometry.pose import apply_pose
from dubbing.media.audio import audio_duration
from dubbing.media.mux import mux
from dubbing.media.reader import VideoReader
from dubbing.media.timeline import iter_plan, plan_output
from dubbing.media.writer import VideoWriter
from dubbing.motion import RATE, Motion
from dubbing.options import DubOptions
from dubbing.persona import Persona
from dubbing.progress import ProgressCallback
from dubbing.render.mesh import RenderMesh
from dubbing.render.mouths import Moments
from dubbing.render.painting import Patch
from dubbing.render.pictures import FacePicture
from dubbing.render.session import RenderSession

UNCHANGED, REST, WARP = "source unchanged", "rest pose", "mesh warp"
LATE_S = 1.0  # seconds by which the picture of a self-dub is late in `UnchangedSystem`


@dataclass(frozen=True)
class UnchangedSystem:
    """The source's picture under the new sound. In a self-dub, where that would be the truth
    itself, every frame shows the source of one second before (the first second runs backwards)."""

    name: str = UNCHANGED

    def key(self, case: Case) -> str:
        return f"late {LATE_S}"

    def make(self, work: Work) -> Making:
        start = time.perf_counter()
        late = LATE_S if work.case.protocol == SELF else 0.0
        copy_late(work.video, work.audio, work.output, late)
        return Making(work.output, time.perf_counter() - start)


def copy_late(video: Path, audio: Path, output: Path, late: float) -> None:
    """The picture of `video`, `late` seconds late, under the sound of `audio`; as long as the
    sound, by ping-pong where the picture is shorter."""
    with (
        VideoReader(video) as reader,
        tempfile.TemporaryDirectory(prefix=".late-", dir=output.parent) as folder,
    ):
        index, picture = reader.index, Path(folder) / "picture"
        plan = plan_output(index.times, index.duration, audio_duration(audio), "audio")
        delay = min(round(late * index.count / float(index.duration)), index.count - 1)
        lead = reader.iter_reverse(1, delay + 1) if delay else iter(())
        shown = chain(lead, (frame.source for frame in iter_plan(reader, plan)))
        with VideoWriter(picture, reader.video, preset="veryfast") as writer:
            for place, source in zip(plan.frames(), shown, strict=False):
                pts = index.pts[0] + round(place.time / reader.time_base)
                writer.write(source.frame, pts, max(round(place.duration / reader.time_base), 1))
        mux(
            picture, audio, video, output, duration=plan.duration, audio_codec="aac", overwrite=True
        )


class RestingDubber(Dubber):
    """The engine with a mouth that rests whatever is said."""

    def drive(
        self,
        samples: Tensor,
        duration: float,
        persona: Persona,
        options: DubOptions | None = None,
        progress: ProgressCallback | None = None,
    ) -> Motion:
        """The speaker's resting lower face for `duration` seconds."""
        lower = self.model.expression_vertices(persona.rest)[self.lower]
        return Motion(lower.expand(int(duration * RATE) + 2, -1, -1))


class WarpingDubber(Dubber):
    """The engine's stage 1 with the simplest stage 2: the nearest lip reference, mesh-warped."""

    def session(self, persona: Persona, bank: list[FacePicture] | None = None) -> RenderSession:
        """See `WarpSession`."""
        pictures = persona.bank if bank is None else bank
        return WarpSession(self.model, self.mesh, persona.template, pictures)


class WarpSession(RenderSession):
    """Renders without a network: pastes the lower face of the reference with the nearest lips.

    Args:
        model, mesh: on the CPU.
    """

    def __init__(
        self,
        model: MorphableModel,
        mesh: RenderMesh,
        template: Tensor,
        lip_references: list[FacePicture],
    ):
        # not RenderSession's own, which encodes the references with the network
        self.model, self.mesh, self.template = model, mesh, template
        self._pictures = lip_references
        moved = [model.expression_vertices(p.beta[None])[0] for p in lip_references]
        self._moved = torch.stack(moved)

    def render(
        self,
        key: int,
        frame: FacePicture,
        displacement: Tensor,
        references: list[tuple[int, FacePicture]],
        strength: float = 1.0,
        around: Moments | None = None,
    ) -> Patch:
        """See `RenderSession.render`; neither the face references nor the moments around are looked
        at."""
        picked = nearest_by_lips(displacement, self._moved)
        other = self._pictures[picked]
        target = apply_pose((self.template + displacement)[None], frame.pose[None])[0]
        there = apply_pose((self.template + self._moved[picked])[None], other.pose[None])[0]
        height, width = frame.pixels.shape[:2]
        rect = (*frame.origin, width, height)
        part = warp_face(self.model, target, there, other.pixels, other.origin, rect)
        return Patch(part.rgb.astype(np.float32), part.alpha * strength, part.x, part.y)

    def forget(self) -> None:
        """Nothing is kept."""

    def expect(self, key: int, picture: FacePicture) -> None:
        """No face reference is read."""
