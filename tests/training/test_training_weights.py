"""Checkpoint files: a round trip gives the same network; a bad file is named as such."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from synthetic_face import face_model
from torch import nn

from dubbing import weights
from dubbing.errors import CheckpointCorrupt, CheckpointNotFound
from dubbing.models.geometry_net import GeometryNet, GeometryNetConfig
from dubbing.models.renderer import Renderer, RendererConfig
from dubbing.models.speech_encoder import SpeechEncoder, SpeechEncoderConfig
from dubbing.models.style_metric import StyleMetric, StyleMetricConfig
from dubbing.weights import GEOMETRY, KINDS, MORPHABLE, RENDERER, SPEECH, STYLE_METRIC

torch.set_num_threads(1)

LOADERS = {
    SPEECH: weights.load_speech_encoder,
    GEOMETRY: weights.load_geometry,
    RENDERER: weights.load_renderer,
}


def small(kind: str) -> nn.Module:
    torch.manual_seed(0)
    if kind == SPEECH:
        return SpeechEncoder(SpeechEncoderConfig(width=16, heads=2, ffn_width=32))
    if kind == GEOMETRY:
        return GeometryNet(GeometryNetConfig(width=24, heads=4, layers=1, audio_size=32))
    return Renderer(RendererConfig(geometry_width=8, texture_width=8, decoder_width=16))


def saved(folder: Path, kind: str) -> Path:
    path = folder / f"{kind}.safetensors"
    weights.save_network(path, kind, small(kind))
    return path


def engine(folder: Path) -> Path:
    for kind in LOADERS:
        saved(folder, kind)
    weights.save_morphable(folder / f"{MORPHABLE}.safetensors", face_model())
    return folder


@pytest.mark.parametrize("kind", list(LOADERS))
def test_round_trip(tmp_path: Path, kind: str) -> None:
    network = small(kind)
    loaded = LOADERS[kind](saved(tmp_path, kind))
    assert loaded.config == network.config
    for name, value in network.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], value)
    assert not loaded.training
    assert not any(p.requires_grad for p in loaded.parameters())
    assert os.listdir(tmp_path) == [f"{kind}.safetensors"]  # no temporary file stays


def test_half_precision_halves_the_file_and_loads_as_float32(tmp_path: Path) -> None:
    full, half = tmp_path / "full.safetensors", tmp_path / "half.safetensors"
    network = small(SPEECH)
    weights.save_network(full, SPEECH, network)
    weights.save_network(half, SPEECH, network, half=True)
    assert half.stat().st_size < 0.6 * full.stat().st_size
    for name, value in weights.load_speech_encoder(half).state_dict().items():
        assert value.dtype == torch.float32
        assert torch.allclose(value, network.state_dict()[name], atol=1e-3)


def test_morphable_round_trip(tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    weights.save_morphable(path, face_model())
    loaded = weights.load_morphable(path)
    for name, value in face_model().state_dict().items():
        assert torch.equal(loaded.state_dict()[name], value)


def test_a_checkpoint_is_as_readable_as_any_file(tmp_path: Path) -> None:
    (tmp_path / "plain").write_bytes(b"")
    path = saved(tmp_path, RENDERER)
    assert path.stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_saving_replaces_as_a_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = saved(tmp_path, RENDERER)
    before = path.read_bytes()

    def full(self: Path, data: bytes) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OSError, match="No space"):
        weights.save_network(path, RENDERER, small(RENDERER))
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == [path.name]


def test_missing_file(tmp_path: Path) -> None:
    for load in (*LOADERS.values(), weights.load_morphable):
        with pytest.raises(CheckpointNotFound, match="no such checkpoint"):
            load(tmp_path / "nothing.safetensors")


@pytest.mark.parametrize("damage", ["cut", "noise", "empty", "text"])
def test_damaged_file(tmp_path: Path, damage: str) -> None:
    path = saved(tmp_path, GEOMETRY)
    data = path.read_bytes()
    path.write_bytes(
        {"cut": data[:-100], "noise": b"\xff" * 500, "empty": b"", "text": b"not a checkpoint"}[
            damage
        ]
    )
    with pytest.raises(CheckpointCorrupt) as caught:
        weights.load_geometry(path)
    assert path.name in str(caught.value)


def test_wrong_kind(tmp_path: Path) -> None:
    path = saved(tmp_path, GEOMETRY)
    with pytest.raises(CheckpointCorrupt, match="'geometry', expected 'renderer'"):
        weights.load_renderer(path)
    with pytest.raises(CheckpointCorrupt, match="expected 'morphable'"):
        weights.load_morphable(path)
    bare = tmp_path / "bare.safetensors"
    save_file({"x": torch.zeros(2)}, bare)
    with pytest.raises(CheckpointCorrupt, match="None"):
        weights.load_geometry(bare)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_values_that_are_not_finite(tmp_path: Path, value: float) -> None:
    network = small(RENDERER)
    with torch.no_grad():
        network.decoder.out.bias[1] = value
    path = tmp_path / "r.safetensors"
    weights.save_network(path, RENDERER, network)
    with pytest.raises(CheckpointCorrupt, match=r"decoder\.out\.bias .* not finite"):
        weights.load_renderer(path)
    state = {**face_model().state_dict(), "mean": face_model().mean * value}
    weights.save_checkpoint(path, MORPHABLE, {}, state)
    with pytest.raises(CheckpointCorrupt, match=r"mean .* not finite"):
        weights.load_morphable(path)


def test_sizes_that_do_not_fit(tmp_path: Path) -> None:
    path = saved(tmp_path, RENDERER)
    state = load_file(path)
    config = json.dumps({"geometry_width": 12, "texture_width": 8, "decoder_width": 16})
    save_file(state, path, {"kind": RENDERER, "config": config})
    with pytest.raises(CheckpointCorrupt, match="does not fit the network"):
        weights.load_renderer(path)
    save_file(state, path, {"kind": RENDERER, "config": json.dumps({"wings": 2})})
    with pytest.raises(CheckpointCorrupt, match="sizes are not understood"):
        weights.load_renderer(path)
    save_file(state, path, {"kind": RENDERER, "config": "{"})
    with pytest.raises(CheckpointCorrupt, match="not a readable"):
        weights.load_renderer(path)
    lacking = {k: v for k, v in face_model().state_dict().items() if k != "expression"}
    weights.save_checkpoint(path, MORPHABLE, {}, lacking)
    with pytest.raises(CheckpointCorrupt, match="expression"):
        weights.load_morphable(path)


@pytest.mark.parametrize("fits", [True, False])
def test_a_style_metric_belongs_to_the_vertices_that_move(tmp_path: Path, fits: bool) -> None:
    folder = engine(tmp_path)
    lower = weights.load_geometry(folder / f"{GEOMETRY}.safetensors").lower
    metric = StyleMetric(StyleMetricConfig(lower_vertices=len(lower)))
    metric.lower.copy_(lower if fits else lower + 1)
    weights.save_network(folder / f"{STYLE_METRIC}.safetensors", STYLE_METRIC, metric)
    if not fits:
        with pytest.raises(CheckpointCorrupt, match="style metric looks at other vertices"):
            weights.load_engine(folder, torch.device("cpu"))
        return
    loaded = weights.load_engine(folder, torch.device("cpu"))
    assert set(loaded.hashes) == {*KINDS, STYLE_METRIC}
    assert loaded.style_metric is not None
    assert torch.equal(loaded.style_metric.out[1].weight, metric.out[1].weight)


def test_engine_of_a_folder(tmp_path: Path) -> None:
    folder = engine(tmp_path)
    loaded = weights.load_engine(folder, torch.device("cpu"))
    assert set(loaded.hashes) == set(KINDS)
    assert all(len(h) == 16 for h in loaded.hashes.values())
    saved_again = weights.load_engine(str(folder), torch.device("cpu"))
    assert saved_again.hashes == loaded.hashes
    assert loaded.style_metric is None  # the one part that may be missing
    (folder / f"{GEOMETRY}.safetensors").unlink()
    with pytest.raises(CheckpointNotFound, match=r"geometry\.safetensors missing"):
        weights.load_engine(folder, torch.device("cpu"))


def test_unknown_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(CheckpointNotFound, match="use 'default' or a folder"):
        weights.resolve(tmp_path / "nowhere")
    with pytest.raises(CheckpointNotFound):
        weights.resolve("best")
