"""Persona and checkpoint files that are damaged, or made by somebody who means harm."""

from __future__ import annotations

import ast
import json
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save

import dubbing
from dubbing.errors import CheckpointCorrupt, DubbingError, PersonaInvalid
from dubbing.evaluation.cases.registry import Bench, case, check
from dubbing.geometry.topology import FACE_OVAL, N_VERTICES
from dubbing.persona import Persona
from dubbing.render.pictures import FacePicture
from dubbing.style_reference import StyleReference
from dubbing.tensor_file import read_tensor_file
from dubbing.weights import (
    GEOMETRY,
    MORPHABLE,
    PACKAGED,
    RENDERER,
    SPEECH,
    STYLE_METRIC,
    load_engine,
    load_geometry,
    load_morphable,
    load_renderer,
    load_speech_encoder,
    load_style_metric,
)

TOPIC = "weight files"
UNSAFE_MODULES = {"pickle", "cPickle", "_pickle", "dill", "joblib", "shelve", "marshal"}


def made_up_persona(rows: int = 6, references: int = 3, expressions: int = 48) -> Persona:
    """A small persona with everything that a file holds, of nobody."""
    generator = torch.Generator().manual_seed(0)

    def some(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator) * 0.1

    poses = torch.cat([some(rows, 3), some(rows, 1) + 4.0, some(rows, 2) + 160.0], 1)
    bank = [
        FacePicture(
            np.full((40, 50, 3), 90 + k, np.uint8),
            (140, 150),
            some(expressions),
            poses[k],
            some(N_VERTICES + 2 * len(FACE_OVAL), 2),
        )
        for k in range(references)
    ]
    return Persona(
        alpha=some(40),
        template=some(N_VERTICES, 3),
        style=StyleReference(some(rows, expressions), [0, rows // 2]),
        rest=some(expressions),
        bank=bank,
        bank_frames=list(range(references)),
        morphable="0" * 16,
        source="0" * 32,
        track_ids=[0],
        track_frames=torch.arange(rows),
        track_parts=torch.zeros(rows, dtype=torch.int64),
        track_beta=some(rows, expressions),
        track_pose=poses,
        track_error=some(rows).abs(),
        frames=rows + 2,
        cuts=[rows],
        notes=["nobody speaks"],
        shot_banks={0: bank[:2]},
        faults={rows: "no face found", rows + 1: "no face found"},
    )


def persona_parts(bench: Bench) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    """Facts and tensors of a good persona file."""
    path = bench.folder / "good.persona"
    made_up_persona().save(path)
    content = read_tensor_file(path)
    return json.loads(content.metadata["persona"]), content.tensors


def write_persona(path: Path, facts: Any, tensors: dict[str, torch.Tensor]) -> Path:
    """A persona file with that content, whatever it is."""
    text = facts if isinstance(facts, str) else json.dumps(facts)
    path.write_bytes(save(tensors, {"persona": text}))
    return path


def _refused(path: Path, wanted: type[DubbingError], what: str) -> None:
    try:
        Persona.load(path)
    except wanted:
        return
    check(False, f"taken in spite of {what}")


@case(TOPIC, "personas with a part that does not fit")
def bad_personas(bench: Bench) -> str:
    facts, tensors = persona_parts(bench)
    Persona.load(write_persona(bench.folder / "same.persona", facts, tensors))
    bad_facts: dict[str, Any] = {
        "frames": [0, -1, 2**70, "9", None, True, 1.5],
        "faults": [None, {"-1": "x"}, {"9" * 30: "x"}, {"1": 2}, [1]],
        "bank_frames": [None, [], [10**30], "abc"],
        "bank_origins": [None, [], [[0, 0, 0]], [["a", 1]], {"0": 1}],
        "track_ids": [None, [], [-5], ["0"]],
        "cuts": [None, 3, [-1], [10**30], ["1"], {"0": 1}],
        "notes": [None, "text", [3], {"0": "x"}],
        "shot_origins": [None, [], {"7": [[0, 0], [0, 0]]}, {"0": []}, {"0": [[0, 0]]},
                         {"0": [[0, 0], ["a", 1]]}, {"0": {"0": [0, 0], "1": [0, 0]}}, {"x": 1}],
        "style_starts": ["0", [], [1], [0, 0], [0, 10**30]],
        "morphable": [None, 3],
        "format": [None, "99", 2],
        "adaptation": [[], {"changes": {}}, {"reason": 4}, {"unknown": 1}],
    }  # fmt: skip
    tried = 0
    for name, values in bad_facts.items():
        for value in values:
            path = write_persona(bench.folder / "x.persona", facts | {name: value}, tensors)
            _refused(path, PersonaInvalid, f"{name} = {value!r}")
            tried += 1
    for name, value in tensors.items():
        for changed in (
            value[:0],
            value[None],
            torch.cat([value, value])[:-1] if value.dim() else value[None],
            value.to(torch.int32),
            value.double() * float("inf") if value.is_floating_point() else value.bool(),
        ):
            if _any_size(name, value, changed):
                continue
            path = write_persona(
                bench.folder / "x.persona", facts, tensors | {name: changed.contiguous()}
            )
            _refused(path, PersonaInvalid, f"{name} {changed.dtype} {list(changed.shape)}")
            tried += 1
        if name.endswith("_offset"):
            continue  # the engine finds it again
        rest = {key: other for key, other in tensors.items() if key != name}
        _refused(write_persona(bench.folder / "x.persona", facts, rest), PersonaInvalid, name)
        tried += 1
    deep = "[" * 100_000
    _refused(write_persona(bench.folder / "x.persona", deep, tensors), PersonaInvalid, "deep JSON")
    return f"{tried + 1} refused, each with its reason"


def _any_size(name: str, value: torch.Tensor, changed: torch.Tensor) -> bool:
    """Whether a change of size alone is no fault: more or fewer style frames, another size of a
    reference picture, another model's shape coefficients (which the engine compares with its own).
    """
    if changed.dtype != value.dtype or changed.dim() != value.dim():
        return False
    return name == "alpha" or (
        name.startswith(("style", "bank_pixels", "shot0_pixels")) and len(changed) > 0
    )


class _Harm:
    """Writes a file when it is unpickled."""

    def __init__(self, mark: Path):
        self.mark = mark

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        return Path.touch, (self.mark,)


@case(TOPIC, "a pickle in place of a persona or checkpoint never runs")
def pickled(bench: Bench) -> str:
    mark = bench.folder / "harm"
    data = pickle.dumps(_Harm(mark))
    plain, wrapped = bench.folder / "p.persona", bench.folder / "t.persona"
    plain.write_bytes(data)
    torch.save({"persona": _Harm(mark)}, wrapped)
    for path in (plain, wrapped):
        _refused(path, PersonaInvalid, "being a pickle")
    for kind in LOADERS:
        folder = _checkpoint(bench, kind)
        (folder / f"{kind}.safetensors").write_bytes(wrapped.read_bytes())
        _refused_engine(folder, kind, f"{kind} being a pickle")
    check(not mark.exists(), "the pickle ran")
    return f"{2 + len(LOADERS)} refused, nothing ran"


def _checkpoint(bench: Bench, changed: str) -> Path:
    """A folder with the shipped checkpoint, its part `changed` as a file of its own."""
    folder = bench.folder / f"checkpoint-{changed}"
    folder.mkdir(exist_ok=True)
    for kind in LOADERS:
        place = folder / f"{kind}.safetensors"
        place.unlink(missing_ok=True)
        if kind == changed:
            shutil.copy(PACKAGED / place.name, place)
        else:
            place.symlink_to((PACKAGED / place.name).resolve())
    return folder


LOADERS: dict[str, Callable[[Path], object]] = {
    MORPHABLE: load_morphable,
    SPEECH: load_speech_encoder,
    GEOMETRY: load_geometry,
    RENDERER: load_renderer,
    STYLE_METRIC: load_style_metric,
}


def _refused_engine(folder: Path, kind: str, what: str) -> None:
    try:
        LOADERS[kind](folder / f"{kind}.safetensors")
        load_engine(folder, torch.device("cpu"))
    except CheckpointCorrupt:
        return
    check(False, f"taken in spite of {what}")


@case(TOPIC, "checkpoints that promise giant or impossible networks")
def bad_checkpoints(bench: Bench) -> str:
    tried = 0
    for kind, changes in {
        STYLE_METRIC: [{"components": 10**6}, {"coupled": -1}, {"code_size": "64"}, {"rate": 0}],
        SPEECH: [{"width": 10**9}, {"layers": 10**6}, {"heads": 0}, {"width": -4}, {"heads": "6"}],
        GEOMETRY: [{"width": 10**6}, {"features": "other"}, {"features": None}, {"heads": 0},
                   {"vertices": 467}, {"dropout": -1.0}],
        RENDERER: [{"window": 10**5}, {"decoder_width": True}, {"blur": 1e30}, {"new": 1}],
        MORPHABLE: [],
    }.items():  # fmt: skip
        folder = _checkpoint(bench, kind)
        path = folder / f"{kind}.safetensors"
        content = read_tensor_file(path)
        metadata, state = content.metadata, content.tensors
        config = json.loads(metadata["config"])
        for change in changes:
            text = json.dumps(config | change)
            path.write_bytes(save(state, metadata | {"config": text}))
            _refused_engine(folder, kind, f"{kind} {change}")
            tried += 1
        for text in ("[]", "3", "{", "[" * 100_000):
            path.write_bytes(save(state, metadata | {"config": text}))
            _refused_engine(folder, kind, f"{kind} {text[:5]}")
            tried += 1
        name = "mean" if kind == MORPHABLE else next(iter(state))
        value = state[name]
        for changed in (value[:-1], value.bool(), value[None]):
            path.write_bytes(save(state | {name: changed.contiguous()}, metadata))
            _refused_engine(folder, kind, f"{kind} {name} {list(changed.shape)}")
            tried += 1
    return f"{tried} refused"


def unsafe_uses(source: str) -> list[str]:
    """What in a Python source could unpickle: imports, and torch.load without weights_only."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found += [a.name for a in node.names if a.name.split(".")[0] in UNSAFE_MODULES]
        elif isinstance(node, ast.ImportFrom) and (node.module or "") in UNSAFE_MODULES:
            found += [a.name for a in node.names if not a.name.endswith("Error")]
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            owner = node.func.value
            named = isinstance(owner, ast.Name) and owner.id in ("torch", "np", "numpy")
            if named and node.func.attr == "load" and not _safe_load(node):
                found.append(f"{ast.unparse(node.func)} in line {node.lineno}")
    return found


def _safe_load(call: ast.Call) -> bool:
    """torch.load(weights_only=True), or numpy's load, which refuses pickles unless told."""
    given = {k.arg: k.value for k in call.keywords}
    if ast.unparse(call.func) == "torch.load":
        value = given.get("weights_only")
        return isinstance(value, ast.Constant) and value.value is True
    value = given.get("allow_pickle")
    return value is None or (isinstance(value, ast.Constant) and value.value is False)


@case(TOPIC, "no code of the engine unpickles")
def no_pickle(bench: Bench) -> str:
    root = Path(dubbing.__file__).parent
    files = [p for p in root.rglob("*.py") if p.name != Path(__file__).name]
    files += list((root / "models").resolve().glob("*.py"))
    for path in files:
        found = unsafe_uses(path.read_text())
        check(not found, f"{path.name}: {', '.join(found)}")
    check(unsafe_uses("import pickle\ntorch.load(x)\nnp.load(x, allow_pickle=True)") != [], "blind")
    return f"{len(files)} files read"
