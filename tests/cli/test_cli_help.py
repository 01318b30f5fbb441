"""The command line names every option, and starts without loading networks."""

from __future__ import annotations

import dataclasses
import re
import subprocess
import sys
from pathlib import Path

import pytest

from dubbing import errors
from dubbing.cli import main
from dubbing.options import DubOptions
from dubbing.training.options import (
    GeometryTrainOptions,
    PrepareOptions,
    RendererTrainOptions,
)


def help_text(capsys: pytest.CaptureFixture[str], *command: str) -> str:
    assert main([*command, "--help"]) == 0
    return " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize(
    ("command", "options"),
    [
        (("run",), DubOptions),
        (("train", "prepare"), PrepareOptions),
        (("train", "geometry"), GeometryTrainOptions),
        (("train", "renderer"), RendererTrainOptions),
    ],
)
def test_help_has_every_field_with_its_words(
    capsys: pytest.CaptureFixture[str], command: tuple[str, ...], options: type
) -> None:
    text = help_text(capsys, *command)
    for item in dataclasses.fields(options):
        assert f"--{item.name.replace('_', '-')}" in text
        assert item.metadata["help"] in text
        for choice in item.metadata["choices"]:
            assert choice in text


def test_help_of_run_has_the_options_outside_the_dataclass(
    capsys: pytest.CaptureFixture[str],
) -> None:
    text = help_text(capsys, "run")
    for flag in ("--output", "-o", "--device", "--checkpoint", "--persona", "--quiet"):
        assert flag in text
    assert "provenance" not in text  # no switch takes the marking away


@pytest.mark.parametrize("command", ["persona", "inspect", "clean", "demo", "version"])
def test_each_command_has_help(capsys: pytest.CaptureFixture[str], command: str) -> None:
    assert command in help_text(capsys, command)


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["version"]) == 0
    assert capsys.readouterr().out.strip()[0].isdigit()


@pytest.mark.parametrize("arguments", [["run"], ["run", "a.mp4", "b.wav"], ["sing"]])
def test_line_that_does_not_parse_is_2(arguments: list[str]) -> None:
    assert main(arguments) == 2


def test_import_is_light() -> None:
    code = (
        "import sys, dubbing.cli;"
        "heavy = {'torch', 'mediapipe', 'cv2', 'skimage'} & set(sys.modules);"
        "sys.exit(', '.join(heavy) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_every_kind_of_error_has_a_status_of_its_own_and_the_readme_lists_it() -> None:
    kinds = [e for e in vars(errors).values() if isinstance(e, type)]
    codes = [e.exit_code for e in kinds if issubclass(e, errors.DubbingError)]
    assert len(codes) == len(set(codes))
    readme = (Path(__file__).parents[2] / "README.md").read_text()
    table = readme.split("| exit code |", 1)[1].split("\n\n", 1)[0]
    listed = re.findall(r"\| (\d+) (?=\|)", table)
    assert sorted(map(int, listed)) == sorted(set(codes) - {errors.DubbingError.exit_code})
