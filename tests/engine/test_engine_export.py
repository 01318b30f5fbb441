"""`dub export onnx`: the file does what torch does, or there is no file."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from dubbing import export
from dubbing.cli import main
from dubbing.dubber import Dubber
from dubbing.errors import ExportFailed, OutputUnwritable
from dubbing.export import RendererGraph, export_renderer, largest_difference, sample_inputs


def test_the_file_does_what_torch_does(
    dubber: Dubber, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(name, reason=f"{name} is not installed (the extra 'export')")
    import onnx

    path = tmp_path / "renderer.onnx"
    assert main(["export", "onnx", str(path)]) == 0
    assert "differs from torch by" in capsys.readouterr().out
    model = onnx.load(path)
    onnx.checker.check_model(model)
    assert [i.name for i in model.graph.input] == list(sample_inputs(1, 2, 1))
    assert [o.name for o in model.graph.output] == ["window"]
    facts = json.loads(model.metadata_props[0].value)
    assert facts["window"] == [144, 192]
    graph = RendererGraph(dubber.weights.renderer)
    # sizes that the export itself never saw
    assert largest_difference(graph, path.read_bytes(), [(1, 2, 1), (3, 9, 4)]) < export.LIMIT
    with torch.no_grad():  # other weights are another graph
        other = RendererGraph(type(dubber.weights.renderer)()).eval()
    assert largest_difference(other, path.read_bytes(), [(1, 2, 1)]) > export.LIMIT


@pytest.mark.parametrize("difference", [0.01, float("nan")])
def test_a_file_that_differs_is_not_left(
    dubber: Dubber, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, difference: float
) -> None:
    monkeypatch.setattr(export, "onnx_bytes", lambda graph: b"model")
    monkeypatch.setattr(export, "largest_difference", lambda graph, data: difference)
    with pytest.raises(ExportFailed, match="differs from torch"):
        export_renderer(dubber.weights.renderer, tmp_path / "renderer.onnx")
    assert list(tmp_path.iterdir()) == []


def test_an_older_file_stays(dubber: Dubber, tmp_path: Path) -> None:
    path = tmp_path / "renderer.onnx"
    path.write_bytes(b"older")
    with pytest.raises(OutputUnwritable, match="exists"):
        export_renderer(dubber.weights.renderer, path)
    with pytest.raises(OutputUnwritable, match="does not exist"):
        export_renderer(dubber.weights.renderer, tmp_path / "no" / "renderer.onnx")
    assert path.read_bytes() == b"older"
