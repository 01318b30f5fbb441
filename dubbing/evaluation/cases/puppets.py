"""Footage with a face: the demo's portrait speaks."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray

from dubbing.demo import demo_pose, demo_puppet, demo_speech
from dubbing.evaluation.cases.clips import ClipRecipe, make_clip, make_sound
from dubbing.media.audio import load_speech

SIZE = 320
STEP_S = 0.12
"""Of the demo's motion from one frame to the next, three times its own speed."""


def talking_pictures(frames: int, size: int = SIZE) -> list[NDArray[np.uint8]]:
    """The demo's speaker, [size, size, 3] RGB each."""
    puppet = demo_puppet()
    out = []
    for k in range(frames):
        picture = av.VideoFrame.from_ndarray(puppet.frame(demo_pose(k * STEP_S)), "rgb24")
        out.append(picture.reformat(size, size).to_ndarray(format="rgb24").astype(np.uint8))
    return out


def write_talker(path: Path, frames: int, recipe: ClipRecipe | None = None) -> Path:
    """A clip of the demo's speaker; `recipe` says how it is encoded, but not what it shows."""
    pictures = talking_pictures(frames)

    def show(index: int, fmt: str, width: int, height: int) -> av.VideoFrame:
        frame = av.VideoFrame.from_ndarray(pictures[index], "rgb24")
        return frame.reformat(width, height, fmt, dst_colorspace=1, dst_color_range=1)

    recipe = recipe or ClipRecipe(
        size=(SIZE, SIZE),
        time_base=Fraction(1, 25),
        pts=range(frames),
        options={"crf": "8", "preset": "ultrafast"},
    )
    return make_clip(path, replace(recipe, painter=show))


def write_speech(path: Path, seconds: float, start: float = 0.3) -> Path:
    """A piece of the shipped speech as 16-kHz FLAC."""
    samples = load_speech(demo_speech())
    part = samples[round(start * 16000) : round((start + seconds) * 16000)]
    return make_sound(path, "flac", part[None], 16000)
