"""Footage of a puppet that talks: pictures and sound that belong together."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

from dubbing.demo import demo_portrait
from dubbing.face.detector import FaceDetector
from dubbing.face.landmarks import FaceMesher
from dubbing.puppet import PortraitPuppet, PuppetPose

RATE, SIDE, FRAMES = 16000, 320, 26
CLIPS = 4


def small_puppet() -> PortraitPuppet:
    """The demo's speaker nearer to the camera, in a picture that is quick to warp."""
    near = demo_portrait()[48:368, 96:416]  # SIDE pixels
    with FaceDetector() as detector, FaceMesher() as mesher:
        points = mesher.landmarks(near, detector.detect(near)[0])
    assert points is not None
    return PortraitPuppet(near, points)


def loudness(clip: int) -> np.ndarray:
    """How loud a clip is and how wide its mouth, per frame [FRAMES] in 0..1."""
    time = np.arange(FRAMES) / 25
    return np.clip(np.sin(2 * np.pi * (2.3 + 0.4 * clip) * time + clip), 0, 1)


def sound(clip: int) -> np.ndarray:
    """Noise bursts as loud as the mouth is open: int16 [1, N]."""
    count = int(FRAMES / 25 * RATE)
    level = np.interp(np.arange(count) / RATE * 25, np.arange(FRAMES), loudness(clip))
    noise = np.random.default_rng(clip).normal(size=count)
    return (4000 * level * noise).clip(-32000, 32000).astype(np.int16)[None]


def write_clip(path: Path, puppet: PortraitPuppet, clip: int) -> None:
    with av.open(str(path), "w") as sink:
        video: Any = sink.add_stream("libx264", rate=25, options={"crf": "16"})
        video.width = video.height = SIDE
        video.pix_fmt = "yuv420p"
        audio: Any = sink.add_stream("pcm_s16le", rate=RATE, layout="mono")
        for k, mouth in enumerate(loudness(clip)):
            turn = 0.05 * np.sin(0.3 * k + clip)
            pose = PuppetPose(mouth=float(1.4 * mouth - 0.6), yaw=float(turn), roll=0.01 * clip)
            frame = av.VideoFrame.from_ndarray(puppet.frame(pose), "rgb24")
            frame.pts, frame.time_base = k, Fraction(1, 25)
            sink.mux(video.encode(frame))
        sink.mux(video.encode(None))
        block = av.AudioFrame.from_ndarray(sound(clip), "s16", "mono")
        block.sample_rate, block.pts, block.time_base = RATE, 0, Fraction(1, RATE)
        sink.mux(audio.encode(block))
        sink.mux(audio.encode(None))


def write_wall(path: Path) -> None:
    """A clip without a face and without sound."""
    with av.open(str(path), "w") as sink:
        stream: Any = sink.add_stream("libx264", rate=25)
        stream.width = stream.height = 64
        for k in range(14):
            picture = np.full((64, 64, 3), 80 + k, np.uint8)
            sink.mux(stream.encode(av.VideoFrame.from_ndarray(picture, "rgb24")))
        sink.mux(stream.encode(None))
