"""A short talking puppet, its speech, and one engine for all tests of the whole path."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from engine_samples import BLANK, FRAMES, SIZE, write_clip, write_speech
from numpy.typing import NDArray

from dubbing.demo import demo_pose, demo_puppet
from dubbing.dubber import Dubber
from dubbing.persona import Persona
from dubbing.progress import StageProgress


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def every_step_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tests that act at a certain frame must not miss it on a fast machine."""
    monkeypatch.setattr(StageProgress.__init__, "__defaults__", (None, 0.0, 0))


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("engine")


@pytest.fixture(scope="session")
def pictures() -> list[NDArray[np.uint8]]:
    """The puppet speaking, [320, 320, 3] RGB, every third frame of the demo."""
    puppet = demo_puppet()
    out = []
    for k in range(FRAMES):
        picture = av.VideoFrame.from_ndarray(puppet.frame(demo_pose(k * 0.12)), "rgb24")
        out.append(picture.reformat(SIZE, SIZE).to_ndarray(format="rgb24"))
    return out


@pytest.fixture(scope="session")
def clip(folder: Path, pictures: list[NDArray[np.uint8]]) -> Path:
    """Variable frame rate: every fifth frame lasts longer. Three frames show no face."""
    shown = [np.full_like(p, 90) if k in BLANK else p for k, p in enumerate(pictures)]
    steps = [36 if k % 5 == 0 else 24 for k in range(FRAMES)]
    times = [sum(steps[:k]) for k in range(FRAMES)]
    return write_clip(folder / "clip.mp4", shown, times)


@pytest.fixture(scope="session")
def speech(folder: Path) -> Path:
    return write_speech(folder / "speech.flac", 1.0)


@pytest.fixture(scope="session")
def dubber() -> Iterator[Dubber]:
    yield Dubber.from_pretrained(device="cpu")


@pytest.fixture(scope="session")
def persona(dubber: Dubber, clip: Path) -> Persona:
    return dubber.prepare(clip)
