"""Hybrid fit of the morphable model to a track: closed form, then optimisation over the clip.

Follows "geometry estimation (hybrid)" of the paper: a direct estimate gives the initial value, an
optimisation over the whole clip with landmark, temporal and regularising terms tunes it. Ours: one
alpha per speaker, and a small constant residual on top of the shape basis, so that the template is
this person's face and not only its nearest point in the basis.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import torch
from torch import Tensor

from dubbing.face.smoothing import calm_expression, calm_pose
from dubbing.geometry.adam import Adam
from dubbing.geometry.morphable import MorphableModel, lip_opening
from dubbing.geometry.pose import align_depth, apply_pose, at_depth, remove_pose
from dubbing.geometry.topology import INNER_LIPS, LIPS, RIGID

PART = 2000  # frames whose vertices are in memory at a time


@dataclass(frozen=True)
class FitOptions:
    """Weights of the paper's terms and limits of the optimisation."""

    landmark: float = 1.0  # projected against detected landmarks
    temporal: float = 1.0  # L_tempo: velocities against detected velocities
    smooth: float = 0.2  # lambda: Laplacian of pose and expression over time
    regular: float = 0.05  # L_reg: distance from the initial values
    steps: int = 30  # Adam steps per window
    learning_rate: float = 0.01
    window: int = 600  # frames optimised at once
    overlap: int = 50  # frames shared by neighbouring windows, cross-faded
    ridge: float = 0.02  # of the linear initial value
    closed_share: float = 0.3  # of the frames, least open, that define the neutral face
    calm: bool = True  # take the landmarks' trembling out (dubbing.face.smoothing)


@dataclass(frozen=True)
class FaceFit:
    """A fitted track.

    Attributes:
        alpha: [S] shape coefficients.
        template: [V, 3] the speaker's neutral face (shape basis and residual).
        beta: [T, E] expression coefficients.
        pose: [T, 6] weak-perspective poses in the pixels of the landmarks.
        error: [T] mean distance of projected vertices to landmarks, in face heights.
    """

    alpha: Tensor
    template: Tensor
    beta: Tensor
    pose: Tensor
    error: Tensor


class Landmarks(Protocol):
    """Landmarks [T, >=468, 3] of a track: a tensor, or rows that are read from a file."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: slice) -> Any: ...


@torch.inference_mode(False)  # a caller's mode must not stop the optimisation
@torch.enable_grad()
def fit_track(
    model: MorphableModel,
    landmarks: Landmarks,
    options: FitOptions | None = None,
    template: Tensor | None = None,
) -> FaceFit:
    """Fit `model` to landmarks [T, >=468, 3] of consecutive frames (pixels, z as x).

    With `template` [V, 3] the neutral face is taken as known (same speaker, another clip). What is
    kept of a frame is its result: vertices exist for PART frames at a time only.
    """
    options = options or FitOptions()
    points = _Points(model, landmarks)
    alpha, neutral, beta, pose = _initial(model, points, options, template)
    beta, pose = _optimise_windows(model, neutral, points, beta, pose, options)
    if options.calm:
        beta, pose = calm_expression(model, neutral, beta), calm_pose(model, pose)
    errors = []
    for part in points.parts():
        projected = apply_pose(model.vertices(neutral, beta[part]), pose[part])
        height = 2 * pose[part, 3].exp()
        errors.append((projected - points[part])[..., :2].norm(dim=-1).mean(1) / height)
    return FaceFit(alpha, neutral, beta, pose, torch.cat(errors))


class _Points:
    """A track's landmarks [T, V, 3] on the model's device, some frames at a time.

    Attributes:
        depth: [T] that is taken off each frame's, so that `remove_pose` is exact.
    """

    def __init__(self, model: MorphableModel, landmarks: Landmarks):
        self._model, self._landmarks = model, landmarks
        self.depth = torch.zeros(len(landmarks)).to(model.mean)

    def __len__(self) -> int:
        return len(self._landmarks)

    def parts(self) -> Iterator[slice]:
        """The frames, PART at a time."""
        for start in range(0, len(self), PART):
            yield slice(start, min(start + PART, len(self)))

    def __getitem__(self, part: slice) -> Tensor:
        rows = torch.as_tensor(self._landmarks[part])
        points = rows[:, : self._model.mean.shape[0]].to(self._model.mean)
        return at_depth(points, self.depth[part])

    def flat(self, part: slice, pose: Tensor) -> Tensor:
        """Canonical points of those frames under the poses [T, 6] of all."""
        return remove_pose(self[part], pose[part])

    def aligned(self, model: Callable[[slice], Tensor]) -> Tensor:
        """Poses [T, 6] against canonical vertices of each part; sets `depth` to fit them."""
        rigid = rigid_weights(self._model)
        poses, depths = [], []
        self.depth = torch.zeros_like(self.depth)
        for part in self.parts():
            pose, depth = align_depth(self[part], model(part), rigid)
            poses.append(pose)
            depths.append(depth)
        self.depth = torch.cat(depths)
        return torch.cat(poses)


class _ExpressionSolver:
    """Ridge regression of displacements on the expression basis, lips weighted."""

    def __init__(self, model: MorphableModel, ridge: float):
        weights = _vertex_weights(model)
        basis = model.expression.flatten(1)
        w = weights.repeat_interleave(3)
        gram = (basis * w) @ basis.T
        gram += ridge * gram.diagonal().mean() * torch.eye(len(basis)).to(basis)
        self._project = torch.linalg.solve(gram, basis * w)

    def __call__(self, displacement: Tensor) -> Tensor:
        return torch.matmul(displacement.flatten(1), self._project.T)


def _vertex_weights(model: MorphableModel) -> Tensor:
    weights = torch.ones(model.mean.shape[0]).to(model.mean)
    weights[list(LIPS)] = 3.0
    weights[list(INNER_LIPS)] = 5.0
    return weights


def rigid_weights(model: MorphableModel) -> Tensor:
    """[V] 1 where the skull moves the skin, 0 elsewhere."""
    weights = torch.zeros(model.mean.shape[0]).to(model.mean)
    weights[list(RIGID)] = 1.0
    return weights


def _initial(
    model: MorphableModel, points: _Points, options: FitOptions, template: Tensor | None
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Alternate closed-form pose, shape and expression: (alpha, neutral face, beta, pose)."""
    solver = _ExpressionSolver(model, options.ridge)
    neutral = model.mean if template is None else template
    alpha = torch.zeros(len(model.shape)).to(model.mean)
    beta = torch.zeros(len(points), len(model.expression)).to(model.mean)
    for _ in range(3):
        pose = points.aligned(partial(_under, model, neutral, beta))
        if template is None:
            neutral = _neutral_seen(points, pose, options.closed_share)
            alpha = _shape_of(model, neutral, options.ridge)
        beta = torch.cat([solver(points.flat(part, pose) - neutral) for part in points.parts()])
    return alpha, neutral, beta, pose


def _under(model: MorphableModel, neutral: Tensor, beta: Tensor, part: slice) -> Tensor:
    return model.vertices(neutral, beta[part])


def _neutral_seen(points: _Points, pose: Tensor, closed_share: float) -> Tensor:
    """Mean canonical points [V, 3] of the frames with the least open lips."""
    opening = torch.cat([lip_opening(points.flat(part, pose)) for part in points.parts()])
    closed = opening <= opening.quantile(closed_share)
    total = sum(points.flat(part, pose)[closed[part]].sum(0) for part in points.parts())
    return torch.as_tensor(total) / closed.sum()


def _shape_of(model: MorphableModel, neutral: Tensor, ridge: float) -> Tensor:
    basis = model.shape.flatten(1)
    gram = basis @ basis.T
    gram += ridge * gram.diagonal().mean() * torch.eye(len(basis)).to(basis)
    alpha: Tensor = torch.linalg.solve(gram, basis @ (neutral - model.mean).flatten())
    return alpha


def _optimise_windows(
    model: MorphableModel,
    neutral: Tensor,
    points: _Points,
    beta: Tensor,
    pose: Tensor,
    options: FitOptions,
) -> tuple[Tensor, Tensor]:
    total = len(points)
    beta_sum, pose_sum = torch.zeros_like(beta), torch.zeros_like(pose)
    weight_sum = torch.zeros(total, 1).to(beta)
    start = 0
    while True:
        stop = min(start + options.window, total)
        part = slice(start, stop)
        fitted = _optimise(model, neutral, points[part], beta[part], pose[part], options)
        ramp = torch.ones(stop - start, 1).to(beta)
        fade = torch.linspace(0, 1, options.overlap + 2)[1:-1, None].to(beta)
        if start > 0:
            ramp[: options.overlap] = fade[: len(ramp)]
        if stop < total:
            ramp[-options.overlap :] = fade.flip(0)
        beta_sum[part] += fitted[0] * ramp
        pose_sum[part] += fitted[1] * ramp
        weight_sum[part] += ramp
        if stop == total:
            return beta_sum / weight_sum, pose_sum / weight_sum
        start = stop - options.overlap


def _optimise(
    model: MorphableModel,
    neutral: Tensor,
    points: Tensor,
    beta0: Tensor,
    pose0: Tensor,
    options: FitOptions,
) -> tuple[Tensor, Tensor]:
    """Adam on (beta, pose) of one window. Distances are in half face heights."""
    unit = pose0[:, 3].exp().mean()
    weights = _vertex_weights(model)
    weights = weights / weights.mean()
    seen = points[..., :2] / unit
    # pose steps in comparable units: translation as a share of the face
    scale = torch.tensor([0.3, 0.3, 0.3, 0.3, unit, unit]).to(pose0)
    beta = beta0.clone().requires_grad_()
    step = torch.zeros_like(pose0).requires_grad_()
    descents = [Adam(beta, options.learning_rate), Adam(step, options.learning_rate)]
    for _ in range(options.steps):
        pose = pose0 + step * scale
        drawn = apply_pose(model.vertices(neutral, beta), pose)[..., :2] / unit
        loss = options.landmark * (_norm(drawn - seen) * weights).mean()
        if len(points) > 1:
            speed = torch.diff(drawn, dim=0) - torch.diff(seen, dim=0)
            loss = loss + options.temporal * _norm(speed).mean()
        if len(points) > 2:
            bend = _norm(
                torch.diff(step * scale / scale.clamp_min(1), n=2, dim=0)
                + torch.diff(pose0 / scale.clamp_min(1), n=2, dim=0)
            ).mean()
            bend = bend + 0.05 * _norm(torch.diff(beta, n=2, dim=0)).mean()
            loss = loss + options.temporal * options.smooth * bend
        away = 0.05 * _norm(beta - beta0).mean() + _norm(step).mean()
        torch.autograd.backward(loss + options.regular * away)
        for descent in descents:
            descent.step()
    return beta.detach(), (pose0 + step * scale).detach()


def _norm(x: Tensor) -> Tensor:
    return (x.square().sum(-1) + 1e-10).sqrt()
