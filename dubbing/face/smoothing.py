"""Less jitter of a fitted face, and closures that stay closed.

A landmark network looks at every frame for itself, so its points tremble by about a thousandth of
the face's height even where nothing moves. Time filters that remove this also lift the lips where
they touch for two frames only. Here every frame moves towards a short Gaussian mean over time, but
only as far as trembling could explain: a frame whose mean lies much farther away is in motion and
stays as it was measured. No frame moves by more than half a limit.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from dubbing.geometry.morphable import MorphableModel, lip_opening, lip_width
from dubbing.geometry.pose import apply_pose
from dubbing.geometry.topology import LIPS, RIGID

SIGMA = 1.0  # frames, of the Gaussian
LIPS_SHARE = 0.02  # limit of the lips' opening and width, of their own range in the track
LIPS_FLOOR = 0.0015  # their least limit, in outer-eye distances: in a still track all is jitter
LIPS_LIMIT = 0.008  # root mean square over the lip vertices, in half face heights
EYELIDS_LIMIT = 0.004  # the same over the eyelids: blinks stay
EYELIDS = (
    33, 7, 163, 144, 145, 153, 154, 155, 133, 173, 157, 158, 159, 160, 161, 246, 263, 249, 390, 373,
    374, 380, 381, 382, 362, 398, 384, 385, 386, 387, 388, 466,
)  # fmt: skip
PART = 2000  # frames whose vertices are in memory at a time
POSE_LIMIT = 0.002  # the same over the skull's vertices, for the pose


def time_mean(values: Tensor, sigma: float = SIGMA) -> Tensor:
    """Gaussian mean over the frames of values [T, D]; the first and last frame go on beyond."""
    reach = max(round(3 * sigma), 1)
    steps = torch.arange(-reach, reach + 1).to(values)
    kernel = torch.exp(-0.5 * (steps / sigma).square())
    padded = torch.cat([values[:1].expand(reach, -1), values, values[-1:].expand(reach, -1)])
    mean: Tensor = F.conv1d(padded.T[:, None], (kernel / kernel.sum()).view(1, 1, -1))
    return mean[:, 0].T


def drawn_nearer(values: Tensor, mean: Tensor, excess: Tensor) -> Tensor:
    """Values [T, D] moved towards their `mean`; `excess` [T] is the way there in limits, and the
    way that is gone is at most half a limit (at an excess of 1) and falls to 0 beyond."""
    return values + (mean - values) / (1 + excess.square())[:, None]


def calm_expression(model: MorphableModel, template: Tensor, beta: Tensor) -> Tensor:
    """Expressions [T, E] of a track with less jitter; in no frame the lips' opening or width change
    by more than about 1 % of their range, or 0.00075 outer-eye distances where that is more."""
    mean = time_mean(beta)
    parts = [
        _changes(model, template, old, new)
        for old, new in zip(torch.split(beta, PART), torch.split(mean, PART), strict=True)
    ]
    excess, seen, changed = (torch.cat(column) for column in zip(*parts, strict=True))
    allowed = LIPS_SHARE * (seen.quantile(0.98, dim=0) - seen.quantile(0.02, dim=0))
    lips = (changed / allowed.clamp_min(LIPS_FLOOR)).amax(1)
    return drawn_nearer(beta, mean, torch.maximum(excess, lips))


def _changes(
    model: MorphableModel, template: Tensor, beta: Tensor, mean: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Of frames [T] that go from `beta` to `mean`: the way of lips and eyelids in limits [T], the
    lips' opening and width before [T, 2], and how much these change [T, 2]."""
    before, after = model.vertices(template, beta), model.vertices(template, mean)
    shift = after - before
    excess = torch.maximum(
        _spread(shift[:, list(LIPS)]) / LIPS_LIMIT, _spread(shift[:, list(EYELIDS)]) / EYELIDS_LIMIT
    )
    measures = (lip_opening, lip_width)
    seen = torch.stack([measure(before) for measure in measures], -1)
    then = torch.stack([measure(after) for measure in measures], -1)
    return excess, seen, (then - seen).abs()


def calm_pose(model: MorphableModel, pose: Tensor) -> Tensor:
    """Poses [T, 6] of a track with less jitter; the skull moves by at most half of POSE_LIMIT."""
    mean = time_mean(pose)
    skull = model.mean[list(RIGID)]
    away = [
        _spread((apply_pose(skull, new) - apply_pose(skull, old))[..., :2])
        for old, new in zip(torch.split(pose, PART), torch.split(mean, PART), strict=True)
    ]
    return drawn_nearer(pose, mean, torch.cat(away) / pose[:, 3].exp() / POSE_LIMIT)


def _spread(shift: Tensor) -> Tensor:
    """Root mean square length [T] of shifts [T, V, 2 or 3]."""
    return shift.square().sum(-1).mean(1).sqrt()
