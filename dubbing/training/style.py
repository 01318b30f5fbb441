"""`dub train style`: the style encoder behind StyleSim and the engine's style metric, by contrast
between speakers."""

from __future__ import annotations

import csv
import logging
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypeVar, cast

import torch
import torch.nn.functional as F
from torch import Tensor

from dubbing.device import choose_device
from dubbing.errors import InputNotFound
from dubbing.evaluation.style import STYLE, Retrieval, lower_motion, retrieval, style_code
from dubbing.geometry.morphable import MorphableModel
from dubbing.models.motion_basis import MotionBasis
from dubbing.models.style_encoder import StyleEncoder, StyleEncoderConfig
from dubbing.models.style_metric import StyleMetric, StyleMetricConfig
from dubbing.training.clips import prepared_names
from dubbing.training.geometry import append_csv
from dubbing.training.options import StyleTrainOptions
from dubbing.training.speakers import held_back, load_speakers
from dubbing.training.style_views import PairSampler, StyleClip, load_style_clips
from dubbing.weights import STYLE_METRIC, load_morphable, save_network

log = logging.getLogger(__name__)

EMA = 0.99
BASIS_STEP = 5  # every how many frames one is taken for the main directions of motion
HELD_LIST = "style-held-out.csv"

StyleNetwork = StyleEncoder | StyleMetric
Config = TypeVar("Config", StyleEncoderConfig, StyleMetricConfig)


def nt_xent(codes: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """Normalised-temperature cross entropy, and the share of rows whose nearest is their partner.

    Args:
        codes: [2 N, D] of length 1; rows i and i + N show one speaker.
    """
    near = codes @ codes.T / temperature
    near = near.masked_fill(torch.eye(len(codes), dtype=torch.bool, device=codes.device), -1e4)
    partner = torch.arange(len(codes), device=codes.device).roll(len(codes) // 2)
    return F.cross_entropy(near, partner), (near.argmax(1) == partner).float().mean()


def build_style_encoder(
    model: MorphableModel, clips: Sequence[StyleClip], config: StyleEncoderConfig | None = None
) -> StyleEncoder:
    """A fresh encoder that looks at the main directions of the clips' motion."""
    encoder = StyleEncoder(config or _sized(StyleEncoderConfig(), model))
    _look_at(encoder, model, clips)
    return encoder


def build_style_metric(model: MorphableModel, clips: Sequence[StyleClip]) -> StyleMetric:
    """A fresh metric that looks at the main directions of the clips' motion."""
    metric = StyleMetric(_sized(StyleMetricConfig(), model))
    _look_at(metric, model, clips)
    return metric


def _sized(plan: Config, model: MorphableModel) -> Config:
    """Sizes that fit a morphable model."""
    count = len(model.expression)
    return replace(
        plan,
        lower_vertices=int(model.lower.gt(0).sum()),
        components=min(plan.components, count),
        coupled=min(plan.coupled, count),
    )


def _look_at(network: MotionBasis, model: MorphableModel, clips: Sequence[StyleClip]) -> None:
    taken = torch.cat([c.beta[c.usable][::BASIS_STEP] for c in clips])
    network.set_motion(model.lower.gt(0).nonzero()[:, 0], lower_motion(model, taken))


def check(encoder: StyleNetwork, model: MorphableModel, clips: Sequence[StyleClip]) -> Retrieval:
    """How well clips of speakers that were not trained on find each other."""
    device = encoder.basis.device
    codes = [style_code(encoder, lower_motion(model, c.beta).to(device), c.usable.to(device))
             for c in clips]  # fmt: skip
    return retrieval(torch.stack(codes).cpu(), [c.speaker for c in clips])


def run(options: StyleTrainOptions) -> Path:
    """Train the encoder or the metric; it lies in `options.output` with its log and the held-out
    list.

    Raises:
        InputNotFound: no prepared clips, or fewer than two speakers to train on.
        OptionInvalid: the held-out speakers have no two clips of one of them.
        CheckpointNotFound: no morphable model.
    """
    torch.manual_seed(options.seed)
    device = choose_device(options.device)
    model = load_morphable(options.morphable)
    speakers = load_speakers(options.speakers, prepared_names(options.data))
    cache = options.cache or options.output / "cache"
    clips = load_style_clips(options.data, cache, speakers, model)
    held = held_back({c.name: c.speaker for c in clips}, options.held_out, options.seed)
    kept = [c for c in clips if c.name not in held]
    metric = options.kind == "metric"
    encoder = build_style_metric(model, kept) if metric else build_style_encoder(model, kept)
    sampler = PairSampler(kept, model, encoder, options.seed)
    if len(sampler.clips) < 2:
        raise InputNotFound("fewer than two speakers with two clips or 2 s", path=options.data)
    unseen = [c for c in clips if c.name in held]
    _write_held_out(options.output / HELD_LIST, unseen)
    _train(options, model, encoder.to(device), sampler, unseen)
    return options.output


def _train(
    options: StyleTrainOptions,
    model: MorphableModel,
    encoder: StyleNetwork,
    sampler: PairSampler,
    unseen: Sequence[StyleClip],
) -> None:
    optimiser = torch.optim.AdamW(encoder.parameters(), lr=options.learning_rate, weight_decay=0.05)
    average = torch.optim.swa_utils.AveragedModel(
        encoder,
        multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(EMA),  # type: ignore[no-untyped-call]
    )
    averaged = cast(StyleNetwork, average.module.eval())
    for step in range(options.steps):
        decay = 0.02 + 0.49 * (1 + math.cos(math.pi * step / options.steps))
        for group in optimiser.param_groups:
            group["lr"] = options.learning_rate * min((step + 1) / 50, 1.0) * decay
        components, mask = (x.to(encoder.basis.device) for x in sampler.draw(options.batch_size))
        loss, found = nt_xent(encoder.encode(components, mask), options.temperature)
        optimiser.zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        torch.nn.utils.clip_grad_norm_(encoder.parameters(), 1.0)
        optimiser.step()
        average.update_parameters(encoder)
        done = step + 1
        if done % options.log_every == 0 or done == options.steps:
            row = {"step": done, "loss": loss.item(), "found": found.item()}
            if unseen:
                row |= {f"held_{k}": v for k, v in check(averaged, model, unseen).to_dict().items()}
            append_csv(options.output / "style.csv", row)
            log.info(" ".join(f"{k}={v:.4g}" for k, v in row.items()))
            kind = STYLE_METRIC if options.kind == "metric" else STYLE
            save_network(options.output / f"{kind}.safetensors", kind, averaged)


def _write_held_out(path: Path, clips: Sequence[StyleClip]) -> None:
    """List the clips that were not trained on, as a table of speakers (scripts/style_check.py)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["file", "speaker"])
        writer.writerows([c.name, c.speaker] for c in clips)
