"""A speaker prepared once for many dubs: shape, style, template, reference bank, in one file."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor

from dubbing.adaptation import Adaptation
from dubbing.errors import InputNotFound, PersonaInvalid
from dubbing.persona_schema import check_persona
from dubbing.render.pictures import FacePicture
from dubbing.report import save_bytes
from dubbing.style_reference import StyleReference
from dubbing.tensor_file import BadFileError, json_object, read_tensor_file

FORMAT = "4"
KNOWN = ("1", "2", "3", "4")
"""1 had no adaptation, 2 no cuts, notes and banks per shot, 3 did not know which style expressions
follow each other."""


@dataclass(frozen=True)
class Persona:
    """What is kept of a speaker. Tensors lie on the CPU.

    Attributes:
        alpha: [S] shape; template: [V, 3] neutral face (paper: {mean(alpha), 0, 0}).
        style: the speaker's own motion; the style embedding is computed from it with the weights in
            use, so that the file outlives a checkpoint.
        rest: [E] expression of the resting, closed mouth.
        bank: lip references (paper: taken evenly over all frames in the order of opening),
            registered to each other.
        bank_frames: their frame numbers in the source video.
        morphable: hash of the morphable model that the coefficients belong to.
        source: fingerprint of the video; a dub of the same file reuses `track_*`.
        track_ids: the speaker's face tracks there; track_frames, track_parts [T]: video frame and
            track of each row of track_beta [T, E], track_pose [T, 6] and track_error [T].
        frames: frames of the video; faults: {frame: why it passes through}.
        cuts: first frames of later shots.
        notes: what a user should know about how the speaker was found.
        shot_banks: {face track: lip references from that shot alone}, where the video has several
            shots and one of them is long enough; the other shots use `bank`.
        adaptation: what came of learning from the video's own speech; None where nobody asked.
    """

    alpha: Tensor
    template: Tensor
    style: StyleReference
    rest: Tensor
    bank: list[FacePicture]
    bank_frames: list[int]
    morphable: str
    source: str
    track_ids: list[int]
    track_frames: Tensor
    track_parts: Tensor
    track_beta: Tensor
    track_pose: Tensor
    track_error: Tensor
    frames: int
    faults: dict[int, str]
    adaptation: Adaptation | None = None
    cuts: list[int] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    shot_banks: dict[int, list[FacePicture]] = field(default_factory=dict)

    def usable_rows(self) -> tuple[list[int], list[int]]:
        """Video frames in which the face was seen well, in order, and their rows of `track_*`."""
        row_of = {frame: row for row, frame in enumerate(self.track_frames.tolist())}
        frames = [frame for frame in sorted(row_of) if frame not in self.faults]
        return frames, [row_of[frame] for frame in frames]

    def save(self, path: str | Path) -> None:
        """Write the persona file by atomic rename.

        Raises:
            OutputUnwritable, DiskFull: see `save_bytes`.
        """
        save_bytes(path, self.to_bytes())

    @property
    def sha256(self) -> str:
        """Hex digest of the persona's file."""
        return hashlib.sha256(self.to_bytes()).hexdigest()

    def to_bytes(self) -> bytes:
        """Content of the persona's file."""
        tensors = {
            "alpha": self.alpha,
            "template": self.template,
            "style": self.style.expressions,
            "rest": self.rest,
            "track_frames": self.track_frames,
            "track_parts": self.track_parts,
            "track_beta": self.track_beta,
            "track_pose": self.track_pose,
            "track_error": self.track_error,
        } | _bank_tensors("bank", self.bank)
        for track, bank in self.shot_banks.items():
            tensors |= _bank_tensors(f"shot{track}", bank)
        if self.adaptation is not None:
            tensors |= {f"adapt_{k}": v for k, v in self.adaptation.changes.items()}
        facts = {
            "adaptation": self.adaptation.facts() if self.adaptation else None,
            "format": FORMAT,
            "morphable": self.morphable,
            "source": self.source,
            "track_ids": self.track_ids,
            "frames": self.frames,
            "faults": {str(k): v for k, v in self.faults.items()},
            "bank_frames": self.bank_frames,
            "bank_origins": [list(p.origin) for p in self.bank],
            "shot_origins": {
                str(track): [list(p.origin) for p in bank]
                for track, bank in self.shot_banks.items()
            },
            "cuts": self.cuts,
            "notes": self.notes,
            "style_starts": self.style.starts,
        }
        return save({k: v.contiguous() for k, v in tensors.items()}, {"persona": json.dumps(facts)})

    @classmethod
    def load(cls, path: str | Path) -> Persona:
        """Read a persona file.

        Raises:
            InputNotFound: no such file.
            PersonaInvalid: not a persona file, of another format, or its parts don't fit.
        """
        path = Path(path)
        if not path.is_file():
            raise InputNotFound("no such persona file", path=path)
        try:
            content = read_tensor_file(path)
            facts, tensors = json_object(content.metadata.get("persona")), content.tensors
            if facts.get("format") not in KNOWN:
                raise BadFileError(f"persona format {facts.get('format')} is not known")
            check_persona(facts, tensors)
        except BadFileError as error:
            raise PersonaInvalid(
                f"not a persona file that can be used: {error}",
                path=path,
                hint="'dub persona VIDEO -o FILE' makes one",
            ) from error
        return cls(
            alpha=tensors["alpha"],
            template=tensors["template"],
            style=_style(facts, tensors),
            rest=tensors["rest"],
            bank=_bank(tensors, "bank", facts["bank_origins"]),
            bank_frames=facts["bank_frames"],
            morphable=facts["morphable"],
            source=facts["source"],
            track_ids=facts["track_ids"],
            track_frames=tensors["track_frames"],
            track_parts=tensors["track_parts"],
            track_beta=tensors["track_beta"],
            track_pose=tensors["track_pose"],
            track_error=tensors["track_error"],
            frames=facts["frames"],
            faults={int(k): v for k, v in facts["faults"].items()},
            adaptation=_adaptation(facts.get("adaptation"), tensors),
            cuts=facts.get("cuts", []),
            notes=facts.get("notes", []),
            shot_banks={
                int(track): _bank(tensors, f"shot{track}", origins)
                for track, origins in facts.get("shot_origins", {}).items()
            },
        )


def _bank_tensors(name: str, bank: list[FacePicture]) -> dict[str, Tensor]:
    tensors = {
        f"{name}_beta": torch.stack([p.beta for p in bank]),
        f"{name}_pose": torch.stack([p.pose for p in bank]),
    }
    offsets = [p.offset for p in bank if p.offset is not None]
    if len(offsets) == len(bank):
        tensors[f"{name}_offset"] = torch.stack(offsets)
    pixels = {f"{name}_pixels_{k}": torch.from_numpy(p.pixels.copy()) for k, p in enumerate(bank)}
    return tensors | pixels


def _bank(tensors: dict[str, Tensor], name: str, origins: list[list[int]]) -> list[FacePicture]:
    offset = tensors.get(f"{name}_offset")
    return [
        FacePicture(
            tensors[f"{name}_pixels_{k}"].numpy(),
            (origin[0], origin[1]),
            tensors[f"{name}_beta"][k],
            tensors[f"{name}_pose"][k],
            None if offset is None else offset[k],
        )
        for k, origin in enumerate(origins)
    ]


def _style(facts: dict[str, Any], tensors: dict[str, Tensor]) -> StyleReference:
    """The style reference; in files of an older format every expression stands for itself."""
    expressions = tensors["style"]
    return StyleReference(expressions, facts.get("style_starts", list(range(len(expressions)))))


def _adaptation(facts: dict[str, Any] | None, tensors: dict[str, Tensor]) -> Adaptation | None:
    if facts is None:
        return None
    changes = {k.removeprefix("adapt_"): v for k, v in tensors.items() if k.startswith("adapt_")}
    return Adaptation(changes, **facts)


def fingerprint(path: str | Path) -> str:
    """Identity of a file's content: size and hash of its first and last MiB."""
    path = Path(path)
    size = path.stat().st_size
    digest = hashlib.sha256(str(size).encode())
    with path.open("rb") as file:
        digest.update(file.read(2**20))
        if size > 2**21:
            file.seek(size - 2**20)
            digest.update(file.read(2**20))
    return digest.hexdigest()[:32]


def resting_expression(beta: Tensor, opening: Tensor) -> Tensor:
    """Mean expression [E] of the fifth of the frames with the smallest lip opening."""
    return beta[opening <= opening.quantile(0.2)].mean(0)
