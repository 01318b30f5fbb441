"""References that do not know the answer: neither the frame that is made nor its neighbours."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from dubbing.analysis import SpeakerTrack
from dubbing.errors import OptionInvalid
from dubbing.geometry.morphable import MorphableModel
from dubbing.persona_builder import lip_reference_frames
from dubbing.render.references import N_FACE

NEIGHBOURS = 5  # frames on either side of a target that never serve as its references
MAX_SHARE = 1 / 3  # of the usable frames that the targets of one bank may take away


@dataclass(frozen=True)
class HeldOut:
    """Targets that share one bank of lip references.

    Attributes:
        targets: frames to make; bank: lip references, none within NEIGHBOURS of a target;
        faces: {target: its face references, the nearest first}.
    """

    targets: list[int]
    bank: list[int]
    faces: dict[int, list[int]]

    @property
    def frames(self) -> set[int]:
        """Every frame whose picture is needed."""
        return {*self.targets, *self.bank, *(f for found in self.faces.values() for f in found)}


def spread(frames: Sequence[int], count: int) -> list[int]:
    """`count` of the frames, evenly, without the very ends; fewer where there are fewer."""
    places = np.linspace(0, len(frames) - 1, min(count, len(frames)) + 2)[1:-1]
    return [frames[k] for k in sorted({round(p) for p in places})]


def near(frame: int, targets: Sequence[int]) -> bool:
    """Whether a frame lies within NEIGHBOURS of one of the targets."""
    return any(abs(frame - t) <= NEIGHBOURS for t in targets)


def held_out_groups(
    model: MorphableModel, speaker: SpeakerTrack, usable: Sequence[int], targets: Sequence[int]
) -> list[HeldOut]:
    """Targets in groups that leave most of the clip as references.

    A bank is chosen as the engine chooses it, from the frames that no target of the group is near.
    A group takes targets in order while at most a third of the usable frames is lost to it.

    Args:
        model: on the CPU.

    Raises:
        OptionInvalid: the clip is too short to hold anything back.
    """
    groups: list[list[int]] = []
    for target in targets:
        joined = [*groups[-1], target] if groups else [target]
        lost = sum(near(f, joined) for f in usable)
        if groups and lost <= MAX_SHARE * len(usable):
            groups[-1] = joined
        else:
            groups.append([target])
    return [_held_out(model, speaker, usable, group) for group in groups]


def _held_out(
    model: MorphableModel, speaker: SpeakerTrack, usable: Sequence[int], targets: list[int]
) -> HeldOut:
    free = [f for f in usable if not near(f, targets)]
    if len(free) < N_FACE:
        raise OptionInvalid(
            f"{len(free)} frames are left as references",
            hint=f"a clip needs {2 * NEIGHBOURS + 1 + N_FACE} usable frames",
        )
    away = dict.fromkeys((f for f in usable if near(f, targets)), "held out")
    bank = lip_reference_frames(model, replace(speaker, reasons={**speaker.reasons, **away}))
    faces = {}
    for target in targets:
        part = speaker.part[target]
        allowed = [f for f in usable if abs(f - target) > NEIGHBOURS and speaker.part[f] == part]
        allowed = allowed or free
        faces[target] = sorted(allowed, key=lambda f: (abs(f - target), f))[:N_FACE]
    return HeldOut(targets, bank, faces)
