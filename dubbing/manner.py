"""How far and how wide a speaker moves, brought to made motion.

Stage 1 is told the style, but what it makes stays nearer to the average speaker than the speaker
is. Mean and spread of every expression with an open mouth are brought to the speaker's own; a
closed mouth stays closed.
"""

from __future__ import annotations

from torch import Tensor

from dubbing.geometry.lower_face import add_expressions, lower_expressions
from dubbing.geometry.morphable import MorphableModel
from dubbing.geometry.topology import INNER_BOTTOM, INNER_TOP

PRIOR = 75  # frames at 25 Hz: speech of so many frames is trusted by half to show its own mean
MIN_FRAMES = 15  # with an open mouth; fewer show no manner
MAX_RATIO = 2.0  # of the spreads
OPEN = 0.18  # of the opening's range (5 to 95 % of the frames): from here on the mouth is open
WIDE = 0.3  # of that range: from here on the change is whole, below it fades to none at closure
SPEECH = 0.5  # gate above which a frame counts as speech


def match_manner(
    model: MorphableModel,
    lower: Tensor,
    index: Tensor,
    gate: Tensor,
    own: Tensor,
    strength: float = 1.0,
    out: Tensor | None = None,
) -> Tensor:
    """Made motion with mean and spread of its open mouths at the speaker's own.

    Args:
        lower: [N, L, 3] made displacements of the vertices `index` [L] at 25 Hz.
        gate: [N] 0..1, where somebody speaks.
        own: [F, E] expressions of the speaker.
        strength: of the style: 0 changes nothing, 1 is the speaker's own manner.
        out: where the result goes, which may be `lower` itself; None: a new tensor.

    Returns:
        [N, L, 3]; `lower` itself where the mouth opens too seldom to show a manner.
    """
    spoken = gate > SPEECH
    if strength == 0.0 or int(spoken.sum()) < MIN_FRAMES or len(own) < MIN_FRAMES:
        return lower
    opening = _opening(lower, index)
    openness = _share_of_range(opening, opening[spoken])
    shown = _opening(model.expression_vertices(own)[:, index], index)
    made_open = spoken & (openness > OPEN)
    real_open = _share_of_range(shown, shown) > OPEN
    if int(made_open.sum()) < MIN_FRAMES or int(real_open.sum()) < MIN_FRAMES:
        return lower
    made = lower_expressions(model, lower, index)
    mean, spread = made[made_open].mean(0), made[made_open].std(0)
    ratio = own[real_open].std(0) / spread.clamp_min(1e-6)
    ratio = ratio.clamp(1 / MAX_RATIO, MAX_RATIO)
    share = strength * int(spoken.sum()) / (int(spoken.sum()) + PRIOR)
    change = (own[real_open].mean(0) - mean) + (made - mean) * (ratio - 1)
    fade = (openness / WIDE).clamp(0, 1)[:, None]
    return add_expressions(model, lower, index, share * fade * change, out)


def _opening(displacement: Tensor, index: Tensor) -> Tensor:
    """How far [N] displacements [N, L, 3] part the inner lips."""
    top, bottom = ((index == v).nonzero()[0, 0] for v in (INNER_TOP, INNER_BOTTOM))
    parted: Tensor = displacement[:, bottom, 1] - displacement[:, top, 1]
    return parted


def _share_of_range(opening: Tensor, of: Tensor) -> Tensor:
    """`opening` with the range of `of` (5 to 95 % of the frames) as 0..1."""
    low, high = of.quantile(0.05), of.quantile(0.95)
    return (opening - low) / (high - low).clamp_min(1e-6)
