"""A speaker prepared once for many dubs: shape, style, template, reference bank, in one file."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor

from dubbing.adaptation import Adaptation
from dubbing.errors import InputNotFound, PersonaInvalid
from dubbing.persona_schema import check_persona
from dubbing.render.session import FacePicture
from dubbing.report import save_bytes
from dubbing.tensor_file import BadFileError, json_object, read_tensor_file

FORMAT = "2"
KNOWN = ("1", "2")  # 1 had no adaptation
MAX_STYLE_FRAMES = 500  # expressions kept for the style embedding


@dataclass(frozen=True)
class Persona:
    """What is kept of a speaker. Tensors lie on the CPU.

    Attributes:
        alpha: [S] shape; template: [V, 3] neutral face (paper: {mean(alpha), 0, 0}).
        style: [N, E] expressions of the speaker's own speech, from which the style embedding is
            computed (with the weights in use, so that the file outlives a checkpoint).
        rest: [E] expression of the resting, closed mouth.
        bank: lip references (paper: taken evenly over all frames in the order of opening).
        bank_frames: their frame numbers in the source video.
        morphable: hash of the morphable model that the coefficients belong to.
        source: fingerprint of the video; a dub of the same file reuses `track_*`.
        track_ids: the speaker's face tracks there; track_frames, track_parts [T]: video frame and
            track of each row of track_beta [T, E], track_pose [T, 6] and track_error [T].
        frames: frames of the video; faults: {frame: why it passes through}.
        adaptation: what came of learning from the video's own speech; None where nobody asked.
    """

    alpha: Tensor
    template: Tensor
    style: Tensor
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
            "style": self.style,
            "rest": self.rest,
            "track_frames": self.track_frames,
            "track_parts": self.track_parts,
            "track_beta": self.track_beta,
            "track_pose": self.track_pose,
            "track_error": self.track_error,
            "bank_beta": torch.stack([p.beta for p in self.bank]),
            "bank_pose": torch.stack([p.pose for p in self.bank]),
        }
        for k, picture in enumerate(self.bank):
            tensors[f"bank_pixels_{k}"] = torch.from_numpy(picture.pixels.copy())
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
        bank = [
            FacePicture(
                tensors[f"bank_pixels_{k}"].numpy(),
                (origin[0], origin[1]),
                tensors["bank_beta"][k],
                tensors["bank_pose"][k],
            )
            for k, origin in enumerate(facts["bank_origins"])
        ]
        return cls(
            alpha=tensors["alpha"],
            template=tensors["template"],
            style=tensors["style"],
            rest=tensors["rest"],
            bank=bank,
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
        )


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


def style_frames(beta: Tensor) -> Tensor:
    """At most MAX_STYLE_FRAMES of [T, E], taken evenly."""
    if len(beta) <= MAX_STYLE_FRAMES:
        return beta
    return beta[torch.linspace(0, len(beta) - 1, MAX_STYLE_FRAMES).round().long()]


def resting_expression(beta: Tensor, opening: Tensor) -> Tensor:
    """Mean expression [E] of the fifth of the frames with the smallest lip opening."""
    return beta[opening <= opening.quantile(0.2)].mean(0)
