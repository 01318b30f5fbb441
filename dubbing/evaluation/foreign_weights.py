"""Weights of other people's judges, as they publish them: a torch file with a state dict."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from dubbing.checksums import file_sha256
from dubbing.errors import CheckpointCorrupt, CheckpointNotFound


def load_foreign(net: nn.Module, path: str | Path, name: str) -> str:
    """Fill `net` from a file; nothing in it is run (`weights_only`).

    Args:
        name: of the network, for errors.

    Returns:
        the first 16 digits of the file's SHA-256.

    Raises:
        CheckpointNotFound: no such file.
        CheckpointCorrupt: it does not hold this network.
    """
    path = Path(path)
    if not path.is_file():
        raise CheckpointNotFound(f"no {name} weights here", path=path)
    try:
        net.load_state_dict(torch.load(path, "cpu", weights_only=True), strict=True)
    except Exception as error:  # torch.load raises whatever unpickling meets
        raise CheckpointCorrupt(f"holds no {name} weights: {error}", path=path) from error
    return file_sha256(path)[:16]
