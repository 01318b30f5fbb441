"""`dub train geometry`: the morphable model, then speech to lower-face geometry (stage 1)."""

from __future__ import annotations

import csv
import logging
import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from dubbing.errors import InputNotFound
from dubbing.geometry.morphable import MorphableModel
from dubbing.models.geometry_net import HUBERT, OWN, GeometryNet, GeometryNetConfig
from dubbing.models.speech_encoder import SpeechEncoder
from dubbing.speech.features import to_rate
from dubbing.speech.hubert import load_hubert
from dubbing.training import morphable
from dubbing.training.clips import (
    RATE,
    at_rate,
    fitted,
    load_landmarks,
    load_speech_samples,
    prepared_names,
)
from dubbing.training.devices import launched
from dubbing.training.geometry_loss import GeometryLoss
from dubbing.training.options import GeometryTrainOptions
from dubbing.training.speech_states import (
    Extractor,
    SpeechStates,
    hubert_features,
    own_features,
    speech_states,
)
from dubbing.weights import (
    GEOMETRY,
    MORPHABLE,
    SPEECH,
    load_morphable,
    load_speech_encoder,
    save_morphable,
    save_network,
)

log = logging.getLogger(__name__)

WINDOW = 96  # frames at 25 Hz, 3.8 s
STYLE_FRAMES = 100
MAX_FRAMES = 600  # of a clip: slowed down, the sound of 24 s fills the encoder's 30 s
MAX_LAG = 8  # frames searched for the offset between sound and lips
MIN_LAG_FRAMES = 75  # shorter clips don't show their offset
MIN_PEAK = 0.3  # correlation at the best lag below which a clip is left out
EMA = 0.995


@dataclass(frozen=True)
class Example:
    """A clip at 25 Hz: beta [T, E], usable [T], template [V, 3], states, lag of the lips behind
    the sound in frames, weight 0 where the clip is left out."""

    name: str
    beta: Tensor
    usable: Tensor
    template: Tensor
    states: SpeechStates
    lag: int = 0
    weight: float = 1.0


class Stage1(nn.Module):
    """Upper half of the speech encoder and the geometry network, trained as one."""

    def __init__(self, encoder: SpeechEncoder, net: GeometryNet):
        super().__init__()
        self.encoder, self.net = encoder, net

    def forward(self, features: Tensor, places: Tensor, style: Tensor, style_mask: Tensor,
                template: Tensor, mask: Tensor, tune: bool) -> Tensor:  # fmt: skip
        """features [B, T50, 2 D] as cached (with `tune` only their lower half is used), places
        [B, T] (fractional 50-Hz frames), style expressions [B, S, V, 3], template [B, V, 3], mask
        [B, T] -> [B, T, L, 3]."""
        audio = features
        if tune:
            states = self.encoder.upper(features[..., : features.shape[-1] // 2])
            audio = torch.cat([states[k] for k in sorted(states)], -1)
        taken = torch.stack([to_rate(a, p / 50.0, 0.0) for a, p in zip(audio, places, strict=True)])
        moved: Tensor = self.net(taken, self.net.style(style, style_mask), template, mask)
        return moved


def build_net(
    model: MorphableModel, features: str = OWN, audio_size: int = GeometryNetConfig.audio_size
) -> GeometryNet:
    """A fresh stage-1 network for a morphable model and a kind and size of speech features."""
    config = GeometryNetConfig(
        features=features,
        audio_size=audio_size,
        vertices=len(model.mean),
        lower_vertices=int(model.lower.gt(0).sum()),
        expression_size=len(model.expression),
    )
    net = GeometryNet(config)
    net.set_geometry(model.mean, model.expression, model.lower)
    return net


def load_examples(
    folder: Path,
    cache: Path,
    names: Sequence[str],
    model: MorphableModel,
    extract: Extractor,
    suffix: str = "",
) -> list[Example]:
    """Fit every clip and encode its sound, from the cache where possible; `suffix` tells the
    cached features of one extractor from those of another."""
    examples = []
    for k, name in enumerate(names):
        clip = fitted(folder, cache, name, model)
        samples = load_speech_samples(folder, name)
        if len(samples) < 3200 or clip.times[-1] < 0.5:
            continue
        beta, usable = at_rate(clip)
        states = speech_states(extract, samples, cache, name + suffix, seed=k)
        count = min(len(beta), int(len(samples) / 16000 * RATE), MAX_FRAMES)
        examples.append(Example(name, beta[:count], usable[:count], clip.template, states))
        if k % 100 == 0:
            log.info("loaded %d of %d clips", k, len(names))
    return examples


class Batcher:
    """Draws training windows."""

    def __init__(self, examples: list[Example], model: MorphableModel, seed: int):
        self.examples, self.model = examples, model
        self.random = random.Random(seed)
        self.lower = model.lower.gt(0).nonzero()[:, 0]

    def draw(self, size: int) -> dict[str, Tensor]:
        weights = [e.weight * min(len(e.beta), 500) ** 0.7 for e in self.examples]
        picked = self.random.choices(self.examples, weights, k=size)
        return self.collate([self._window(e) for e in picked])

    def _window(self, e: Example) -> tuple[Example, int, int, int]:
        spare = len(e.beta) - WINDOW
        start = self.random.randint(0, spare) if spare > 0 else 0
        spare = len(e.beta) - STYLE_FRAMES
        style = self.random.randint(0, spare) if spare > 0 else 0
        variants = len(e.states.stretch)
        variant = 0 if self.random.random() < 0.4 else self.random.randint(0, variants - 1)
        return e, start, style, variant

    def collate(
        self, items: Sequence[tuple[Example, int, int, int]], window: int = WINDOW,
        style_frames: int = STYLE_FRAMES,
    ) -> dict[str, Tensor]:  # fmt: skip
        """Windows (example, start, style start, variant) as one padded batch."""
        rows: dict[str, list[Tensor]] = {
            k: []
            for k in ("features", "places", "style", "style_mask", "template", "mask", "target")
        }
        for e, start, style, variant in items:
            time = torch.arange(start, start + window)
            shown = (time + e.lag).clamp(0, len(e.beta) - 1)
            inside = (time < len(e.beta)) & (time + e.lag >= 0) & (time + e.lag < len(e.beta))
            beta = e.beta[shown]
            places = (time / RATE / e.states.stretch[variant]) * 50.0 - 0.5
            base = max(int(places[0]) - 25, 0)
            need = int(window * 2 / 0.8) + 60
            part = e.states.features[variant, base : base + need].float()
            rows["features"].append(nn.functional.pad(part, (0, 0, 0, need - len(part))))
            rows["places"].append((places - base).clamp_min(0))
            seen = torch.arange(style, style + style_frames)
            own = e.beta[seen.clamp_max(len(e.beta) - 1)]
            rows["style"].append(self.model.expression_vertices(own))
            rows["style_mask"].append(seen < len(e.beta))
            rows["template"].append(e.template)
            rows["mask"].append((inside & e.usable[shown]).float())
            rows["target"].append(self.model.expression_vertices(beta)[:, self.lower])
        return {k: torch.stack(v) for k, v in rows.items()}


@torch.inference_mode()
def predict_openings(
    stage: Stage1, batcher: Batcher, loss: GeometryLoss, example: Example, tuned: bool
) -> tuple[Tensor, Tensor]:
    """Predicted and true opening [T] of a clip (undisturbed sound, at most 30 s, lag 0)."""
    length = min(len(example.beta), 700)
    plain = replace(example, lag=0)
    batch = batcher.collate([(plain, 0, 0, 0)], window=length, style_frames=length)
    device = next(stage.parameters()).device
    batch = {k: v.to(device) for k, v in batch.items()}
    out = stage(batch["features"], batch["places"], batch["style"], batch["style_mask"],
                batch["template"], batch["mask"].bool(), tuned)  # fmt: skip
    predicted, seen = (loss.gap(x, batch["template"])[0] for x in (out, batch["target"]))
    return predicted.cpu(), seen.cpu()


def correlation(a: Tensor, b: Tensor) -> float:
    """Pearson correlation of two sequences, 0 where one is constant."""
    a, b = a - a.mean(), b - b.mean()
    return float((a * b).sum() / (a.norm() * b.norm()).clamp_min(1e-9))


def best_lag(predicted: Tensor, seen: Tensor, limit: int = MAX_LAG) -> tuple[int, float]:
    """Frames by which `seen` lags behind `predicted`, and the correlation there."""
    scores = {}
    for lag in range(-limit, limit + 1):
        a = predicted[max(-lag, 0) : len(predicted) - max(lag, 0)]
        b = seen[max(lag, 0) : len(seen) - max(-lag, 0)]
        scores[lag] = correlation(a, b)
    lag = max(scores, key=lambda k: scores[k])
    return lag, scores[lag]


def correct_lags(stage: Stage1, batcher: Batcher, loss: GeometryLoss) -> list[Example]:
    """Examples with their offset between sound and lips measured, or weight 0 without a peak."""
    stage.eval()
    out = []
    for e in batcher.examples:
        if len(e.beta) < MIN_LAG_FRAMES:
            out.append(e)
            continue
        lag, peak = best_lag(*predict_openings(stage, batcher, loss, e, tuned=False))
        kept = peak >= MIN_PEAK and abs(lag) < MAX_LAG
        out.append(replace(e, lag=lag if kept else 0, weight=1.0 if kept else 0.0))
    stage.train()
    return out


@torch.inference_mode()
def validate(stage: Stage1, batcher: Batcher, loss: GeometryLoss, tuned: bool) -> dict[str, float]:
    """Mean over clips: correlation of the opening at lag 0 and at the best lag, amplitude."""
    stage.eval()
    rows = []
    for e in batcher.examples:
        predicted, seen = predict_openings(stage, batcher, loss, e, tuned)
        ratio = float(predicted.std() / seen.std().clamp_min(1e-6))
        rows.append((correlation(predicted, seen), best_lag(predicted, seen)[1], ratio))
    stage.train()
    mean = torch.tensor(rows).mean(0)
    return {"corr": mean[0].item(), "corr_best_lag": mean[1].item(), "amplitude": mean[2].item()}


@torch.inference_mode()
def mean_style(stage: Stage1, batcher: Batcher) -> Tensor:
    """Mean style embedding [D] over the training clips."""
    codes = []
    device = stage.net.mean.device
    for e in batcher.examples:
        moved = batcher.model.expression_vertices(e.beta[:STYLE_FRAMES])
        codes.append(stage.net.style(moved[None].to(device))[0])
    return torch.stack(codes).mean(0)


def run(options: GeometryTrainOptions) -> Path:
    """Train stage 1; the newest checkpoint parts lie in `options.output` at every save.

    Raises:
        InputNotFound: no prepared clips, or none with sound.
        CheckpointNotFound: no start weights for the speech encoder.
    """
    fabric = launched(options)
    model, encoder = _start(options)
    cache = options.output / "cache"
    names = prepared_names(options.data)
    held_back = set(names[:: max(len(names) // 24, 2)]) if len(names) >= 8 else set()
    if options.features == HUBERT:
        extract, suffix = hubert_features(load_hubert()), ".hubert"
        log.info("HuBERT stays as it is: no steps that tune the encoder")
    else:
        extract, suffix = own_features(encoder), ""
    examples = load_examples(options.data, cache, names, model, extract, suffix)
    batcher = Batcher(
        [e for e in examples if e.name not in held_back], model, options.seed + fabric.global_rank
    )
    if not batcher.examples:
        raise InputNotFound("no prepared clip lasts half a second with sound", path=options.data)
    held = [e for e in examples if e.name in held_back and len(e.beta) >= MIN_LAG_FRAMES]
    check = Batcher(held, model, 0)
    audio_size = batcher.examples[0].states.features.shape[-1]
    stage = Stage1(encoder, build_net(model, options.features, audio_size))
    _Trainer(fabric, options, stage, model, batcher, check).train()
    return options.output


def _start(options: GeometryTrainOptions) -> tuple[MorphableModel, SpeechEncoder]:
    path = options.output / f"{MORPHABLE}.safetensors"
    if not path.exists():
        names = prepared_names(options.data)
        log.info("learning the morphable model from %d clips", len(names))
        save_morphable(path, morphable.learn([load_landmarks(options.data, n) for n in names]))
    return load_morphable(path), load_speech_encoder(options.speech_encoder)


class _Trainer:
    """The optimisation loop with its averaged weights, logs and resumable state."""

    def __init__(self, fabric: Any, options: GeometryTrainOptions, stage: Stage1,
                 model: MorphableModel, batcher: Batcher, check: Batcher):  # fmt: skip
        self.fabric, self.options = fabric, options
        self.batcher, self.check = batcher, check
        self.loss = GeometryLoss(model.to(fabric.device))
        stage.encoder.requires_grad_(False)
        for p in stage.encoder.upper_parameters():
            p.requires_grad_(True)
        self.average = torch.optim.swa_utils.AveragedModel(
            stage.to(fabric.device),
            multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(EMA),  # type: ignore[no-untyped-call]
        )
        optimiser = torch.optim.AdamW(
            [
                {"params": stage.net.parameters(), "lr": options.learning_rate},
                {"params": stage.encoder.upper_parameters(), "lr": options.learning_rate / 6},
            ],
            weight_decay=0.05,
        )
        self.base_rates = [g["lr"] for g in optimiser.param_groups]
        self.stage, self.optimiser = fabric.setup(stage, optimiser)
        self.step = 0
        self._tune_from = options.steps - (
            0 if options.features == HUBERT else options.finetune_encoder_steps
        )
        self.path = options.output / "geometry-state.ckpt"
        if options.resume and self.path.exists():
            state = self._state()
            fabric.load(self.path, state, weights_only=True)
            self.step = state["step"]
            lags = state["lags"]
            batcher.examples = [
                replace(e, lag=lags[e.name][0], weight=lags[e.name][1]) if e.name in lags else e
                for e in batcher.examples
            ]
            batcher.random.seed(f"{options.seed} {fabric.global_rank} {self.step}")
            log.info("resumed at step %d", self.step)

    def _state(self) -> dict[str, Any]:
        lags = {e.name: [e.lag, e.weight] for e in self.batcher.examples}
        return {
            "stage": self.stage,
            "average": self.average,
            "optimiser": self.optimiser,
            "step": self.step,
            "lags": lags,
        }

    def train(self) -> None:
        o = self.options
        lag_steps = {int(o.steps * 0.3), int(o.steps * 0.6)}
        self.stage.train()
        while self.step < o.steps:
            if self.step in lag_steps and self.step > 0:
                self._measure_lags()
            terms = self._one_step(self.step >= self._tune_from)
            self.step += 1
            if self.step % o.log_every == 0 or self.step == o.steps:
                self._log(terms)
            if self.step % o.save_every == 0 or self.step == o.steps:
                self._save()

    def _one_step(self, tune: bool) -> dict[str, Tensor]:
        o = self.options
        warm = min((self.step + 1) / 100, 1.0)
        decay = 0.02 + 0.98 * 0.5 * (1 + torch.cos(torch.tensor(torch.pi * self.step / o.steps)))
        for group, rate in zip(self.optimiser.param_groups, self.base_rates, strict=True):
            group["lr"] = rate * warm * float(decay)
        batch = {k: v.to(self.fabric.device) for k, v in self.batcher.draw(o.batch_size).items()}
        out = self.stage(batch["features"], batch["places"], batch["style"], batch["style_mask"],
                         batch["template"], batch["mask"].bool(), tune)  # fmt: skip
        terms = self.loss(out.float(), batch["target"], batch["template"], batch["mask"])
        self.optimiser.zero_grad(set_to_none=True)
        self.fabric.backward(terms["loss"])
        self.fabric.clip_gradients(self.stage, self.optimiser, max_norm=1.0)
        self.optimiser.step()
        self.average.update_parameters(self.stage.module)
        return {k: v.detach() for k, v in terms.items()}

    def _measure_lags(self) -> None:
        averaged = cast(Stage1, self.average.module)
        measured = correct_lags(averaged, self.batcher, self.loss)
        if not any(e.weight for e in measured):
            log.warning("no clip's lips follow its sound yet: all are kept as they are")
            return
        self.batcher.examples = measured
        lags = torch.tensor([e.lag for e in self.batcher.examples if e.weight]).float()
        out = sum(e.weight == 0 for e in self.batcher.examples)
        log.info("offsets: mean %.2f frames, left out %d clips", lags.mean().item(), out)

    def _log(self, terms: dict[str, Tensor]) -> None:
        if not self.fabric.is_global_zero:
            return
        row: dict[str, float] = {"step": self.step} | {k: v.item() for k, v in terms.items()}
        due = self.step % (self.options.log_every * 8) == 0 or self.step == self.options.steps
        scores = {"corr": float("nan"), "corr_best_lag": float("nan"), "amplitude_ratio": 0.0}
        if due and self.check.examples:
            averaged = cast(Stage1, self.average.module)
            found = validate(averaged, self.check, self.loss, self.step > self._tune_from)
            scores = {"corr": found["corr"], "corr_best_lag": found["corr_best_lag"],
                      "amplitude_ratio": found["amplitude"]}  # fmt: skip
        row |= scores
        append_csv(self.options.output / "geometry.csv", row)
        log.info(" ".join(f"{k}={v:.4g}" for k, v in row.items()))

    def _save(self) -> None:
        averaged = cast(Stage1, self.average.module)
        averaged.net.average_style.copy_(mean_style(averaged, self.batcher))
        self.fabric.save(self.path, self._state())
        if self.fabric.is_global_zero:
            save_network(self.options.output / f"{GEOMETRY}.safetensors", GEOMETRY, averaged.net)
            save_network(
                self.options.output / f"{SPEECH}.safetensors", SPEECH, averaged.encoder, half=True
            )


def append_csv(path: Path, row: dict[str, float]) -> None:
    """Append a row to a CSV log, with a header when the file is new."""
    new = not path.exists()
    with path.open("a", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(row))
        if new:
            writer.writeheader()
        writer.writerow(row)
