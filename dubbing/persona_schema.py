"""What a persona file has to hold."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from dubbing.geometry.topology import N_VERTICES
from dubbing.tensor_file import BadFileError, expect, within

MAX_FRAMES = 10**8
"""Frames of the video that a persona was made of: 38 days at 30 per second."""

COEFFICIENT_LIMIT = 1e4
POSE_LIMIT = 1e5
"""Pixels: faces further away than this from the picture's corner are none."""

SCALE, SCALE_LIMIT = 3, 12.0
"""Place of the logarithm of half a face's height in a pose, and its largest size: 160,000 px."""

OFFSET_LIMIT = 16.0
"""Window pixels: twice what registration allows a vertex, because a bank's offsets are centred."""

_TEXTS = ("format", "morphable", "source")
_TENSORS: dict[str, tuple[int | str, ...]] = {
    "alpha": ("S",),
    "template": ("V", 3),
    "style": ("N", "E"),
    "rest": ("E",),
    "track_beta": ("T", "E"),
    "track_pose": ("T", 6),
    "track_error": ("T",),
    "bank_beta": ("K", "E"),
    "bank_pose": ("K", 6),
}
"""Shapes: V vertices, S shape and E expression coefficients, N style frames, T track rows, K lip
references."""


def check_persona(facts: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
    """Make sure that the parts of a persona file fit together.

    Raises:
        BadFileError: names the first thing that does not.
    """
    for name in _TEXTS:
        if not isinstance(facts.get(name), str):
            raise BadFileError(f"{name} is not a text")
    sizes: dict[str, int] = {"V": N_VERTICES}
    for name, shape in _TENSORS.items():
        expect(tensors, name, shape, sizes)
        _check_values(name, tensors[name])
    for size in ("N", "T"):
        if sizes[size] == 0:
            raise BadFileError("it holds no frame")
    frames = facts.get("frames")
    if not _whole(frames, 1, MAX_FRAMES):
        raise BadFileError(f"frames is {frames!r}")
    _check_track(facts, tensors, sizes, int(str(frames)))
    if len(_numbers(facts.get("bank_frames"), "bank_frames", int(str(frames)) - 1)) != sizes["K"]:
        raise BadFileError("bank_frames and bank_beta differ in length")
    _check_bank("bank", facts.get("bank_origins"), tensors, sizes["K"])
    _check_offsets("bank", tensors, sizes["K"])
    _check_shots(facts, tensors, sizes, int(str(frames)))
    _check_starts(facts.get("style_starts"), sizes["N"])
    _check_faults(facts.get("faults"), int(str(frames)))
    _check_adaptation(facts.get("adaptation"), tensors)


def _check_values(name: str, value: Tensor) -> None:
    pose = name.endswith("pose")
    largest = POSE_LIMIT if pose else COEFFICIENT_LIMIT
    if float(value.abs().max() if value.numel() else 0.0) > largest:
        raise BadFileError(f"tensor {name} holds values over {largest:g}")
    if pose and bool((value[:, SCALE].abs() > SCALE_LIMIT).any()):
        raise BadFileError(f"tensor {name} holds faces of no size")


def _whole(value: Any, low: int, high: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and low <= value <= high


def _numbers(value: Any, name: str, high: int) -> list[int]:
    if not isinstance(value, list) or not all(_whole(item, 0, high) for item in value):
        raise BadFileError(f"{name} is not a list of whole numbers up to {high}")
    return value


def _check_track(
    facts: Mapping[str, Any], tensors: Mapping[str, Tensor], sizes: dict[str, int], frames: int
) -> None:
    ids = _numbers(facts.get("track_ids"), "track_ids", MAX_FRAMES)
    rows = expect(tensors, "track_frames", ("T",), sizes, torch.int64)
    parts = expect(tensors, "track_parts", ("T",), sizes, torch.int64)
    within(rows, "track_frames", 0, frames)
    if len(set(rows.tolist())) != len(rows):
        raise BadFileError("track_frames holds a frame twice")
    if not set(parts.tolist()) <= set(ids):
        raise BadFileError("track_parts holds a track that is not in track_ids")


def _check_bank(name: str, origins: Any, tensors: Mapping[str, Tensor], count: int) -> None:
    if not isinstance(origins, list) or len(origins) != count or count == 0:
        raise BadFileError(f"places and expressions of {name} differ in number, or there are none")
    for number, origin in enumerate(origins):
        whole = isinstance(origin, list) and all(_whole(v, -(2**20), 2**20) for v in origin)
        if not whole or len(origin) != 2:
            raise BadFileError(f"place {number} of {name} is none")
        pixels = expect(tensors, f"{name}_pixels_{number}", ("H", "W", 3), {}, torch.uint8)
        if min(pixels.shape) < 1:
            raise BadFileError(f"{name}_pixels_{number} is empty")


def _check_offsets(name: str, tensors: Mapping[str, Tensor], count: int) -> None:
    """Where the meshes of a bank lie; a file may leave it to the engine to find out."""
    if f"{name}_offset" not in tensors:
        return
    offset = expect(tensors, f"{name}_offset", ("K", "W", 2), {"K": count})
    if offset.numel() and float(offset.abs().max()) > OFFSET_LIMIT:
        raise BadFileError(f"tensor {name}_offset holds values over {OFFSET_LIMIT:g}")


def _check_shots(
    facts: Mapping[str, Any], tensors: Mapping[str, Tensor], sizes: dict[str, int], frames: int
) -> None:
    """Cuts, notes and references per shot, which format 3 brought; older files have none."""
    _numbers(facts.get("cuts", []), "cuts", frames)
    notes = facts.get("notes", [])
    if not isinstance(notes, list) or not all(isinstance(note, str) for note in notes):
        raise BadFileError("notes is not a list of texts")
    shots = facts.get("shot_origins", {})
    if not isinstance(shots, dict):
        raise BadFileError("shot_origins is not an object")
    known = {str(track) for track in facts["track_ids"]}
    for track, origins in shots.items():
        if track not in known:
            raise BadFileError(f"shot_origins names {track!r}, which is no track")
        name = f"shot{track}"
        own = {"E": sizes["E"]}
        beta = expect(tensors, f"{name}_beta", ("K", "E"), own)
        pose = expect(tensors, f"{name}_pose", ("K", 6), own)
        _check_values(f"{name}_beta", beta)
        _check_values(f"{name}_pose", pose)
        _check_bank(name, origins, tensors, own["K"])
        _check_offsets(name, tensors, own["K"])


def _check_starts(starts: Any, rows: int) -> None:
    """First rows of the pieces of the style, which format 4 brought."""
    if starts is None:
        return
    known = _numbers(starts, "style_starts", rows - 1)
    if not known or known[0] != 0 or any(a >= b for a, b in pairwise(known)):
        raise BadFileError("style_starts does not ascend from 0")


def _check_faults(faults: Any, frames: int) -> None:
    if not isinstance(faults, dict):
        raise BadFileError("faults is not an object")
    for frame, reason in faults.items():
        if not (frame.isascii() and frame.isdecimal() and len(frame) < 10 and int(frame) < frames):
            raise BadFileError(f"faults names {frame!r}, which is no frame")
        if not isinstance(reason, str):
            raise BadFileError(f"the fault of frame {frame} is not a text")


def _check_adaptation(facts: Any, tensors: Mapping[str, Tensor]) -> None:
    changes = [name for name in tensors if name.startswith("adapt_")]
    if facts is None:
        if changes:
            raise BadFileError("it holds the tensors of an adaptation, but not its facts")
        return
    if not isinstance(facts, dict):
        raise BadFileError("adaptation is not an object")
    kinds = {"weights": str, "reason": str, "speech_s": (int, float)}
    optional = ("generic", "adapted", "lag")
    for name, value in facts.items():
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        if name in kinds and isinstance(value, kinds[name]):  # type: ignore[arg-type]
            continue
        if name in optional and (value is None or number):
            continue
        raise BadFileError(f"adaptation has {name} = {value!r}")
    if changes and not all(isinstance(facts.get(k), (int, float)) for k in ("generic", "adapted")):
        raise BadFileError("adaptation changes weights, but does not say what they gain")
    for name in changes:
        if not tensors[name].is_floating_point():
            raise BadFileError(f"tensor {name} is of type {tensors[name].dtype}")
