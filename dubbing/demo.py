"""The demo: an embedded speaker says embedded words, with nothing from the user."""

from __future__ import annotations

import importlib.resources
import os
import tempfile
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

import av
import cv2
import numpy as np
from numpy.typing import NDArray

from dubbing.errors import OutputUnwritable
from dubbing.face.detector import FaceDetector
from dubbing.face.landmarks import FaceMesher
from dubbing.options import DubOptions
from dubbing.progress import ProgressCallback
from dubbing.puppet import PortraitPuppet, PuppetPose

if TYPE_CHECKING:
    from dubbing.report import DubReport

SIZE = 512  # px, width and height of the clip
PORTRAIT = (slice(0, 320), slice(65, 385))  # rows and columns of the picture: head and shoulders
SYLLABLES = (  # time in s, mouth and narrow of PuppetPose: short phrases between smiles
    *((0.5, 0.5, 0.0), (0.72, -0.8, 0.2), (0.95, 0.8, 0.0), (1.15, 0.1, 0.9), (1.4, 0.6, 0.1)),
    *((1.62, -1.0, 0.1), (1.85, 0.3, 0.7), (2.05, 0.7, 0.0), (2.3, -0.5, 0.0)),
    *((3.3, 0.9, 0.0), (3.52, -0.6, 0.4), (3.75, 0.4, 0.9), (3.95, -1.0, 0.1), (4.2, 0.7, 0.0)),
    *((4.42, 0.2, 0.5), (4.65, 1.0, 0.0), (4.9, -0.9, 0.1)),
    *((5.9, 0.4, 0.2), (6.1, -1.0, 0.2), (6.35, 0.8, 0.0), (6.6, 0.2, 1.0), (6.85, -0.4, 0.3)),
    *((7.05, 0.6, 0.0), (7.3, -1.0, 0.0)),
)
SYLLABLE_S = 0.075  # standard deviation of one mouth movement
BLINKS = (0.3, 2.75, 5.4, 7.6)  # s
BLINK_S = 0.055
CYCLE_S = 8.0  # mouth movements and blinks repeat


def demo_speech() -> Path:
    """The shipped speech: 7.7 s of synthesised English, FLAC, 16 kHz mono, CC0."""
    return Path(str(importlib.resources.files("dubbing") / "assets" / "demo_speech.flac"))


def demo_portrait() -> NDArray[np.uint8]:
    """NASA's public-domain portrait of Eileen Collins, head and shoulders: [512, 512, 3] RGB."""
    from skimage.data import astronaut

    picture: NDArray[np.uint8] = astronaut()[PORTRAIT]  # type: ignore[no-untyped-call]
    return cv2.resize(picture, (SIZE, SIZE), interpolation=cv2.INTER_LANCZOS4).astype(np.uint8)


def demo_puppet() -> PortraitPuppet:
    """The demo's speaker, ready to be posed."""
    portrait = demo_portrait()
    with FaceDetector() as detector:
        box = detector.detect(portrait)[0]
    mesher = FaceMesher()
    landmarks = mesher.landmarks(portrait, box)
    mesher.close()
    if landmarks is None:
        raise RuntimeError("the mesh network saw no face in the shipped portrait")
    return PortraitPuppet(portrait, landmarks)


def demo_pose(t: float) -> PuppetPose:
    """What the demo's speaker does at `t` seconds: calm head, phrases of speech, blinks."""

    def wave(hertz: float, phase: float) -> float:
        return float(np.sin(2 * np.pi * (hertz * t + phase)))

    cycle = t % CYCLE_S
    bells = [np.exp(-0.5 * ((cycle - at) / SYLLABLE_S) ** 2) for at, _, _ in SYLLABLES]
    mouth = sum(bell * opening for bell, (_, opening, _) in zip(bells, SYLLABLES, strict=True))
    narrow = sum(bell * lips for bell, (_, _, lips) in zip(bells, SYLLABLES, strict=True))
    blink = sum(np.exp(-0.5 * ((cycle - at) / BLINK_S) ** 2) for at in BLINKS)
    return PuppetPose(
        yaw=0.05 * wave(0.13, 0.0) + 0.02 * wave(0.37, 0.3),
        pitch=0.025 * wave(0.21, 0.15) + 0.012 * wave(0.53, 0.6),
        roll=0.018 * wave(0.17, 0.4) + 0.006 * wave(0.41, 0.1),
        shift_x=2.0 * wave(0.11, 0.25),
        shift_y=1.2 * wave(0.29, 0.5),
        mouth=float(np.clip(mouth, -1, 1)),
        narrow=float(np.clip(narrow, 0, 1)),
        blink=float(np.clip(1.15 * blink, 0, 1)),
        breath=1.0 * wave(0.25, 0.0),
    )


def make_demo_video(path: str | Path, seconds: float = 8.0, fps: int = 25) -> None:
    """Write the demo's speaker as a silent clip: H.264, 512 x 512, always the same frames.

    Args:
        path: the file to write (replaced if it exists); its suffix chooses the container.
        seconds: length; mouth movements and blinks repeat every 8 s.
        fps: frames per second.

    Raises:
        OutputUnwritable: the folder of `path` is missing or can't be written.
    """
    path = Path(path)
    puppet = demo_puppet()
    try:
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=".dub-") as folder:
            part = Path(folder) / path.name
            _encode(part, puppet, round(seconds * fps), fps)
            os.replace(part, path)
    except OSError as error:
        raise OutputUnwritable(f"can't be written: {error.strerror or error}", path=path) from error


def _encode(path: Path, puppet: PortraitPuppet, frames: int, fps: int) -> None:
    with av.open(str(path), "w") as sink:
        stream = sink.add_stream("libx264", rate=fps)
        stream.width = stream.height = SIZE
        stream.pix_fmt = "yuv420p"
        stream.options = {"crf": "14", "preset": "medium"}
        stream.codec_context.time_base = Fraction(1, fps)
        for index in range(frames):
            frame = av.VideoFrame.from_ndarray(puppet.frame(demo_pose(index / fps)), "rgb24")
            frame.pts = index
            frame.time_base = Fraction(1, fps)
            sink.mux(stream.encode(frame))
        sink.mux(stream.encode(None))


def run_demo(
    output_dir: str | Path,
    *,
    device: str = "auto",
    checkpoint: str | Path = "default",
    seconds: float = 8.0,
    progress: ProgressCallback | None = None,
) -> DubReport:
    """Make the speaker's clip, dub it with the shipped speech, and save the report.

    `output_dir` is made if needed and receives `speaker.mp4`, `dubbed.mp4` and `report.json`; the
    returned report holds their paths.

    Raises:
        OutputUnwritable: the folder can't be made or written.
        CheckpointNotFound, CheckpointCorrupt: see `Dubber.from_pretrained`.
    """
    from dubbing.dubber import Dubber

    folder = Path(output_dir)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputUnwritable(f"can't be made: {error.strerror}", path=folder) from error
    dubber = Dubber.from_pretrained(checkpoint, device=device)
    speaker = folder / "speaker.mp4"
    make_demo_video(speaker, seconds=seconds)
    options = DubOptions(overwrite=True, report=folder / "report.json")
    return dubber.dub(
        speaker, demo_speech(), folder / "dubbed.mp4", options=options, progress=progress
    )
