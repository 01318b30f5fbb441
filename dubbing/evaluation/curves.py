"""How the lips move over time, free of head pose, and how well two such movements agree."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from dubbing.errors import OptionInvalid
from dubbing.geometry.morphable import eye_distance, lip_opening, lip_width
from dubbing.geometry.topology import CHIN, SUBNASALE
from dubbing.moments import MAX_HOLE
from dubbing.motion import RATE

MAX_LAG = 10  # frames at 25 Hz on either side, 0.4 s
MIN_COMMON = 25  # frames, 1 s: two curves that share less can't be compared

Curve = NDArray[np.float64]


@dataclass(frozen=True)
class LipCurve:
    """Lip movement of one face.

    Attributes:
        times: [N] seconds, strictly increasing; only moments at which the face was seen well.
        opening: [N] distance of the inner lips, in outer-eye distances of the unposed face.
        width: [N] distance of the mouth corners, likewise.
        jaw: [N] distance from the base of the nose to the chin, likewise.
    """

    times: Curve
    opening: Curve
    width: Curve
    jaw: Curve

    def shifted(self, seconds: float) -> LipCurve:
        """The same movement `seconds` later."""
        return replace(self, times=self.times + seconds)

    def until(self, end: float) -> LipCurve:
        """The part before `end` seconds."""
        kept = self.times < end
        return LipCurve(*(values[kept] for values in self.values()))

    def values(self) -> tuple[Curve, Curve, Curve, Curve]:
        """Times, opening, width, jaw."""
        return self.times, self.opening, self.width, self.jaw

    def at(self, times: Curve) -> LipCurve:
        """The same movement at other times, see `resample`; NaN where it is not known."""
        known = (resample(self.times, values, times) for values in self.values()[1:])
        return LipCurve(times, *known)


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
        width, jaw: correlation of the mouth's width and of the jaw at equal times.
    """

    frames: int
    opening: float
    best: float
    lag: int
    amplitude: float
    width: float
    jaw: float

    def to_dict(self) -> dict[str, float | int]:
        return asdict(self)


def vertices_curve(vertices: Tensor, times: Curve) -> LipCurve:
    """The curve of canonical faces [N, V, 3] at `times` [N] (seconds)."""
    return LipCurve(
        np.asarray(times, np.float64),
        lip_opening(vertices).double().numpy(),
        lip_width(vertices).double().numpy(),
        jaw_drop(vertices).double().numpy(),
    )


def jaw_drop(vertices: Tensor) -> Tensor:
    """Distance [...] from the base of the nose to the chin of canonical vertices [..., V, 3], in
    outer-eye distances."""
    length: Tensor = (vertices[..., SUBNASALE, :] - vertices[..., CHIN, :]).norm(dim=-1)
    return length / eye_distance(vertices)


def compare_curves(truth: LipCurve, made: LipCurve, max_lag: int = MAX_LAG) -> Agreement:
    """Compare two curves over the time they share.

    Raises:
        OptionInvalid: they share less than a second.
    """
    truth, made = aligned(truth, made)
    valid = np.isfinite(truth.opening) & np.isfinite(made.opening)
    frames = int(valid.sum())
    if frames < MIN_COMMON:
        raise OptionInvalid(
            f"the curves share {frames} frames at {RATE} Hz",
            hint=f"give clips of which at least {MIN_COMMON} frames can be compared",
        )
    lags = range(-max_lag, max_lag + 1)
    scores = [lagged_correlation(truth.opening, made.opening, lag) for lag in lags]
    best = max(range(len(scores)), key=lambda k: (scores[k], -abs(lags[k])))
    spread = float(truth.opening[valid].std())
    return Agreement(
        frames,
        correlation(truth.opening, made.opening),
        scores[best],
        lags[best],
        float(made.opening[valid].std()) / spread if spread > 0 else 0.0,
        correlation(truth.width, made.width),
        correlation(truth.jaw, made.jaw),
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
    if len(times) == 0 or len(at) == 0:
        return np.full(len(at), np.nan)
    out = np.interp(at, times, values)
    right = np.searchsorted(times, at).clip(0, len(times) - 1)
    left = np.where(times[right] == at, right, right - 1).clip(0)
    known = (at >= times[0]) & (at <= times[-1]) & (times[right] - times[left] <= MAX_HOLE)
    return np.where(known, out, np.nan)


def aligned(truth: LipCurve, made: LipCurve) -> tuple[LipCurve, LipCurve]:
    """Both curves at the moments k / 25 s of the time they share; NaN where one is not known."""
    at = shared_moments(truth.times, made.times)
    return truth.at(at), made.at(at)


def shared_moments(a: Curve, b: Curve) -> Curve:
    """The moments k / 25 s from the later start to the earlier end of two [N] times; may be
    empty."""
    if len(a) == 0 or len(b) == 0:
        return np.zeros(0)
    start, end = max(a[0], b[0]), min(a[-1], b[-1])
    first, last = int(np.ceil(start * RATE - 1e-6)), int(np.floor(end * RATE + 1e-6))
    moments: Curve = np.clip(np.arange(first, last + 1) / RATE, start, max(start, end))
    return moments
