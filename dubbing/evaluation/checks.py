"""Whether a dub left alone what it has to leave alone: frames, times, size, upper face, sound.

Both videos are read once, frame by frame and side by side; nothing of them is kept.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import zip_longest
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from dubbing.errors import NotAVideo
from dubbing.evaluation.sound import SoundComparison, compare_sound
from dubbing.face.follower import FaceFollower
from dubbing.geometry.topology import CHIN, SUBNASALE
from dubbing.media.index import FrameIndex
from dubbing.media.reader import DecodedFrame, VideoReader
from dubbing.progress import ProgressCallback, StageProgress

MIN_PSNR_DB = 42.0
MIN_FACE_SHARE = 0.99
MATROSKA_TICK = Fraction(1, 1000)
"""Seconds: Matroska and WebM round every time stamp to 1 ms; the mp4 family is held to 0."""
NOSE_MARGIN = 0.05  # of the distance from the nose's base to the chin, above the nose's base
MAX_PSNR_DB = 100.0  # stands for "equal"

_FREE_RUNNING = ("mpegts", "mpeg", "mpegtsraw")  # their clock starts anywhere; counted from there


@dataclass
class SquaredError:
    """Squared differences of 8-bit samples, pooled over frames."""

    total: float = 0.0
    samples: int = 0

    def add(self, a: NDArray[np.uint8], b: NDArray[np.uint8]) -> None:
        """Take in two pictures of one shape."""
        if a.size:
            self.total += cv2.norm(a, b, cv2.NORM_L2SQR)
            self.samples += a.size

    @property
    def psnr(self) -> float:
        """dB of the pooled error; `MAX_PSNR_DB` where nothing differs."""
        if self.total == 0 or self.samples == 0:
            return MAX_PSNR_DB
        return min(10 * math.log10(255**2 * self.samples / self.total), MAX_PSNR_DB)


@dataclass
class PictureComparison:
    """A dub's pictures against its source's.

    Attributes:
        source_frames, output_frames: decoded frames of each.
        sizes: upright (width, height) of each.
        time_error: the largest difference of presentation times of frames of one number, seconds.
        time_tolerance: what the output's container can't avoid.
        upper: RGB error above the nose, pooled over all frames. The region is every row above the
            base of the source's nose (less `NOSE_MARGIN`), over the full width, also where a tilted
            head's cheek reaches into it; frames in which the source shows no face count whole.
        luma: the same of the luma of these RGB pictures.
        faces: frames in which the source shows a face; kept: of these, the output too.
        output_index: the output's frame times, known once it has been read to its end.
    """

    source_frames: int = 0
    output_frames: int = 0
    sizes: tuple[tuple[int, int], tuple[int, int]] = ((0, 0), (0, 0))
    time_error: Fraction = Fraction(0)
    time_tolerance: Fraction = Fraction(0)
    upper: SquaredError = field(default_factory=SquaredError)
    luma: SquaredError = field(default_factory=SquaredError)
    faces: int = 0
    kept: int = 0
    output_index: FrameIndex | None = None

    @property
    def face_share(self) -> float:
        """Share of the source's face frames that show a face in the output; 1 without any."""
        return self.kept / self.faces if self.faces else 1.0

    def verdicts(self) -> dict[str, bool]:
        """Whether each demand is met."""
        return {
            "frames": self.source_frames == self.output_frames > 0,
            "times": self.time_error <= self.time_tolerance,
            "size": self.sizes[0] == self.sizes[1],
            "face": self.face_share >= MIN_FACE_SHARE,
            "psnr": self.sizes[0] == self.sizes[1] and self.upper.psnr >= MIN_PSNR_DB,
        }

    def figures(self) -> dict[str, Any]:
        """The measured values as JSON values."""
        return {
            "source_frames": self.source_frames,
            "output_frames": self.output_frames,
            "source_size": list(self.sizes[0]),
            "output_size": list(self.sizes[1]),
            "time_error_ms": float(self.time_error * 1000),
            "time_tolerance_ms": float(self.time_tolerance * 1000),
            "psnr_above_nose_db": round(self.upper.psnr, 3),
            "psnr_above_nose_luma_db": round(self.luma.psnr, 3),
            "source_face_frames": self.faces,
            "face_share": round(self.face_share, 5),
        }


@dataclass(frozen=True)
class DubChecks:
    """Everything that is checked of one dub."""

    pictures: PictureComparison
    sound: SoundComparison

    def verdicts(self) -> dict[str, bool]:
        """Whether each demand is met."""
        return self.pictures.verdicts() | self.sound.verdicts()

    @property
    def ok(self) -> bool:
        return all(self.verdicts().values())

    def to_dict(self) -> dict[str, Any]:
        """JSON values: verdicts and figures."""
        figures = self.pictures.figures() | self.sound.figures()
        return {"ok": self.ok, "checks": self.verdicts(), **figures}


def check_dub(
    source: str | Path,
    speech: str | Path,
    output: str | Path,
    progress: ProgressCallback | None = None,
) -> DubChecks:
    """Check a dub of `source` with `speech` that is as long as the source (`--length video`).

    Raises:
        InputNotFound, NotAVideo, NoAudioStream: a file is missing or can't be decoded.
    """
    pictures = compare_pictures(source, output, progress)
    if pictures.output_index is None:
        raise NotAVideo("no frame of the picture stream decodes", path=output)
    return DubChecks(pictures, compare_sound(speech, output, pictures.output_index))


def compare_pictures(
    source: str | Path, output: str | Path, progress: ProgressCallback | None = None
) -> PictureComparison:
    """Compare two videos frame by frame, the first of one with the first of the other.

    Raises:
        InputNotFound, NotAVideo: a file is missing or can't be decoded.
    """
    found = PictureComparison()
    with (
        VideoReader(source) as given,
        VideoReader(output) as made,
        FaceFollower() as eye,
        FaceFollower() as other_eye,
    ):
        found.sizes = (given.video.display_size, made.video.display_size)
        found.time_tolerance = _tolerance(made.info.container)
        shifts = _clock_start(given), _clock_start(made)
        stage = StageProgress(progress, "check", given.estimated_frames)
        for before, after in zip_longest(given, made):
            found.source_frames += before is not None
            found.output_frames += after is not None
            if before is not None and after is not None:
                away = abs((before.time - shifts[0]) - (after.time - shifts[1]))
                found.time_error = max(found.time_error, away)
                _compare(found, before, after, eye, other_eye)
            stage.advance()
        stage.finish()
        found.output_index = made.index
    return found


def _compare(
    found: PictureComparison,
    before: DecodedFrame,
    after: DecodedFrame,
    eye: FaceFollower,
    other_eye: FaceFollower,
) -> None:
    a, b = before.rgb(), after.rgb()
    face = eye.landmarks(a)
    kept = other_eye.landmarks(b) is not None
    if face is not None:
        found.faces += 1
        found.kept += kept
    if a.shape != b.shape:
        return
    rows = len(a) if face is None else rows_above_nose(face, len(a))
    a, b = a[:rows], b[:rows]
    if rows:
        found.upper.add(a, b)
        found.luma.add(_luma(a), _luma(b))


def rows_above_nose(landmarks: NDArray[np.float32], height: int) -> int:
    """How many rows from the top of a picture lie above the nose's base, less `NOSE_MARGIN`.

    Args:
        landmarks: [478, 3] pixels; height: rows of the picture.
    """
    base, chin = float(landmarks[SUBNASALE, 1]), float(landmarks[CHIN, 1])
    return int(np.clip(np.floor(base - NOSE_MARGIN * abs(chin - base)), 0, height))


def _luma(rgb: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY).astype(np.uint8)


def _tolerance(container: str) -> Fraction:
    return MATROSKA_TICK if "matroska" in container or "webm" in container else Fraction(0)


def _clock_start(reader: VideoReader) -> Fraction:
    return reader.info.start if reader.info.container in _FREE_RUNNING else Fraction(0)
