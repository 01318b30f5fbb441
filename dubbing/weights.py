"""Checkpoint files: safetensors with the network's kind and sizes in their header.

A checkpoint is a folder of four files, one per part of the engine, and a fifth that it may lack.
Loading needs no guess, because every file says what it is; nothing is unpickled.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors.torch import save
from torch import Tensor, nn

from dubbing.checksums import file_sha256
from dubbing.errors import CheckpointCorrupt, CheckpointNotFound
from dubbing.geometry.morphable import MorphableModel
from dubbing.geometry.topology import N_VERTICES
from dubbing.models.geometry_net import HUBERT, OWN, GeometryNet, GeometryNetConfig
from dubbing.models.renderer import Renderer, RendererConfig
from dubbing.models.speech_encoder import SpeechEncoder, SpeechEncoderConfig
from dubbing.models.style_metric import StyleMetric, StyleMetricConfig
from dubbing.speech.mel import MEL_BINS
from dubbing.tensor_file import (
    BadFileError,
    expect,
    json_object,
    read_config,
    read_tensor_file,
    within,
)
from dubbing.whole_file import whole_file

MORPHABLE, SPEECH, GEOMETRY, RENDERER = "morphable", "speech_encoder", "geometry", "renderer"
STYLE_METRIC = "style_metric"
KINDS = (MORPHABLE, SPEECH, GEOMETRY, RENDERER)
OPTIONAL = (STYLE_METRIC,)  # parts that a checkpoint may lack
PACKAGED = Path(__file__).parent / "checkpoints"
FORMAT = "1"

Network = TypeVar("Network", bound=nn.Module)


@dataclass(frozen=True)
class EngineWeights:
    """Every network of the engine, on one device, in evaluation mode."""

    morphable: MorphableModel
    speech_encoder: SpeechEncoder
    geometry: GeometryNet
    renderer: Renderer
    hashes: dict[str, str]  # file name -> first 16 hex digits of its SHA-256
    digests: dict[str, str] = field(default_factory=dict)  # file name -> its whole SHA-256
    style_metric: StyleMetric | None = None  # stays on the CPU


def save_checkpoint(
    path: Path, kind: str, config: Mapping[str, Any], state: Mapping[str, Tensor]
) -> None:
    """Write one part; the file appears complete or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    metadata = {"format": FORMAT, "kind": kind, "config": json.dumps(dict(config))}
    data = save({k: v.detach().cpu().contiguous() for k, v in state.items()}, metadata)
    with whole_file(path) as partial:
        partial.write_bytes(data)


def load_checkpoint(path: Path, kind: str) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Sizes and tensors (float32) of one part.

    Raises:
        CheckpointNotFound: no such file.
        CheckpointCorrupt: not safetensors, cut short, or of another kind.
    """
    if not path.is_file():
        raise CheckpointNotFound("no such checkpoint file", path=path)
    try:
        content = read_tensor_file(path)
        config = json_object(content.metadata.get("config", "{}"))
    except BadFileError as error:
        raise CheckpointCorrupt(
            f"not a readable checkpoint: {error}", path=path, hint="fetch the file again"
        ) from error
    metadata, state = content.metadata, content.tensors
    if metadata.get("kind") != kind:
        raise CheckpointCorrupt(f"holds {metadata.get('kind')!r}, expected {kind!r}", path=path)
    wide = {k: v.float() if v.is_floating_point() else v for k, v in state.items()}
    return config, wide


def _fill(network: nn.Module, state: dict[str, Tensor], path: Path) -> None:
    try:
        network.load_state_dict(state)
    except RuntimeError as error:
        reason = str(error).splitlines()[-1].strip()
        raise CheckpointCorrupt(f"does not fit the network: {reason}", path=path) from error
    network.eval().requires_grad_(False)


def load_morphable(path: Path) -> MorphableModel:
    """The morphable model of a checkpoint file."""
    _, state = load_checkpoint(path, MORPHABLE)
    try:
        _check_morphable(state)
    except BadFileError as error:
        raise CheckpointCorrupt(str(error), path=path) from error
    return MorphableModel.from_state_dict(state)


def _check_morphable(state: Mapping[str, Tensor]) -> None:
    sizes: dict[str, int] = {}
    expect(state, "mean", ("V", 3), sizes)
    expect(state, "shape", ("S", "V", 3), sizes)
    expect(state, "expression", ("E", "V", 3), sizes)
    expect(state, "lower", ("V",), sizes)
    for name in ("triangles", "mouth"):
        surface = expect(state, name, (name, 3), sizes, torch.int64)
        within(surface, name, 0, sizes["V"])


def save_morphable(path: Path, model: MorphableModel) -> None:
    save_checkpoint(path, MORPHABLE, {}, model.state_dict())


def load_network(
    path: Path, kind: str, network: Callable[[Any], Network], config: type[Any]
) -> Network:
    """A network of a checkpoint file, in evaluation mode and without gradients.

    Args:
        network: its class, called with an instance of the dataclass `config`.

    Raises:
        CheckpointNotFound, CheckpointCorrupt: see `load_checkpoint`.
    """
    values, state = load_checkpoint(path, kind)
    sizes = _config(config, values, path)
    try:
        filled = network(sizes)
    except (RuntimeError, ValueError, ZeroDivisionError, AssertionError) as error:
        raise CheckpointCorrupt(f"its sizes make no network: {error}", path=path) from error
    _fill(filled, state, path)
    return filled


def load_speech_encoder(path: Path) -> SpeechEncoder:
    """The speech encoder of a checkpoint file."""
    return load_network(path, SPEECH, SpeechEncoder, SpeechEncoderConfig)


def load_geometry(path: Path) -> GeometryNet:
    """The stage-1 network of a checkpoint file."""
    return load_network(path, GEOMETRY, GeometryNet, GeometryNetConfig)


def load_renderer(path: Path) -> Renderer:
    """The stage-2 network of a checkpoint file."""
    return load_network(path, RENDERER, Renderer, RendererConfig)


def load_style_metric(path: Path) -> StyleMetric:
    """The style metric of a checkpoint file."""
    return load_network(path, STYLE_METRIC, StyleMetric, StyleMetricConfig)


def save_network(path: Path, kind: str, network: nn.Module, half: bool = False) -> None:
    """Save a network that has a dataclass `config`; `half` stores its weights as float16."""
    state = network.state_dict()
    if half:
        state = {k: v.half() if v.is_floating_point() else v for k, v in state.items()}
    save_checkpoint(path, kind, asdict(network.config), state)  # type: ignore[call-overload]


def _config(kind: type[Any], values: dict[str, Any], path: Path) -> Any:
    try:
        return read_config(kind, values)
    except BadFileError as error:
        raise CheckpointCorrupt(str(error), path=path) from error


def resolve(checkpoint: str | Path) -> Path:
    """Folder of a checkpoint: "default" is the packaged one, anything else a path.

    Raises:
        CheckpointNotFound: no such folder, or a part is missing from it.
    """
    folder = PACKAGED if str(checkpoint) == "default" else Path(checkpoint)
    if not folder.is_dir():
        raise CheckpointNotFound(
            "no checkpoint of this name",
            path=checkpoint,
            hint="use 'default' or a folder with " + ", ".join(f"{k}.safetensors" for k in KINDS),
        )
    missing = [k for k in KINDS if not (folder / f"{k}.safetensors").is_file()]
    if missing:
        raise CheckpointNotFound(f"{', '.join(missing)}.safetensors missing", path=folder)
    return folder


def checkpoint_hashes(checkpoint: str | Path) -> dict[str, str]:
    """The SHA-256 of every part.

    Raises:
        CheckpointNotFound: see `resolve`.
    """
    folder = resolve(checkpoint)
    files = {k: folder / f"{k}.safetensors" for k in (*KINDS, *OPTIONAL)}
    return {k: file_sha256(path) for k, path in files.items() if k in KINDS or path.is_file()}


def load_engine(checkpoint: str | Path, device: torch.device) -> EngineWeights:
    """Load all parts of a checkpoint folder onto `device`."""
    folder = resolve(checkpoint)
    digests = checkpoint_hashes(folder)
    renderer = load_renderer(folder / f"{RENDERER}.safetensors").to(device)
    for parameter in renderer.parameters():  # convolutions are faster with channels last
        if parameter.dim() == 4:
            parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)
    path = folder / f"{STYLE_METRIC}.safetensors"
    metric = load_style_metric(path) if STYLE_METRIC in digests else None
    loaded = EngineWeights(
        load_morphable(folder / f"{MORPHABLE}.safetensors").to(device),
        load_speech_encoder(folder / f"{SPEECH}.safetensors").to(device),
        load_geometry(folder / f"{GEOMETRY}.safetensors").to(device),
        renderer,
        {k: digest[:16] for k, digest in digests.items()},
        digests,
        metric,
    )
    _check_together(loaded, folder)
    return loaded


def _check_together(engine: EngineWeights, folder: Path) -> None:
    """Make sure that the parts belong to one mesh and one set of speech features."""
    vertices, geometry = engine.morphable.mean.shape[0], engine.geometry.config
    speech = engine.speech_encoder.config
    features = len({speech.frozen_layers, speech.layers}) * speech.width
    problems = {
        f"the mesh has {vertices} vertices, not {N_VERTICES}": vertices != N_VERTICES,
        f"stage 1 is for {geometry.vertices} vertices": geometry.vertices != vertices,
        "stage 1 moves vertices that the mesh does not have": not _inside(engine, vertices),
        f"stage 1 knows no features {geometry.features!r}": geometry.features not in (OWN, HUBERT),
        f"stage 1 takes {geometry.audio_size} speech features, the encoder gives {features}": (
            geometry.features == OWN and geometry.audio_size != features
        ),
        f"the encoder takes {speech.mel_bins} rows of the spectrum": speech.mel_bins != MEL_BINS,
    }
    metric, lower = engine.style_metric, engine.geometry.lower.cpu()
    problems["its style metric looks at other vertices than stage 1 moves"] = (
        metric is not None and not torch.equal(metric.lower, lower)
    )
    for problem, holds in problems.items():
        if holds:
            raise CheckpointCorrupt(f"its parts don't belong together: {problem}", path=folder)


def _inside(engine: EngineWeights, vertices: int) -> bool:
    lower = engine.geometry.lower
    return bool(lower.numel()) and int(lower.min()) >= 0 and int(lower.max()) < vertices
