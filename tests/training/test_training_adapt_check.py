"""The check of the renderer's adaptation judges on frames that were not learned from."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch

SCRIPT = Path(__file__).parents[2] / "scripts" / "adapt_renderer_check.py"


@pytest.fixture(scope="module")
def check() -> ModuleType:
    spec = importlib.util.spec_from_file_location("script_adapt_renderer_check", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def test_halves_keep_a_distance(check: ModuleType) -> None:
    found = [(frame, (torch.tensor(frame),)) for frame in range(0, 60, 3)]
    (early, held_late), (late, held_early) = check.halves(found)
    for kept, held in ((early, held_late), (late, held_early)):
        away = [abs(int(a[0]) - int(b[0])) for a in kept for b in held]
        assert min(away) > 5
        assert len(kept) > 5
        assert len(held) == 10


def test_both_decoders_are_judged(
    check: ModuleType, prepared: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    name = sorted(p.name.removesuffix(".crops.npz") for p in prepared.glob("*.crops.npz"))[0]
    command = [str(prepared), "--clips", name, "--cache", str(tmp_path), "--parts", "fine", "out"]
    assert check.main([*command, "--frames", "8", "--steps", "2"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split("|")[2].strip() for line in lines[2:]] == ["generic", "adapted"]
    generic, adapted = (line.split("|")[3:8] for line in lines[2:])
    assert generic != adapted
    assert 10 < float(generic[1]) < 60
    with pytest.raises(SystemExit, match="no such prepared clip"):
        check.main([str(prepared), "--clips", "nobody"])
