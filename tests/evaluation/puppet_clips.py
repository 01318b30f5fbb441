"""Clips of the demo's speaker for the tests that compare finished videos."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path

import cv2
import numpy as np
from evaluation_samples import RATE, write_clip

from dubbing.demo import demo_pose, demo_puppet, demo_speech
from dubbing.media.audio import load_speech
from dubbing.puppet import PortraitPuppet

FRAMES, SIDE = 36, 272
Picture = np.ndarray


@cache
def puppet() -> PortraitPuppet:
    return demo_puppet()


@cache
def speech() -> np.ndarray:
    """Int16 samples of the shipped speech at 16 kHz."""
    return (load_speech(demo_speech()) * 32767).astype(np.int16)


def puppet_pictures(start: float, frozen: bool = False, frames: int = FRAMES) -> list[Picture]:
    """Pictures from `start` seconds of the demo on; `frozen` holds the mouth."""
    found = []
    for k in range(frames):
        pose = demo_pose(start + k / 25)
        if frozen:
            pose = replace(pose, mouth=0.0, narrow=0.0)
        picture = puppet().frame(pose)
        found.append(cv2.resize(picture, (SIDE, SIDE), interpolation=cv2.INTER_AREA))
    return found


def puppet_clip(
    path: Path,
    start: float,
    change: Callable[[list[Picture]], list[Picture]] | None = None,
    frozen: bool = False,
    frames: int = FRAMES,
) -> Path:
    """A clip with sound; `change` is applied to its pictures."""
    pictures = puppet_pictures(start, frozen, frames)
    part = speech()[round(start * RATE) : round((start + frames / 25) * RATE)]
    return write_clip(
        path, pictures if change is None else change(pictures), part, codec="libx264",
        fmt="yuv420p", crf=4,
    )  # fmt: skip
