"""State files of a job: tensors, with a JSON object of facts beside them."""

from __future__ import annotations

import json
from array import array
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from dubbing.errors import UnfinishedJob
from dubbing.media.index import FrameIndex
from dubbing.report import save_bytes

FORMAT = "1"

Facts = dict[str, Any]


def save_facts(path: Path, tensors: dict[str, Tensor], facts: Facts) -> None:
    """Write both by atomic rename.

    Raises:
        OutputUnwritable, DiskFull: see `save_bytes`.
    """
    held = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    save_bytes(path, save(held, {"facts": json.dumps({"format": FORMAT, **facts})}))


def load_facts(path: Path) -> tuple[Facts, dict[str, Tensor]]:
    """Read `save_facts`' file.

    Raises:
        UnfinishedJob: it is absent, damaged or of another format.
    """
    try:
        with safe_open(path, "pt") as file:
            facts = json.loads((file.metadata() or {})["facts"])
            if facts["format"] != FORMAT:
                raise damaged(path)
            return facts, {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, KeyError, ValueError) as error:
        raise damaged(path) from error


def damaged(path: Path) -> UnfinishedJob:
    """The error of a state file that can't be used."""
    return UnfinishedJob("the state can't be read", path=path, hint="remove it with --clean")


def index_facts(index: FrameIndex) -> tuple[Facts, dict[str, Tensor]]:
    """An index as a part of a state file."""
    tensors = {
        "pts": torch.from_numpy(np.array(index.pts, np.int64)),
        "keys": torch.from_numpy(np.array(index.keys, np.int64)),
    }
    facts = {
        "time_base": str(index.time_base),
        "last_duration": index.last_duration,
        "seekable": index.seekable,
    }
    return facts, tensors


def index_of(facts: Facts, tensors: dict[str, Tensor]) -> FrameIndex:
    """The index in what `load_facts` returned."""
    pts, keys = (array("q", tensors[name].tolist()) for name in ("pts", "keys"))
    return FrameIndex(
        Fraction(facts["time_base"]), pts, keys, facts["last_duration"], facts["seekable"]
    )
