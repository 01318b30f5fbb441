"""ST-LPIPS with its published weights, which are not shipped: a file of the user's."""

from __future__ import annotations

import hashlib
import io
import zipfile
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dubbing.errors import CheckpointCorrupt, CheckpointNotFound
from dubbing.models.shift_tolerant import ShiftTolerantDistance

MEMBER = "alex_shift_tolerant.pth"
HINT = (
    "'pip download --no-deps stlpips-pytorch==0.0.2' gives a wheel that holds the weights; "
    "the wheel itself may be given"
)
_CONVOLUTIONS = {  # ours: theirs
    "slices.0.0": "net.slice1.0",
    "slices.1.2": "net.slice2.5",
    "slices.2.2": "net.slice3.9",
    "slices.3.0": "net.slice4.11",
    "slices.4.0": "net.slice5.13",
}


class PerceptualMeter:
    """ST-LPIPS between pictures.

    Attributes:
        version: what stands in reports: metric, trunk and hash of the weights.
    """

    def __init__(self, net: ShiftTolerantDistance, digest: str):
        self._net = net.eval().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.version = f"ST-LPIPS vST0.0, AlexNet trunk, weights {digest}"

    @torch.inference_mode()
    def features(self, picture: NDArray[np.uint8]) -> list[Tensor]:
        """What `distance` compares, of a picture [H, W, 3] uint8 RGB of at least 64 px."""
        tensor = torch.from_numpy(np.ascontiguousarray(picture)).permute(2, 0, 1)[None]
        tensor = (tensor.float() / 255).contiguous(memory_format=torch.channels_last)
        found: list[Tensor] = self._net.features(tensor)
        return found

    @torch.inference_mode()
    def distance(self, a: list[Tensor], b: list[Tensor]) -> float:
        """Distance of two pictures by their `features`; 0 for equal ones, about 0.3 for others."""
        return float(self._net.compare(a, b))

    def between(self, a: NDArray[np.uint8], b: NDArray[np.uint8]) -> float:
        """Distance of two pictures [H, W, 3] of one size."""
        return self.distance(self.features(a), self.features(b))


def load_perceptual(path: str | Path) -> PerceptualMeter:
    """Read the weights from the wheel stlpips-pytorch or from its file alex_shift_tolerant.pth.

    Raises:
        CheckpointNotFound: no such file.
        CheckpointCorrupt: it does not hold these weights.
    """
    path = Path(path)
    if not path.is_file():
        raise CheckpointNotFound("no ST-LPIPS weights here", path=path, hint=HINT)
    try:
        data = _member(path)
        state = torch.load(io.BytesIO(data), "cpu", weights_only=True)
        net = ShiftTolerantDistance()
        net.load_state_dict(_translated(state))
    except Exception as error:  # torch.load raises whatever unpickling meets
        raise CheckpointCorrupt(
            f"holds no ST-LPIPS weights: {error}", path=path, hint=HINT
        ) from error
    return PerceptualMeter(net, hashlib.sha256(data).hexdigest()[:16])


def _member(path: Path) -> bytes:
    if path.suffix != ".whl":
        return path.read_bytes()
    with zipfile.ZipFile(path) as archive:
        name = next(n for n in archive.namelist() if n.endswith(MEMBER))
        return archive.read(name)


def _translated(state: dict[str, Tensor]) -> dict[str, Tensor]:
    found = {
        f"{ours}.{kind}": state[f"{theirs}.{kind}"]
        for ours, theirs in _CONVOLUTIONS.items()
        for kind in ("weight", "bias")
    }
    found |= {f"weights.{k}": state[f"lin{k}.model.1.weight"] for k in range(5)}
    found |= {name: state[f"scaling_layer.{name}"] for name in ("shift", "scale")}
    for k, theirs in ((0, "slice1.1"), (1, "slice2.4"), (2, "slice3.8")):
        found[f"slices.{k}.1.filt"] = state[f"net.{theirs}.filt"]
    return found
