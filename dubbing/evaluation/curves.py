"""How the lips move over time, free of head pose, and how well two such movements agree."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from dubbing.analysis import choose_speaker, find_faces, fit_speaker
from dubbing.errors import OptionInvalid
from dubbing.geometry.morphable import MorphableModel, lip_opening, lip_width
from dubbing.media.reader import VideoReader
from dubbing.motion import RATE, Motion
from dubbing.persona import Persona
from dubbing.progress import ProgressCallback, StageProgress

MAX_LAG = 10  # frames at 25 Hz on either side, 0.4 s
MAX_HOLE = 0.12  # s: over a longer hole (frames without a face) nothing is interpolated
MIN_COMMON = 25  # frames, 1 s: two curves that share less can't be compared

Curve = NDArray[np.float64]


@dataclass(frozen=True)
class LipCurve:
    """Lip movement of one face.

    Attributes:
        times: [N] seconds, strictly increasing; only moments at which the face was seen well.
        opening: [N] distance of the inner lips, in outer-eye distances of the unposed face.
        width: [N] distance of the mouth corners, likewise.
    """

    times: Curve
    opening: Curve
    width: Curve

    def shifted(self, seconds: float) -> LipCurve:
        """The same movement `seconds` later."""
        return LipCurve(self.times + seconds, self.opening, self.width)

    def until(self, end: float) -> LipCurve:
        """The part before `end` seconds."""
        kept = self.times < end
        return LipCurve(self.times[kept], self.opening[kept], self.width[kept])


@dataclass(frozen=True)
class Agreement:
    """How a made curve follows a true one, both at 25 Hz.

    Attributes:
        frames: compared moments.
        opening: Pearson correlation of the lip opening at equal times; 0 where one is constant.
        best: the highest correlation within +-`MAX_LAG` frames; being a maximum over 21 tries, it
            is above 0 for unrelated curves too, so it is read beside that of other speech.
        lag: frames by which the made curve is late there (negative: early).
        amplitude: standard deviation of the made opening over that of the true one.
        width: correlation of the mouth width at equal times.
    """

    frames: int
    opening: float
    best: float
    lag: int
    amplitude: float
    width: float

    def to_dict(self) -> dict[str, float | int]:
        return asdict(self)


def video_curve(
    path: str | Path,
    model: MorphableModel,
    template: Tensor | None = None,
    progress: ProgressCallback | None = None,
) -> LipCurve:
    """Track the largest face of a video, fit it, and measure its lips.

    Args:
        model: on the CPU.
        template: [V, 3] the face's neutral shape where it is known (the same person, another
            video), so that both curves are measured with one ruler; None estimates it.

    Returns:
        times count from the first frame; frames in which the face is not seen well are left out.

    Raises:
        InputNotFound, NotAVideo: see `VideoReader`.
        NoFaceFound: no usable face.
    """
    with VideoReader(path) as reader:
        faces = find_faces(reader, StageProgress(progress, "analyse", reader.estimated_frames))
        track = choose_speaker(faces, None, reader.path)
        speaker = fit_speaker(model, faces, track, template)
        times = _seconds(reader)
    frames = [f for f in sorted(speaker.position) if f not in speaker.reasons]
    rows = [speaker.position[f] for f in frames]
    vertices = model.vertices(speaker.fit.template, speaker.fit.beta[rows])
    return vertices_curve(vertices, times[frames])


def persona_curve(persona: Persona, video: str | Path, model: MorphableModel) -> LipCurve:
    """The curve of the very video from which a persona was prepared, without tracking it again.

    Args:
        model: on the CPU.
    """
    with VideoReader(video) as reader:
        times = _seconds(reader)
    row_of = {frame: row for row, frame in enumerate(persona.track_frames.tolist())}
    frames = [frame for frame in sorted(row_of) if frame not in persona.faults]
    rows = [row_of[frame] for frame in frames]
    vertices = model.vertices(persona.template, persona.track_beta[rows])
    return vertices_curve(vertices, times[frames])


def motion_curve(motion: Motion, template: Tensor, lower: Tensor) -> LipCurve:
    """The curve of generated motion: nothing rendered, nothing tracked.

    Args:
        template: [V, 3] neutral face; lower: [L] vertices that the motion displaces.
    """
    made = motion.lower.cpu()
    vertices = template.cpu().expand(len(made), -1, -1).clone()
    vertices[:, lower.cpu()] += made
    return vertices_curve(vertices, np.arange(len(made)) / RATE)


def vertices_curve(vertices: Tensor, times: Curve) -> LipCurve:
    """The curve of canonical faces [N, V, 3] at `times` [N] (seconds)."""
    return LipCurve(
        np.asarray(times, np.float64),
        lip_opening(vertices).double().numpy(),
        lip_width(vertices).double().numpy(),
    )


def compare_curves(truth: LipCurve, made: LipCurve, max_lag: int = MAX_LAG) -> Agreement:
    """Compare two curves over the time they share.

    Raises:
        OptionInvalid: they share less than a second.
    """
    true_opening, made_opening, true_width, made_width = _common(truth, made)
    valid = np.isfinite(true_opening) & np.isfinite(made_opening)
    frames = int(valid.sum())
    if frames < MIN_COMMON:
        raise OptionInvalid(
            f"the curves share {frames} frames at {RATE} Hz",
            hint=f"give clips of which at least {MIN_COMMON} frames can be compared",
        )
    lags = range(-max_lag, max_lag + 1)
    scores = [lagged_correlation(true_opening, made_opening, lag) for lag in lags]
    best = max(range(len(scores)), key=lambda k: (scores[k], -abs(lags[k])))
    spread = float(true_opening[valid].std())
    return Agreement(
        frames,
        correlation(true_opening, made_opening),
        scores[best],
        lags[best],
        float(made_opening[valid].std()) / spread if spread > 0 else 0.0,
        correlation(true_width, made_width),
    )


def correlation(a: Curve, b: Curve) -> float:
    """Pearson correlation over the moments at which both are finite; 0 where one is constant."""
    valid = np.isfinite(a) & np.isfinite(b)
    if valid.sum() < 3:
        return 0.0
    x, y = a[valid] - a[valid].mean(), b[valid] - b[valid].mean()
    scale = float(np.sqrt((x @ x) * (y @ y)))
    return float(x @ y) / scale if scale > 1e-12 else 0.0


def lagged_correlation(truth: Curve, made: Curve, lag: int) -> float:
    """Correlation of truth[k] with made[k + lag]: of a made curve that is `lag` frames late."""
    if lag < 0:
        return correlation(truth[-lag:], made[:lag])
    return correlation(truth[: len(truth) - lag], made[lag:])


def resample(times: Curve, values: Curve, at: Curve) -> Curve:
    """`values` at the times `at`, linear; NaN outside and inside holes above `MAX_HOLE`."""
    out = np.interp(at, times, values)
    right = np.searchsorted(times, at).clip(0, len(times) - 1)
    left = np.where(times[right] == at, right, right - 1).clip(0)
    known = (at >= times[0]) & (at <= times[-1]) & (times[right] - times[left] <= MAX_HOLE)
    return np.where(known, out, np.nan)


def _common(truth: LipCurve, made: LipCurve) -> tuple[Curve, Curve, Curve, Curve]:
    """Both openings and both widths on one 25-Hz grid."""
    if len(truth.times) == 0 or len(made.times) == 0:
        empty = np.zeros(0)
        return empty, empty, empty, empty
    start = max(truth.times[0], made.times[0])
    end = min(truth.times[-1], made.times[-1])
    first, last = int(np.ceil(start * RATE - 1e-6)), int(np.floor(end * RATE + 1e-6))
    at = np.clip(np.arange(first, last + 1) / RATE, start, max(start, end))
    return (
        resample(truth.times, truth.opening, at),
        resample(made.times, made.opening, at),
        resample(truth.times, truth.width, at),
        resample(made.times, made.width, at),
    )


def _seconds(reader: VideoReader) -> Curve:
    """Times [frames] of a video in seconds since its first frame."""
    return np.array([float(t) for t in reader.index.times])


def mean_agreement(rows: list[Agreement]) -> dict[str, float]:
    """Plain means over clips; the lag as its median."""
    means = {
        name: float(np.mean([getattr(row, name) for row in rows]))
        for name in ("opening", "best", "amplitude", "width")
    }
    return means | {"lag": float(np.median([row.lag for row in rows]))}
