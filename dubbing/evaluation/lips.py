"""Figures of one dub's lips beside the real ones: curves, distance of landmarks, closures."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from dubbing.evaluation.closures import Closures, Mask, compare_closures
from dubbing.evaluation.curves import (
    Agreement,
    Curve,
    aligned,
    compare_curves,
    resample,
    shared_moments,
)
from dubbing.evaluation.faces import FaceMotion
from dubbing.geometry.morphable import eye_distance
from dubbing.geometry.topology import LIPS


def lip_distance(truth: FaceMotion, made: FaceMotion) -> float:
    """LMD: mean distance between true and made lip landmarks over the time both share.

    The landmarks are the 80 vertices of the lips (inner and outer), free of head pose; the unit is
    the distance between the outer eye corners of the true face, averaged over the time.

    Returns:
        the mean over moments (25 Hz) and landmarks; NaN if nothing is shared.
    """
    moments = shared_moments(truth.times, made.times)
    a, b = _lips(truth, moments), _lips(made, moments)
    distance = np.linalg.norm(a - b, axis=-1).mean(1)
    known = distance[np.isfinite(distance)]
    return float(known.mean() / eye_distance(truth.vertices).mean()) if len(known) else float("nan")


def lip_agreement(truth: FaceMotion, made: FaceMotion) -> Agreement:
    """See `compare_curves`."""
    return compare_curves(truth.curve, made.curve)


def lip_closures(
    truth: FaceMotion, made: FaceMotion, speech: list[tuple[float, float]] | None = None
) -> Closures:
    """See `compare_closures`.

    Args:
        speech: (start, end) in seconds on the clock of both: only closures there count.
    """
    a, b = aligned(truth.curve, made.curve)
    return compare_closures(
        a.opening, b.opening, None if speech is None else inside(a.times, speech)
    )


def inside(times: Curve, spans: list[tuple[float, float]]) -> Mask:
    """[N] moments of `times` that lie in one of the spans (start, end)."""
    found = np.zeros(len(times), bool)
    for start, end in spans:
        found |= (times >= start) & (times < end)
    return found


def _lips(faces: FaceMotion, moments: Curve) -> Any:
    """Lip vertices [N, 80, 3] at other times; NaN where they are not known."""
    points = faces.vertices[:, torch.tensor(LIPS)].double().numpy()
    flat = points.reshape(len(points), -1)
    columns = [resample(faces.times, flat[:, k], moments) for k in range(flat.shape[1])]
    return np.stack(columns, 1).reshape(len(moments), len(LIPS), 3)
