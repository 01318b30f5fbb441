"""Logs of training as curves: what is no number is left out, and one log gives one row."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "scripts"))

from training_curves import main, panels, read_log


@pytest.fixture
def log(tmp_path: Path) -> Path:
    path = tmp_path / "renderer.csv"
    path.write_text("step,l1,psnr,held_chance1\n0,nan,28.5,0.1\n10,0.25,nan,0.1\n20,0.2,29,0.1\n")
    return path


def test_a_curve_has_the_steps_at_which_there_is_a_number(log: Path) -> None:
    curves = read_log(log)
    assert curves["l1"] == ([10.0, 20.0], [0.25, 0.2])
    assert curves["psnr"] == ([0.0, 20.0], [28.5, 29.0])
    assert panels(curves) == [("losses", ["l1"]), ("PSNR, dB", ["psnr"])]


def test_the_drawing_names_every_curve_and_is_the_same_again(log: Path, tmp_path: Path) -> None:
    for name in ("a.svg", "b.svg"):
        assert main([str(log), "--output", str(tmp_path / name)]) == 0
    drawn = (tmp_path / "a.svg").read_text()
    assert "renderer: losses" in drawn
    assert "renderer: PSNR, dB" in drawn
    assert drawn == (tmp_path / "b.svg").read_text()


def test_a_log_that_is_not_there_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        main([str(tmp_path / "none.csv"), "--output", str(tmp_path / "a.svg")])
    assert "none.csv" in capsys.readouterr().err
