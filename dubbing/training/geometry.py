"""`dub train geometry`: the morphable model, then speech to lower-face geometry (stage 1)."""

from __future__ import annotations

import csv
import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from dubbing.errors import InputNotFound
from dubbing.geometry.morphable import MorphableModel
from dubbing.models.geometry_net import HUBERT, OWN, GeometryNet, GeometryNetConfig
from dubbing.models.speech_encoder import SpeechEncoder
from dubbing.models.sync_net import SyncNet, sync_loss
from dubbing.speech.hubert import load_hubert
from dubbing.sync import load_sync
from dubbing.training import morphable
from dubbing.training.clips import RATE, load_landmarks, prepared_names
from dubbing.training.devices import launched
from dubbing.training.geometry_data import (
    STYLE_FRAMES,
    Batch,
    Batcher,
    Example,
    feature_places,
    joined_windows,
    load_examples,
    sample_windows,
    with_offsets,
)
from dubbing.training.geometry_loss import GeometryLoss
from dubbing.training.lags import MAX_LAG, MIN_LAG_FRAMES, MIN_PEAK, best_lag, correlation
from dubbing.training.options import GeometryTrainOptions
from dubbing.training.speakers import held_back, load_speakers
from dubbing.training.speech_states import hubert_features, learn_places, own_features
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

EMA = 0.99
CHECKS = ("corr", "corr_best_lag", "corr_width", "corr_jaw", "amplitude_ratio")
MAX_CHECKED = 700  # frames of a clip that a check looks at


class Stage1(nn.Module):
    """Upper half of the speech encoder and the geometry network, trained as one."""

    def __init__(self, encoder: SpeechEncoder, net: GeometryNet):
        super().__init__()
        self.encoder, self.net = encoder, net

    def features(self, windows: Tensor, tune: bool) -> Tensor:
        """Speech features of cached windows [B, LENGTH, 2 D]; with `tune` only their lower half
        is used, and the encoder's upper half is run."""
        if self.net.config.features == HUBERT:
            return windows
        if tune:
            states = self.encoder.upper(windows[..., : windows.shape[-1] // 2])
            windows = torch.cat([states[k] for k in sorted(states)], -1)
        return self.encoder.standardise(windows)

    def forward(self, batch: Batch, tune: bool) -> Tensor:
        """Displacements [B, T, L, 3] for a batch."""
        audio = sample_windows(self.features(batch.windows, tune), batch.places)
        style = self.net.style(batch.style, batch.style_mask)
        moved: Tensor = self.net(audio, style, batch.template, batch.mask.bool())
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


@torch.inference_mode()
def predict_clip(stage: Stage1, model: MorphableModel, example: Example, tuned: bool,
                 style: Tensor | None = None) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Predicted and true displacements [T, L, 3] of a clip from its undisturbed sound, lag 0.

    Args:
        style: [D] embedding; by default that of the clip itself.
    """
    device = stage.net.mean.device
    states = example.states
    pieces = states.of(0)
    windows = stage.features(states.windows[pieces].float().to(device), tuned).cpu()
    track = joined_windows(windows, states.first[pieces], int(states.counts[0]))
    count = min(len(example.beta), MAX_CHECKED)
    places = feature_places(torch.arange(count, dtype=torch.float64) / RATE, 1.0)
    audio = sample_windows(track[None], places.clamp(0, len(track) - 1)[None]).to(device)
    moved = model.expression_vertices(example.beta[:count]).to(device)
    if style is None:
        style = stage.net.style(moved[None])[0]
    out = stage.net(audio, style[None], example.template[None].to(device))[0]
    return out.cpu(), moved[:, stage.net.lower].cpu()


def predict_openings(
    stage: Stage1, model: MorphableModel, loss: GeometryLoss, example: Example, tuned: bool
) -> tuple[Tensor, Tensor]:
    """Predicted and true opening [T] of a clip (undisturbed sound, lag 0)."""
    made, seen = predict_clip(stage, model, example, tuned)
    template = example.template[None]
    return loss.gap(made[None], template)[0], loss.gap(seen[None], template)[0]


def correct_lags(stage: Stage1, batcher: Batcher, loss: GeometryLoss) -> list[Example]:
    """Examples with their offset between sound and lips measured where it is not known; weight 0
    where the prediction has no clear peak."""
    stage.eval()
    out = []
    for e in batcher.examples:
        if e.known or e.weight == 0 or len(e.beta) < MIN_LAG_FRAMES:
            out.append(e)
            continue
        lag, peak = best_lag(*predict_openings(stage, batcher.model, loss, e, tuned=False))
        kept = peak >= MIN_PEAK and abs(lag) < MAX_LAG
        out.append(replace(e, lag=lag if kept else 0, weight=1.0 if kept else 0.0))
    stage.train()
    return out


def validate(
    stage: Stage1, model: MorphableModel, examples: Sequence[Example], loss: GeometryLoss,
    tuned: bool,
) -> dict[str, float]:  # fmt: skip
    """Means over clips: correlation of the opening at lag 0 and at the best lag, of width and
    jaw, amplitude ratio of the opening."""
    stage.eval()
    rows = []
    for e in examples:
        made, seen = predict_clip(stage, model, e, tuned)
        template = e.template[None]
        gap, true = loss.gap(made[None], template)[0], loss.gap(seen[None], template)[0]
        rows.append(
            (
                correlation(gap, true),
                best_lag(gap, true)[1],
                correlation(loss.width(made), loss.width(seen)),
                correlation(loss.jaw(made), loss.jaw(seen)),
                float(gap.std() / true.std().clamp_min(1e-6)),
            )
        )
    stage.train()
    return dict(zip(CHECKS, torch.tensor(rows).mean(0).tolist(), strict=True))


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
    speakers = load_speakers(options.speakers, prepared_names(options.data))
    held = held_back(speakers, options.held_out, options.seed)
    if options.features == HUBERT:
        extract, suffix = hubert_features(load_hubert()), ".hubert"
        log.info("HuBERT stays as it is: no steps that tune the encoder")
    else:
        extract, suffix = own_features(encoder), ""
    cache = options.cache or options.output / "cache"
    examples = load_examples(options.data, cache, speakers, model, extract, suffix)
    if options.offsets is not None:
        examples = with_offsets(examples, options.offsets)
    batcher = Batcher(
        [e for e in examples if e.name not in held], model, options.seed + fabric.global_rank
    )
    if not batcher.examples:
        raise InputNotFound("no prepared clip lasts half a second with sound", path=options.data)
    if not any(e.weight for e in batcher.examples):
        raise InputNotFound(
            "in no prepared clip sound and lips belong together",
            path=options.data,
            hint="prepare.json says why; 'dub train prepare --no-care' takes them as they are",
        )
    check = [e for e in examples if e.name in held and len(e.beta) >= MIN_LAG_FRAMES]
    audio_size = batcher.examples[0].states.windows.shape[-1]
    if options.features != HUBERT:
        learn_places(encoder, [e.states for e in batcher.examples])
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
                 model: MorphableModel, batcher: Batcher, check: list[Example]):  # fmt: skip
        self.fabric, self.options = fabric, options
        self.batcher, self.check = batcher, check
        self.loss = GeometryLoss(model.to(fabric.device))
        self.expert: SyncNet | None = None
        if options.sync is not None:
            self.expert = load_sync(options.sync).to(fabric.device)
        self._lower_size = stage.encoder.config.width
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
        batch = self.batcher.draw(o.batch_size).to(self.fabric.device)
        out = self.stage(batch, tune)
        terms = self.loss(out.float(), batch.target, batch.template, batch.mask)
        if self.expert is not None:
            audio = sample_windows(batch.windows[..., : self._lower_size], batch.places)
            terms["sync"] = sync_loss(self.expert, audio, out.float(), batch.mask.bool())
            terms["loss"] = terms["loss"] + o.sync_weight * terms["sync"]
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
        if due and self.check:
            averaged = cast(Stage1, self.average.module)
            row |= validate(
                averaged, self.batcher.model, self.check, self.loss, self.step > self._tune_from
            )
        else:
            row |= dict.fromkeys(CHECKS, float("nan"))
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
