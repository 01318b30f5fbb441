"""One folder of tiny inputs for all tests of batches."""

from __future__ import annotations

from pathlib import Path

import pytest
from batch_samples import Alone, write_clip, write_pair, write_speech


@pytest.fixture(scope="session")
def alone(inputs: Path, tmp_path_factory: pytest.TempPathFactory) -> Alone:
    return Alone(inputs, tmp_path_factory.mktemp("alone"))


@pytest.fixture(scope="session")
def pair(inputs: Path) -> Path:
    """Two people side by side, among the inputs."""
    return write_pair(inputs / "pair.mp4")


@pytest.fixture(scope="session")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """a.mp4 and b.mp4 speak in one.flac and two.flac; text.mp4 and text.wav are neither."""
    folder = tmp_path_factory.mktemp("inputs")
    write_clip(folder / "a.mp4", 0.0)
    write_clip(folder / "b.mp4", 2.0)
    write_speech(folder / "one.flac", 0.3)
    write_speech(folder / "two.flac", 1.0)
    for name in ("text.mp4", "text.wav"):
        (folder / name).write_text("no picture, no sound")
    return folder
