"""Persona adaptation (beyond the paper): stage 1 tuned to one speaker's own speech and lips.

A reference video carries the speaker's speech beside the speaker's lips. A small part of the
stage-1 network learns from that; the rest stays as it is, and so do the weights that other speakers
share: what is learned is a difference, applied to a copy of the network.

Seconds of speech are very little, so everything here guards against learning by heart. The speech
is cut into stretches of time; for each one a network learns from the others only, so that every
moment is once held back. How long to learn is what those moments tell, the result is the mean of
the differences, and where the held-back lips do not get better the generic weights stay.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from dubbing.errors import PersonaInvalid
from dubbing.geometry.morphable import MorphableModel
from dubbing.models.geometry_net import GeometryNet
from dubbing.motion import RATE, frame_features
from dubbing.speech.features import FEATURE_RATE
from dubbing.training.geometry_loss import GeometryLoss
from dubbing.training.lags import MAX_LAG, correlation

PARTS = ("audio_in.",)  # what learns: how sounds are told apart; later layers gained less
FOLDS = 3  # stretches of time, each held back once
STEPS = 21  # per stretch
CHECK_EVERY = 3  # steps between looks at what is held back
LEARNING_RATE = 1e-4
WINDOW = 300  # frames at 25 Hz per step, 12 s
GUARD = 8  # frames on either side of what is held back that nothing is learned from
MIN_FRAMES = 4 * RATE  # usable frames of speech below which there is nothing to learn from
MIN_GAIN = 0.01  # of the held-back correlation; less is chance
LAG_STEP = 0.25  # frames; half a frame of offset costs as much as adaptation can gain
MIN_PEAK = 0.5  # correlation at the best lag; unrelated sound stays below
MAX_HOLE = 0.12  # s: over a longer hole (frames without a face) lips are not known
SEED = 0


@dataclass(frozen=True)
class OwnSpeech:
    """What there is to learn from: a speaker's speech and lips on one clock.

    Attributes:
        features: [T50, A] speech features at 50 Hz.
        offset: seconds by which the sound begins after the first picture.
        gate: seconds on the sound's clock [T] to 0..1, the mouth's gate (see `speech_envelope`).
        times: [N] seconds of the pictures with a usable face, ascending, from the first picture.
        beta: [N, E] expressions there.
        template: [V, 3] neutral face; style: [S, E] expressions that tell the style; rest: [E].
    """

    features: Tensor
    offset: float
    gate: Callable[[Tensor], Tensor]
    times: Tensor
    beta: Tensor
    template: Tensor
    style: Tensor
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

    def shown(self, net: GeometryNet, start: int = 0, end: int | None = None) -> Tensor:
        """Lower vertices [1, T, L, 3] as a dub would show them."""
        end = len(self.gate) if end is None else end
        style = net.style(self.style[None])
        made = net(self.audio[None, 2 * start : 2 * end], style, self.template[None])
        gate = self.gate[None, start:end, None, None]
        moved: Tensor = self.resting + gate * (made - self.resting)
        return moved


class Adapter:
    """Adapts a stage-1 network to speakers.

    Args:
        net: generic network in evaluation mode; never changed. model: on the same device.
    """

    def __init__(self, net: GeometryNet, model: MorphableModel, weights: str = ""):
        self.net, self.model, self.weights = net, model, weights
        self.loss = GeometryLoss(model)
        self.total = FOLDS * STEPS

    @torch.inference_mode(False)  # a caller's mode must not stop the learning
    @torch.enable_grad()
    def adapt(self, speech: OwnSpeech, step: Callable[[], None] = lambda: None) -> Adaptation:
        """Learn from a speaker's own speech; same input, same result.

        Args:
            step: called after each of at most `total` steps; an exception from it stops the work.
        """
        grid, beta, known = _at_rate(speech.times, speech.beta)
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
        seen = self._opening(lesson.target[None], lesson)
        made = self._opening(lesson.shown(self.net), lesson)
        whole, _ = best_lag(made, seen, lesson.weight)
        scores = {}
        for k in range(-4, 5):
            moved = later(whole + k * LAG_STEP)
            made = self._opening(moved.shown(self.net), moved)
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
            model.expression_vertices(speech.style.to(device)),
        )

    def _opening(self, lower: Tensor, lesson: _Lesson) -> Tensor:
        return self.loss.gap(lower, lesson.template[None])[0]

    def _learn(
        self, lesson: _Lesson, step: Callable[[], None], facts: dict[str, Any]
    ) -> Adaptation:
        """Learn with each stretch of time held back once, and judge by what was."""
        seen = self._opening(lesson.target[None], lesson)
        with torch.inference_mode():
            generic = self._opening(lesson.shown(self.net), lesson)
        before: list[float] = []
        after: list[list[float]] = []
        changes: list[list[dict[str, Tensor]]] = []
        for fold, (start, end) in enumerate(stretches(lesson.weight, FOLDS)):
            held = (lesson.weight[start:end] > 0).nonzero()[:, 0] + start
            before.append(correlation(generic[held], seen[held]))
            weight = lesson.weight.clone()
            weight[max(start - GUARD, 0) : end + GUARD] = 0
            after.append([])
            changes.append([])
            for net in self._steps(lesson, weight, SEED + fold, step):
                with torch.inference_mode():
                    made = self._opening(lesson.shown(net), lesson)
                after[-1].append(correlation(made[held], seen[held]))
                changes[-1].append(self._difference(net))
        gains = torch.tensor(after) - torch.tensor(before)[:, None]  # [stretch, look]
        look, accepted = best_look(gains)
        generic_mean = sum(before) / FOLDS
        facts |= {"generic": generic_mean, "adapted": generic_mean + float(gains[:, look].mean())}
        if not accepted:
            worst = float(gains[:, look].min())
            return Adaptation.kept(
                f"held-back lips would correlate with the real ones by {facts['adapted']:.3f} "
                f"(generic {generic_mean:.3f}, {worst:+.3f} in the worst of {FOLDS} stretches)",
                **facts,
            )
        mean = {
            name: torch.stack([fold[look][name] for fold in changes]).mean(0).half().cpu()
            for name in changes[0][look]
        }
        return Adaptation(mean, **facts)

    def _steps(
        self, lesson: _Lesson, weight: Tensor, seed: int, step: Callable[[], None]
    ) -> Iterator[GeometryNet]:
        """Networks that learn from the frames with a weight; one every `CHECK_EVERY` steps."""
        net = copy.deepcopy(self.net).requires_grad_(False).eval()
        learning = [p for name, p in net.named_parameters() if name.startswith(PARTS)]
        for parameter in learning:
            parameter.requires_grad_(True)
        optimiser = torch.optim.Adam(learning, lr=LEARNING_RATE)
        generator = torch.Generator().manual_seed(seed)
        frames = len(weight)
        for k in range(STEPS):
            start = int(torch.randint(0, max(frames - WINDOW, 0) + 1, (1,), generator=generator))
            end = min(start + WINDOW, frames)
            part = slice(start, end)
            loss = self.loss(
                lesson.shown(net, start, end),
                lesson.target[None, part],
                lesson.template[None],
                weight[None, part],
            )["loss"]
            optimiser.zero_grad(set_to_none=True)
            torch.autograd.backward(loss)
            optimiser.step()
            step()
            if (k + 1) % CHECK_EVERY == 0:
                yield net

    def _difference(self, net: GeometryNet) -> dict[str, Tensor]:
        old = dict(self.net.named_parameters())
        return {
            name: (new - old[name]).detach().clone()
            for name, new in net.named_parameters()
            if name.startswith(PARTS)
        }


def best_look(gains: Tensor) -> tuple[int, bool]:
    """The moment of learning to take, and whether it is good enough to be taken.

    Args:
        gains: [F, K] gain of each held-back stretch at each look.

    Returns:
        the look with the highest mean gain among those at which no stretch gets worse and the
        mean is at least `MIN_GAIN`; where there is none, the best of all and False.
    """
    mean = gains.mean(0)
    fit = (gains.amin(0) >= 0) & (mean >= MIN_GAIN)
    accepted = bool(fit.any())
    look = int(torch.where(fit, mean, -torch.inf).argmax() if accepted else mean.argmax())
    return look, accepted


def stretches(weight: Tensor, count: int) -> list[tuple[int, int]]:
    """[0, T) cut into `count` stretches that hold about as many frames with a weight each."""
    done = weight.gt(0).cumsum(0)
    cuts = [int((done <= done[-1] * k // count).sum()) for k in range(1, count)]
    return list(zip([0, *cuts], [*cuts, len(weight)], strict=True))


def best_lag(
    made: Tensor, seen: Tensor, weight: Tensor, limit: int = MAX_LAG
) -> tuple[float, float]:
    """Frames by which `seen` [T] is late behind `made` [T], and their correlation there.

    Args:
        weight: [T] above 0 where `seen` is known and somebody speaks.
    """
    scores = {}
    for lag in range(-limit, limit + 1):
        frames = torch.arange(len(made), device=made.device)
        kept = (frames + lag >= 0) & (frames + lag < len(made))
        kept &= weight[(frames + lag).clamp(0, len(made) - 1)] > 0
        scores[lag] = correlation(made[kept], seen[frames[kept] + lag])
    lag = max(scores, key=lambda k: scores[k])
    return float(lag), scores[lag]


def _at_rate(times: Tensor, beta: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Moments k / 25 s [T] from the first picture to the last face, expressions [T, E] there
    (linear between pictures), and whether they are known [T]."""
    grid = torch.arange(int(times[-1] * RATE) + 1, dtype=torch.float64) / RATE
    if len(times) < 2:
        return grid, beta[:1].expand(len(grid), -1), torch.zeros(len(grid), dtype=torch.bool)
    right = torch.searchsorted(times, grid).clamp(1, len(times) - 1)
    left = right - 1
    span = (times[right] - times[left]).clamp_min(1e-6)
    share = ((grid - times[left]) / span).clamp(0, 1).to(beta)[:, None]
    known = (span <= MAX_HOLE) & (grid >= times[0])
    return grid, torch.lerp(beta[left], beta[right], share), known
