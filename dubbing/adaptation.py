"""Persona adaptation (beyond the paper): stage 1 tuned to one speaker's own speech and lips.

A reference video carries the speaker's speech beside the speaker's lips. The layer that takes in
the sound learns from that; the rest of the stage-1 network stays as it is, and so do the weights
that other speakers share: what is learned is a difference, applied to a copy of the network.

Seconds of speech are very little, so everything here guards against learning by heart. The speech
is cut into stretches of time; for each one a copy learns from the others only, so that every
moment is once held back. How long to learn is what those moments tell, the result is the mean of
the differences, and where the held-back lips do not get better the generic weights stay.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dubbing.errors import PersonaInvalid
from dubbing.geometry.morphable import MorphableModel
from dubbing.held_back import best_look, hold_back, richest
from dubbing.models.geometry_net import GeometryNet
from dubbing.moments import interpolated
from dubbing.motion import RATE, frame_features
from dubbing.speech.features import FEATURE_RATE
from dubbing.style_reference import StyleReference
from dubbing.training.geometry_loss import GeometryLoss
from dubbing.training.lags import MAX_LAG, best_lag, correlation

PART = "audio_in"  # what learns: how sounds are told apart; later layers gained less
FOLDS = 3  # stretches of time, each held back once
STEPS = 21
CHECK_EVERY = 3  # steps between looks at what is held back
LEARNING_RATE = 1e-4
MAX_FRAMES = 40 * RATE  # of a clip; more takes longer (attention: squared) and tells little more
MIN_FRAMES = 4 * RATE  # usable frames of speech below which there is nothing to learn from
LAG_STEP = 0.25  # frames; half a frame of offset costs as much as adaptation can gain
MIN_PEAK = 0.5  # correlation at the best lag; unrelated sound stays below


@dataclass(frozen=True)
class OwnSpeech:
    """What there is to learn from: a speaker's speech and lips on one clock.

    Attributes:
        features: [T50, A] speech features at 50 Hz.
        offset: seconds by which the sound begins after the first picture.
        gate: seconds on the sound's clock [T] to 0..1, the mouth's gate (see `speech_envelope`).
        times: [N] seconds of the pictures with a usable face, ascending, from the first picture.
        beta: [N, E] expressions there.
        template: [V, 3] neutral face; style: what tells the style; rest: [E].
    """

    features: Tensor
    offset: float
    gate: Callable[[Tensor], Tensor]
    times: Tensor
    beta: Tensor
    template: Tensor
    style: StyleReference
    rest: Tensor


@dataclass(frozen=True)
class Adaptation:
    """What came of an adaptation.

    Attributes:
        changes: {parameter of the stage-1 network: difference, float16}; empty where the generic
            weights stay.
        weights: identity of the networks that it was learned on; no others get it.
        reason: why the generic weights stay, "" where they do not.
        generic, adapted: correlation of the lip opening with the real one in speech, mean over the
            stretches while each was held back; None where it did not come to that.
        lag: frames at 25 Hz by which the video's lips are late behind its sound, which was taken
            into account; None where it could not be told.
        speech_s: seconds of usable speech.
    """

    changes: dict[str, Tensor] = field(default_factory=dict)
    weights: str = ""
    reason: str = ""
    generic: float | None = None
    adapted: float | None = None
    lag: float | None = None
    speech_s: float = 0.0

    @property
    def applied(self) -> bool:
        """True where there is something to apply."""
        return bool(self.changes)

    @property
    def text(self) -> str:
        """One sentence for a person."""
        if not self.applied:
            return f"not adapted, the generic weights are used: {self.reason}"
        return (
            f"adapted on {self.speech_s:.1f} s of speech: held-back lips correlate with the real "
            f"ones by {self.adapted:.2f} (generic {self.generic:.2f})"
        )

    def facts(self) -> dict[str, Any]:
        """Everything but the tensors, as JSON values."""
        return {
            f.name: getattr(self, f.name) for f in dataclasses.fields(self) if f.name != "changes"
        }

    @classmethod
    def kept(cls, reason: str, **facts: Any) -> Adaptation:
        """An outcome that leaves the generic weights."""
        return cls(reason=reason, **facts)


def adapted_network(net: GeometryNet, changes: Mapping[str, Tensor]) -> GeometryNet:
    """A copy of `net` with `changes` added to its parameters; `net` itself is not touched.

    Raises:
        PersonaInvalid: a change for a parameter that the network does not have in this shape.
    """
    made = copy.deepcopy(net)
    state = made.state_dict()
    with torch.no_grad():
        for name, change in changes.items():
            if name not in state or state[name].shape != change.shape:
                raise PersonaInvalid(
                    f"its adaptation has {name}, which the network does not have in this shape",
                    hint="make the persona again with --adapt",
                )
            state[name] += change.to(state[name])
    return made


class InputCopies(nn.Module):
    """R copies of the network's input layer that learn apart, one for each row of a batch."""

    def __init__(self, layer: nn.Sequential, rows: int):
        super().__init__()
        norm, linear = cast(nn.LayerNorm, layer[0]), cast(nn.Linear, layer[1])
        self.eps = norm.eps
        self.start = {f"{PART}.{k}": v.detach().clone() for k, v in layer.named_parameters()}
        self.scale, self.shift, self.weight, self.bias = (
            nn.Parameter(value.detach().expand(rows, *value.shape).clone())
            for value in (norm.weight, norm.bias, linear.weight, linear.bias)
        )

    def forward(self, audio: Tensor) -> Tensor:
        """[R, 2 T, A] -> [R, 2 T, D]."""
        x = F.layer_norm(audio, audio.shape[-1:], eps=self.eps)
        x = x * self.scale[:, None] + self.shift[:, None]
        return torch.baddbmm(self.bias[:, None], x, self.weight.transpose(1, 2))

    def changes(self) -> dict[str, Tensor]:
        """{parameter of the network: mean of what the copies learned, float16}."""
        now = (self.scale, self.shift, self.weight, self.bias)
        return {
            name: (value.detach().mean(0) - old).half().cpu()
            for (name, old), value in zip(self.start.items(), now, strict=True)
        }


@dataclass(frozen=True)
class _Lesson:
    """Clip of T frames at 25 Hz on the lips' clock: audio [2 T, A], gate [T], target and resting
    lower vertices [T, L, 3] and [L, 3], weight [T] 1 where there is something to learn."""

    audio: Tensor
    gate: Tensor
    target: Tensor
    resting: Tensor
    weight: Tensor
    template: Tensor
    style: Tensor  # [S, V, 3]

    def shown(self, net: GeometryNet, rows: int = 1) -> Tensor:
        """Lower vertices [R, T, L, 3] as a dub would show them, the same sound in every row."""

        def repeated(value: Tensor) -> Tensor:
            return value.expand(rows, *value.shape)

        style = net.style(self.style[None])[0]
        made = net(repeated(self.audio), repeated(style), repeated(self.template))
        moved: Tensor = self.resting + self.gate[:, None, None] * (made - self.resting)
        return moved


class Adapter:
    """Adapts a stage-1 network to speakers.

    Args:
        net: generic network in evaluation mode; never changed. model: on the same device.
    """

    def __init__(self, net: GeometryNet, model: MorphableModel, weights: str = ""):
        self.net, self.model, self.weights = net, model, weights
        self.loss = GeometryLoss(model)
        self.total = STEPS

    @torch.inference_mode(False)  # a caller's mode must not stop the learning
    @torch.enable_grad()
    def adapt(self, speech: OwnSpeech, step: Callable[[], None] = lambda: None) -> Adaptation:
        """Learn from a speaker's own speech; same input, same result.

        Args:
            step: called after each of at most `total` steps; an exception from it stops the work.
        """
        count = int(speech.times[-1] * RATE + 1e-6) + 1
        grid = torch.arange(count, dtype=torch.float64) / RATE
        beta, known = interpolated(speech.times, speech.beta, grid)
        part = richest(known & (speech.gate(grid - speech.offset) > 0.5), MAX_FRAMES)
        grid, beta, known = grid[part], beta[part], known[part]
        lesson = self._lesson(speech, grid, beta, known, 0.0)
        spoken = int(lesson.weight.sum())
        facts: dict[str, Any] = {"weights": self.weights, "speech_s": spoken / RATE}
        if spoken < MIN_FRAMES:
            return Adaptation.kept(
                f"too short to adapt, {spoken / RATE:.1f} s of usable speech and "
                f"{MIN_FRAMES / RATE:.0f} s are needed", **facts,
            )  # fmt: skip
        lag, peak = self._lag(lesson, lambda lag: self._lesson(speech, grid, beta, known, lag))
        if peak < MIN_PEAK or abs(lag) >= MAX_LAG:
            return Adaptation.kept(
                "its sound and its lips do not seem to belong together (best correlation "
                f"{peak:.2f} within {MAX_LAG} frames; {MIN_PEAK} and a clear offset are asked for)",
                **facts,
            )
        facts["lag"] = lag
        return self._learn(self._lesson(speech, grid, beta, known, lag), step, facts)

    @torch.inference_mode()
    def _lag(self, lesson: _Lesson, later: Callable[[float], _Lesson]) -> tuple[float, float]:
        """Frames by which the lips are late behind the sound, to `LAG_STEP`, and the correlation
        of the opening with the generic one there; `later` gives the lesson at another lag."""
        seen = self._opening(lesson.target[None], lesson)[0]
        made = self._opening(lesson.shown(self.net), lesson)[0]
        whole, _ = best_lag(made, seen, weight=lesson.weight)
        scores = {}
        for k in range(-4, 5):
            moved = later(whole + k * LAG_STEP)
            made = self._opening(moved.shown(self.net), moved)[0]
            spoken = moved.weight > 0
            scores[whole + k * LAG_STEP] = correlation(made[spoken], seen[spoken])
        lag = max(scores, key=lambda k: scores[k])
        return lag, scores[lag]

    def _lesson(
        self, speech: OwnSpeech, grid: Tensor, beta: Tensor, known: Tensor, lag: float
    ) -> _Lesson:
        net, model = self.net, self.model
        device = net.mean.device
        times = grid - speech.offset - lag / RATE
        gate = speech.gate(times).to(device)
        heard = (times >= 0) & (times <= len(speech.features) / FEATURE_RATE)
        weight = known.to(device) & heard.to(device) & (gate > 0.5)
        return _Lesson(
            frame_features(speech.features, times).float().to(device),
            gate,
            model.expression_vertices(beta.to(device))[:, net.lower],
            model.expression_vertices(speech.rest.to(device))[net.lower],
            weight.float(),
            speech.template.to(device),
            model.expression_vertices(speech.style.expressions.to(device)),
        )

    def _opening(self, lower: Tensor, lesson: _Lesson) -> Tensor:
        """Lip opening [R, T]."""
        return self.loss.gap(lower, lesson.template[None])

    def _learn(
        self, lesson: _Lesson, step: Callable[[], None], facts: dict[str, Any]
    ) -> Adaptation:
        """Learn with each stretch of time held back once, and judge by what was."""
        net = copy.deepcopy(self.net).requires_grad_(False).eval()
        inputs = InputCopies(net.audio_in, FOLDS)
        net.add_module(PART, inputs)
        optimiser = torch.optim.Adam(inputs.parameters(), lr=LEARNING_RATE)
        held, learned = hold_back(lesson.weight, FOLDS)
        target = lesson.target.expand(FOLDS, -1, -1, -1)
        template = lesson.template.expand(FOLDS, -1, -1)
        seen = self._opening(lesson.target[None], lesson)[0]
        scores: list[list[float]] = []
        changes: list[dict[str, Tensor]] = []
        for k in range(STEPS + 1):
            with torch.set_grad_enabled(k < STEPS):
                made = lesson.shown(net, FOLDS)
            if k % CHECK_EVERY == 0:
                opening = self._opening(made.detach(), lesson)
                scores.append([correlation(opening[r][h], seen[h]) for r, h in enumerate(held)])
                changes.append(inputs.changes())
            if k < STEPS:
                loss = self.loss(made, target, template, learned)["loss"]
                optimiser.zero_grad(set_to_none=True)
                torch.autograd.backward(loss)
                optimiser.step()
                step()
        gains = torch.tensor(scores[1:]).T - torch.tensor(scores[0])[:, None]  # [stretch, look]
        look, accepted = best_look(gains)
        generic = sum(scores[0]) / FOLDS  # nothing is learned yet
        facts |= {"generic": generic, "adapted": generic + float(gains[:, look].mean())}
        if not accepted:
            worst = float(gains[:, look].min())
            return Adaptation.kept(
                f"held-back lips would correlate with the real ones by {facts['adapted']:.3f} "
                f"(generic {generic:.3f}, {worst:+.3f} in the worst of {FOLDS} stretches)",
                **facts,
            )
        return Adaptation(changes[look + 1], **facts)
