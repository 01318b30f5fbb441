"""Figures of the cards from the rows that their driver writes."""

from __future__ import annotations

import shutil
import stat
import time
from pathlib import Path

import pytest

from dubbing.evaluation.gpu_use import GpuUse, gpu_use

PROGRAM = """#!/bin/sh
echo "10, 0, 5, 1000"
echo "30, [N/A], 15, 3000"
printf "50, 1"
exec sleep 60
"""


def test_means_of_the_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "nvidia-smi"
    program.write_text(PROGRAM)
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    sleep = shutil.which("sleep")
    assert sleep is not None
    monkeypatch.setenv("PATH", f"{tmp_path}:{Path(sleep).parent}")
    with gpu_use() as use:
        time.sleep(0.5)
    assert (use.kernels, use.encoder, use.decoder) == (20.0, 0.0, 10.0)
    assert (use.memory_mib, use.samples) == (3000.0, 2)


def test_no_driver_no_figures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with gpu_use() as use:
        pass
    assert use == GpuUse()
