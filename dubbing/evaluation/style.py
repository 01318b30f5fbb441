"""Speaking style in figures: codes of the frozen style encoder, retrieval, plain facts.

StyleSim is the cosine of two style codes. A style is the manner in which a lower face moves (how
far, how wide, how crooked, how briskly), not the words.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from dubbing.errors import OptionInvalid
from dubbing.geometry.morphable import MorphableModel, eye_distance, lip_opening, lip_width
from dubbing.geometry.topology import MOUTH_LEFT, MOUTH_RIGHT
from dubbing.models.motion_statistics import WINDOW, window_starts
from dubbing.models.style_encoder import StyleEncoder, StyleEncoderConfig
from dubbing.models.style_metric import StyleMetric
from dubbing.weights import PACKAGED, load_network

STYLE = "style_encoder"  # kind of the checkpoint
MIN_FRAMES = 20  # known ones in a window, 0.8 s: less shows no style
REST_SHARE = 0.1  # of the frames, least open, that show the resting mouth


def load_style_encoder(path: Path = PACKAGED / f"{STYLE}.safetensors") -> StyleEncoder:
    """The frozen style encoder; by default the packaged one.

    Raises:
        CheckpointNotFound, CheckpointCorrupt: see `load_checkpoint`.
    """
    return load_network(path, STYLE, StyleEncoder, StyleEncoderConfig)


def lower_motion(model: MorphableModel, beta: Tensor) -> Tensor:
    """What a style code is computed from: expressions [T, E] -> [T, L, 3] displacements from the
    template of the vertices that stage 1 generates (`model.lower` > 0), without head pose."""
    index = model.lower.gt(0).nonzero()[:, 0]
    return torch.einsum("te,elc->tlc", beta, model.expression[:, index])


@torch.inference_mode()
def style_code(
    encoder: StyleEncoder | StyleMetric, motion: Tensor, usable: Tensor | None = None
) -> Tensor:
    """Style code of a motion: mean of the codes of its windows of 4 s, brought to length 1.

    Args:
        motion: [T, L, 3] displacements of the lower vertices from the template at 25 Hz, tracked
            (`lower_motion`) or generated (`Motion.lower`).
        usable: [T] False where the face was not seen well.

    Returns:
        [D] of length 1, on the motion's device.

    Raises:
        OptionInvalid: less than 0.8 s of usable motion in every window, or another mesh.
    """
    vertices = encoder.config.lower_vertices
    if motion.shape[1:] != (vertices, 3):
        raise OptionInvalid(
            f"the style encoder wants motion of {vertices} vertices, got {tuple(motion.shape)}",
            hint="use the morphable model that it was trained with",
        )
    if usable is None:
        usable = torch.ones(len(motion), dtype=torch.bool, device=motion.device)
    starts = window_starts(len(motion))
    spans = [slice(s, s + WINDOW) for s in starts if usable[s : s + WINDOW].sum() >= MIN_FRAMES]
    if not spans:
        raise OptionInvalid(
            f"{int(usable.sum())} usable frames at 25 Hz are too few to show a style",
            hint=f"give at least {MIN_FRAMES} within 4 s",
        )
    codes = torch.cat([encoder(motion[None, s], usable[None, s]) for s in spans])
    return F.normalize(codes.mean(0), dim=0)


def style_similarity(a: Tensor, b: Tensor) -> float:
    """StyleSim: cosine in -1..1 of two codes [D]."""
    return float(F.cosine_similarity(a, b, dim=0))


@dataclass(frozen=True)
class Retrieval:
    """How well codes of clips find other clips of the same speaker.

    Attributes:
        clips, speakers: how many clips are searched, and how many speakers have two or more (only
            their clips are asked for; clips of others are there to be confused with).
        top1, top5: share of the clips whose nearest (one of whose five nearest) other clips is of
            the same speaker; mean over speakers of the mean over their clips.
        chance1, chance5: the same for a search that guesses.
        same, other: mean cosine of two clips of one speaker, and of two speakers; every speaker
            (pair of speakers) counts alike.
    """

    clips: int
    speakers: int
    top1: float
    top5: float
    chance1: float
    chance5: float
    same: float
    other: float

    def to_dict(self) -> dict[str, float | int]:
        return asdict(self)


def retrieval(codes: Tensor, owners: Sequence[str]) -> Retrieval:
    """Search every clip's speaker among the other clips.

    Args:
        codes: [N, D], compared by their cosine; owners: N speakers.

    Raises:
        OptionInvalid: no speaker has two clips, or there is only one speaker.
    """
    counts = Counter(owners)
    people = sorted(counts)
    asked = [p for p in people if counts[p] > 1]
    if not asked or len(people) < 2:
        raise OptionInvalid(
            f"{len(owners)} clips of {len(people)} speakers can't be searched",
            hint="give two or more speakers, one of them with two or more clips",
        )
    member = torch.tensor([people.index(o) for o in owners])
    codes = F.normalize(codes, dim=1)
    cosines = codes @ codes.T
    own = member[:, None] == member[None]
    own.fill_diagonal_(False)
    order = cosines.clone().fill_diagonal_(-2).argsort(1, descending=True)[:, :-1]
    hit = own.gather(1, order)
    first = hit[:, 0].float()
    fifth = hit[:, :5].any(1).float()
    guess1 = own.float().mean(1) * len(owners) / (len(owners) - 1)
    guess5 = torch.tensor([_guess(int(k), len(owners) - 1, 5) for k in own.sum(1)])
    of = {p: member == people.index(p) for p in people}

    def per_speaker(values: Tensor) -> float:
        return float(torch.stack([values[of[p]].mean() for p in asked]).mean())

    blocks = torch.stack(
        [torch.stack([cosines[of[p]][:, of[q]].mean() for q in people]) for p in people]
    )
    apart = ~torch.eye(len(people), dtype=torch.bool)
    same = torch.stack([cosines[own & of[p][:, None]].mean() for p in asked]).mean()
    return Retrieval(
        len(owners), len(asked), per_speaker(first), per_speaker(fifth), per_speaker(guess1),
        per_speaker(guess5), float(same), float(blocks[apart].mean()),
    )  # fmt: skip


def _guess(own: int, others: int, tries: int) -> float:
    """Chance that `tries` of `others` clips drawn without repetition hold one of `own`."""
    missed = 1.0
    for k in range(min(tries, others)):
        missed *= max(others - own - k, 0) / (others - k)
    return 1 - missed


def statistics_codes(motions: Sequence[Tensor], usable: Sequence[Tensor]) -> Tensor:
    """The baseline: mean and deviation over time of every vertex, each number standardised over
    the clips; motions [T, L, 3] -> [N, 6 L] of length 1."""
    rows = []
    for motion, known in zip(motions, usable, strict=True):
        flat = motion[known].flatten(1)
        rows.append(torch.cat([flat.mean(0), flat.std(0)]))
    table = torch.stack(rows)
    return F.normalize((table - table.mean(0)) / table.std(0).clamp_min(1e-9), dim=1)


@dataclass(frozen=True)
class StyleFacts:
    """A manner of speaking in numbers that can be read; lengths in outer-eye distances.

    Attributes:
        opening: how far the mouth opens: 90th less 10th percentile of the inner lips' distance.
        rest: distance of the inner lips in the tenth of the frames that is least open.
        width: mean distance of the mouth corners, over that of the template (above 1: spread).
        width_range: 90th less 10th percentile of that ratio.
        tilt: mean height of the right corner (in an unmirrored picture) over the left one, both
            measured from the template: a mouth that is drawn up on one side.
        pace: mean speed of the opening per second, over `opening`: brisk or slow.
    """

    opening: float
    rest: float
    width: float
    width_range: float
    tilt: float
    pace: float

    def to_dict(self) -> dict[str, float]:
        return asdict(self)


def style_facts(
    motion: Tensor, template: Tensor, lower: Tensor, usable: Tensor | None = None
) -> StyleFacts:
    """Readable facts of a motion.

    Args:
        motion: [T, L, 3] displacements of the lower vertices from the template at 25 Hz.
        template: [V, 3] neutral face; lower: [L] the vertices that are displaced.
        usable: [T] False where the face was not seen well.

    Raises:
        OptionInvalid: less than 0.8 s of usable motion.
    """
    if usable is None:
        usable = torch.ones(len(motion), dtype=torch.bool)
    if int(usable.sum()) < MIN_FRAMES:
        raise OptionInvalid(f"{int(usable.sum())} usable frames at 25 Hz are too few",
                            hint=f"give at least {MIN_FRAMES}")  # fmt: skip
    faces = template.expand(len(motion), -1, -1).clone()
    faces[:, lower] += motion
    opening, width = lip_opening(faces), lip_width(faces) / lip_width(template)
    moved = faces - template
    lift = (moved[:, MOUTH_LEFT, 1] - moved[:, MOUTH_RIGHT, 1]) / eye_distance(template)
    both = usable[1:] & usable[:-1]
    pace = opening.diff().abs()[both].mean() * 25 if both.any() else opening.new_zeros(())
    opening, width = opening[usable], width[usable]
    span = opening.quantile(0.9) - opening.quantile(0.1)
    least = opening <= opening.quantile(REST_SHARE)
    return StyleFacts(
        opening=float(span),
        rest=float(opening[least].mean()),
        width=float(width.mean()),
        width_range=float(width.quantile(0.9) - width.quantile(0.1)),
        tilt=float(lift[usable].mean()),
        pace=float(pace / span.clamp_min(1e-4)),
    )
