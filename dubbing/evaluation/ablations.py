"""What each part of the method is worth: the paper's table 4, and what this engine adds to it."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from dubbing.analysis import SpeakerTrack
from dubbing.dubber import Dubber
from dubbing.evaluation import summaries
from dubbing.evaluation.clips import Clip
from dubbing.evaluation.face_protocols import SELF, FaceBench, held_out, own_motion
from dubbing.evaluation.held_out import HeldOut, held_out_groups, near
from dubbing.evaluation.protocols import Row, real_motion
from dubbing.evaluation.sections import Section
from dubbing.evaluation.style import style_code, style_similarity
from dubbing.geometry.morphable import MorphableModel
from dubbing.models.style_encoder import StyleEncoder
from dubbing.options import DubOptions
from dubbing.persona import Persona
from dubbing.render.ablation import FULL, RenderAblation
from dubbing.render.pictures import FacePicture
from dubbing.render.references import N_BANK, N_FACE
from dubbing.render.session import RenderSession

STYLE_SIM = "StyleSim"

COLUMNS = {  # of the table: of a clip's row
    "PSNR lower face, dB": f"{SELF}psnr",
    "PSNR, tracked geometry": "psnr",
    "ST-LPIPS": f"{SELF}st-lpips",
    "ST-LPIPS mouth": f"{SELF}st-lpips mouth",
    "identity distance / real": f"{SELF}identity",
    "sharpness mouth": f"{SELF}sharp mouth",
    STYLE_SIM: STYLE_SIM,
}


@dataclass(frozen=True)
class Variant:
    """The method without one of its parts.

    Attributes:
        name: of its line; render: what stage 2 does without; style: whether stage 1 hears of the
            speaker's style, else it speaks as the average speaker; groups: chooses references.
    """

    name: str
    render: RenderAblation = FULL
    style: bool = True
    groups: Callable[..., list[HeldOut]] = held_out_groups


def random_groups(
    model: MorphableModel, speaker: SpeakerTrack, usable: Sequence[int], targets: Sequence[int]
) -> list[HeldOut]:
    """`held_out_groups` whose references are any frames that no target is near, the same for the
    whole clip as far as the held-out frames allow."""
    made = []
    for group in held_out_groups(model, speaker, usable, targets):
        free = [f for f in usable if not near(f, group.targets)]
        drawn = random.Random(0)
        bank = drawn.sample(free, min(N_BANK, len(free)))
        faces = {t: drawn.sample(free, N_FACE) for t in group.targets}
        made.append(HeldOut(group.targets, bank, faces))
    return made


VARIANTS = {
    "full": Variant("full"),
    "style": Variant("no style", style=False),
    "face-attention": Variant("no Face-Attention", RenderAblation(face_attention=False)),
    "lip-attention": Variant("no Lip-Attention", RenderAblation(lip_attention=False)),
    "references": Variant("random references", groups=random_groups),
    "registration": Variant("no registration", RenderAblation(registration=False)),
}
"""By the part that is missing"""


class AblatedDubber(Dubber):
    """The engine whose sessions do without something."""

    def __init__(self, whole: Dubber, ablation: RenderAblation):
        super().__init__(whole.weights, whole.device, whole.checkpoint)
        self.ablation = ablation

    def session(self, persona: Persona, bank: list[FacePicture] | None = None) -> RenderSession:
        """See `Dubber.session`."""
        return RenderSession(
            self.weights.renderer, self.model, self.mesh, persona.template,
            persona.bank if bank is None else bank, self.ablation,
        )  # fmt: skip


def without(bench: FaceBench, variant: Variant) -> FaceBench:
    """The bench with a variant at work; personas are shared."""
    dubber = AblatedDubber(bench.studio.dubber, variant.render)
    return replace(
        bench,
        studio=replace(bench.studio, dubber=dubber),
        groups=variant.groups,
        speech=DubOptions(style_strength=1.0 if variant.style else 0.0),
        baselines=False,
        sheets=bench.sheets and bench.sheets / variant.name.replace(" ", "-"),
    )


def ablated(bench: FaceBench, encoder: StyleEncoder, clip: Clip, variant: Variant) -> Row:
    """Held-out frames of a clip made by a variant, from tracked geometry and from the clip's own
    sound, and how alike the lips of that sound are in style to the real ones.

    Raises:
        DubbingError: see `held_out`.
    """
    bench = without(bench, variant)
    motion = own_motion(bench.studio, clip, bench.speech)
    real = style_code(encoder, *real_motion(bench.studio, encoder, clip))
    row = held_out(bench, clip)
    likeness = style_similarity(style_code(encoder, motion.lower), real)
    return {"variant": variant.name, **row, STYLE_SIM: likeness}


def section(rows: Sequence[Row]) -> Section:
    """One line per variant, in the order of the rows: means over the clips that all have."""
    names = list(dict.fromkeys(row["variant"] for row in rows))
    shared = set.intersection(
        *({r["clip"] for r in rows if r["variant"] == name} for name in names)
    )
    lines: list[Row] = []
    for name in names:
        own = [r for r in rows if r["variant"] == name and r["clip"] in shared]
        average = {
            words: (summaries.median if "sharp" in column else summaries.mean)(own, column)
            for words, column in COLUMNS.items()
        }
        lines.append({"variant": name, **average})
    title = (
        f"Ablations: {len(shared)} clips dubbed with their own sound, no reference within 5 frames "
        "of what is made; means over clips"
    )
    return Section("ablations", title, lines, list(rows), [])
