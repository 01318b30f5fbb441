"""Made motion brought to the speaker's style, as a style metric sees it.

Stage 1, `manner` and `nuances` decide moment by moment. What they leave to the average speaker
shows over seconds: where the mouth rests, which movements go together, how brisk they are. One
affine map of the motion's main components, the same for the whole speech, is fitted so that
statistics of the made motion get the code of the speaker's own (paper section 3.1: style from the
reference clip; the map is ours). Its price keeps it small, above all where it would change the
course of opening, width and jaw, which speech decided. Statistics follow an affine map in closed
form, so that no motion is looked at while the map is fitted.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from dubbing.geometry.adam import Adam
from dubbing.geometry.lower_face import add_expressions, lower_expressions, speech_directions
from dubbing.geometry.morphable import MorphableModel
from dubbing.models.motion_statistics import WINDOW, MotionStatistics, window_starts
from dubbing.models.style_metric import StyleMetric
from dubbing.style_reference import StyleReference

MAX_WINDOWS = 200  # of a speech, spread evenly
MIN_FRAMES = 50  # of the reference and of the speech, 2 s: fewer show no style
SPOKEN = 0.5  # gate above which a frame counts as speech
SPOKEN_SHARE = 0.7  # of a window that shows a style
MIN_PIECE = 20  # frames of the reference that follow each other
PRICE = 0.1  # of the squared change of a component, in its own size
SPEECH_PRICE = 0.3  # more for opening, width and jaw, in their variances
LEAST = 1e-8  # of such a variance: what does not move has none
STEPS = 40
RATE = 0.045


def match_style(
    metric: StyleMetric,
    model: MorphableModel,
    lower: Tensor,
    index: Tensor,
    gate: Tensor,
    reference: StyleReference,
    strength: float = 1.0,
    out: Tensor | None = None,
) -> Tensor:
    """Made motion in the reference's style.

    Args:
        metric: on the CPU, for the vertices `index` [L].
        lower: [N, L, 3] made displacements at 25 Hz, at rest where nobody speaks.
        gate: [N] 0..1, where somebody speaks; elsewhere nothing is changed.
        reference: of the speaker whose style it is.
        strength: of the style: 0 changes nothing, 1 is the speaker's own.
        out: where the result goes, which may be `lower` itself; None: a new tensor.

    Returns:
        [N, L, 3]; `lower` itself where speech or reference are too short. The map is fitted on the
        CPU, whatever the device.
    """
    gate = gate.cpu()
    if strength == 0.0 or int((gate > SPOKEN).sum()) < MIN_FRAMES:
        return lower
    pieces = [(a, b) for a, b in reference.pieces if b - a >= MIN_PIECE]
    if sum(b - a for a, b in pieces) < MIN_FRAMES:
        return lower
    # expressions to components, as the metric sees them, and back
    seen = metric.components(model.expression.cpu()[:, index.cpu()])
    back = torch.linalg.pinv(seen)
    own = reference.expressions.cpu() @ seen
    made = lower_expressions(model, lower, index).cpu() @ seen
    starts = _spoken_windows(gate)
    kept = torch.linspace(0, len(starts) - 1, min(len(starts), MAX_WINDOWS)).round().long()
    shown = _statistics(metric, made, [(starts[k], len(made)) for k in kept.tolist()])
    cuts = [(a + s, b) for a, b in pieces for s in window_starts(b - a)]
    wanted = _statistics(metric, own, cuts)
    about, shift, matrix = _fitted_map(metric, shown, wanted, back @ speech_directions(model).T)
    change = (made - about) @ (matrix - torch.eye(len(matrix))) + shift
    change = strength * gate[:, None] * change
    return add_expressions(model, lower, index, (change @ back).to(lower.device), out)


def _spoken_windows(gate: Tensor) -> list[int]:
    """First frames of the windows that speech fills, or fills as much as any: a mouth at rest shows
    no style."""
    starts = window_starts(len(gate))
    spoken = [float((gate[s : s + WINDOW] > SPOKEN).float().mean()) for s in starts]
    least = min(SPOKEN_SHARE, max(spoken))
    return [s for s, share in zip(starts, spoken, strict=True) if share >= least]


def _statistics(
    metric: StyleMetric, components: Tensor, cuts: list[tuple[int, int]]
) -> MotionStatistics:
    """Statistics of windows of a motion [N, K], given by their first frame and the end of the
    piece that they lie in."""
    rows = [components[start : min(start + WINDOW, end)] for start, end in cuts]
    padded = pad_sequence(rows, batch_first=True)
    lengths = torch.tensor([len(row) for row in rows])
    known = (torch.arange(padded.shape[1]) < lengths[:, None]).to(padded)
    return MotionStatistics.of(metric.smooth(padded, known), known)


def _fitted_map(
    metric: StyleMetric, made: MotionStatistics, own: MotionStatistics, speech: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Point [K], shift [K] and matrix [K, K] of the map x -> point + shift + (x - point) @ matrix.

    Args:
        speech: [K, 3] opening, width and jaw of a component.
    """
    # gradients are needed whatever mode the caller runs in
    with torch.inference_mode(False), torch.enable_grad():
        made, own = (
            MotionStatistics(s.mean.clone(), s.covariance.clone(), s.pace.clone())
            for s in (made, own)
        )
        speech = speech.clone()
        about = made.mean.mean(0)
        aim = F.normalize(metric.code(own).mean(0), dim=0).detach()
        away = made.mean - about
        spread = made.covariance.mean(0) + away.T @ away / len(away)
        variance = _along(spread, speech).clamp_min(LEAST)
        unit = torch.eye(len(about))
        change = torch.zeros_like(unit).requires_grad_()
        shift = torch.zeros_like(about).requires_grad_()
        descents = [Adam(change, RATE), Adam(shift, RATE)]
        for _ in range(STEPS):
            code = F.normalize(metric.code(made.moved(about, shift, unit + change)).mean(0), dim=0)
            price = PRICE * (change.square().sum() + shift.square().sum())
            bent = _along(spread, change @ speech) + (shift @ speech).square()
            price = price + SPEECH_PRICE * (bent / variance).sum()
            torch.autograd.backward(1 - code @ aim + price)
            for descent in descents:
                descent.step()
        return about, shift.detach(), (unit + change).detach()


def _along(covariance: Tensor, directions: Tensor) -> Tensor:
    """Variances [J] of a motion [K, K] along directions [K, J]."""
    return torch.einsum("kj,kl,lj->j", directions, covariance, directions)
