"""`dub train renderer`: stage 2, geometry and references to pixels."""

from __future__ import annotations

import logging
import math
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, cast

import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor, nn

from dubbing.errors import CheckpointNotFound, InputNotFound
from dubbing.models.discriminator import (
    PatchDiscriminator,
    discriminator_loss,
    feature_matching,
    generator_loss,
)
from dubbing.models.perceptual import PerceptualLoss
from dubbing.models.renderer import Renderer, RendererConfig, blurred
from dubbing.models.window_renderer import WindowRenderer
from dubbing.render.scene import LIP_WINDOW, cut
from dubbing.training.clips import fitted, prepared_names
from dubbing.training.devices import average_gradients, launched
from dubbing.training.geometry import append_csv
from dubbing.training.options import RendererTrainOptions
from dubbing.training.render_clips import load_render_clips
from dubbing.training.render_data import RenderBatch, RenderBatcher, to_device
from dubbing.weights import RENDERER, load_morphable, load_renderer, save_network

log = logging.getLogger(__name__)

L1, PERCEPTUAL, COPIED, ADVERSARIAL, MATCHING, TEMPORAL = 10.0, 0.5, 6.0, 0.004, 0.2, 5.0
SMOOTH = 1.6  # px: the decoder answers for colours; of detail L1 would only take away
LIP_WEIGHT = 3.0
DETAIL_SHARPNESS = 7.0  # detail is chosen with logits about 8 times those of the coarse band
LIP_COST = 7.0  # of a unit of expression difference: lips come from one or two references
MOUTH_COST = 60.0  # of a unit between whole mouths
FACE_TURN = 20.0  # of a radian between the heads: the skin of another pose has another light
PRIOR_RATE = 20.0  # times the learning rate: single numbers that many pixels agree on
EMA = 0.99
VALIDATION = 32  # targets


def rendered(stage: nn.Module, b: RenderBatch) -> tuple[Tensor, Tensor]:
    """The rendered windows of a batch and, before the decoder's repair, the copied ones."""
    made, copied = stage(
        b.pictures, b.lip_pncc, b.pncc, b.lips, b.corner, b.face_match, b.lip_match
    )
    return made, copied


def changed(pictures: Tensor, pairs: int) -> Tensor:
    """How each pair of neighbours in [B, 3, h, w] differs: [pairs, 3, h, w]."""
    return pictures[1 : 2 * pairs : 2] - pictures[: 2 * pairs : 2]


def psnr(made: Tensor, truth: Tensor, weight: Tensor) -> Tensor:
    """Weighted PSNR in dB per picture [B]; pictures in 0..1."""
    error = (made.clamp(0, 1) - truth).square().mean(1, keepdim=True) * weight
    return -10 * (error.sum((1, 2, 3)) / weight.sum((1, 2, 3)).clamp_min(1)).log10()


def sharpness(picture: Tensor, weight: Tensor) -> Tensor:
    """Mean squared Laplacian of the grey picture [B] where `weight` counts."""
    grey = picture.clamp(0, 1).mean(1, keepdim=True)
    kernel = grey.new_tensor([[0.0, 1.0, 0.0], [1.0, -4.0, 1.0], [0.0, 1.0, 0.0]]).view(1, 1, 3, 3)
    bend = F.conv2d(F.pad(grey, (1, 1, 1, 1), mode="replicate"), kernel).square()
    return (bend * weight).sum((1, 2, 3)) / weight.sum((1, 2, 3)).clamp_min(1)


def run(options: RendererTrainOptions) -> Path:
    """Train stage 2; the newest checkpoint lies in `options.output` at every save."""
    fabric = launched(options)
    model = load_morphable(options.morphable)
    cache = options.output / "cache"
    names = [n for n in prepared_names(options.data) if (options.data / f"{n}.crops.npz").exists()]
    fits = [fitted(options.data, cache, name, model) for name in names]
    clips = load_render_clips(options.data, cache, fits, model)
    if not clips:
        raise InputNotFound("no clip has face crops large enough", path=options.data)
    held = clips[:: max(len(clips) // 16, 2)] if len(clips) >= 4 else []
    kept = [c for c in clips if c not in held] or clips
    seed = options.seed + fabric.global_rank
    batcher = RenderBatcher(kept, model, seed, options.jitter)
    check = RenderBatcher(held or clips, model, 0)
    _Trainer(fabric, options, batcher, check).train()
    return options.output


def _groups(stage: WindowRenderer, rate: float) -> list[dict[str, Any]]:
    """Parameters of the optimiser: single numbers of the geometric priors learn faster."""
    learned = [p for p in stage.parameters() if p.requires_grad]
    priors = [p for p in learned if p.dim() == 0]
    rest = [p for p in learned if p.dim() > 0]
    return [
        {"params": rest, "lr": rate, "rate": rate},
        {"params": priors, "lr": rate, "rate": PRIOR_RATE * rate, "weight_decay": 0.0},
    ]


class _Trainer:
    """The optimisation loop with its averaged weights, logs and resumable state."""

    def __init__(
        self, fabric: Any, options: RendererTrainOptions, batcher: RenderBatcher,
        check: RenderBatcher,
    ):  # fmt: skip
        self.fabric, self.options, self.batcher = fabric, options, batcher
        start = options.start
        stage = WindowRenderer(
            Renderer(RendererConfig()) if start is None else load_renderer(start)
        )
        stage.requires_grad_(True).train()
        # How sharply references are chosen is a decision, not a regression: L1 would choose the
        # mean, which washes out teeth and the line between the lips.
        for head in (stage.renderer.face, stage.renderer.lip):
            head.sharpness.requires_grad_(False).fill_(DETAIL_SHARPNESS)
        stage.renderer.lip.cost_scale.requires_grad_(False).fill_(LIP_COST)
        stage.renderer.lip.mouth_scale.requires_grad_(False).fill_(MOUTH_COST)
        stage.renderer.face.turn_scale.requires_grad_(False).fill_(FACE_TURN)
        judge = nn.ModuleList([PatchDiscriminator(), PatchDiscriminator()])
        self.average = torch.optim.swa_utils.AveragedModel(
            stage.to(fabric.device),
            multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(EMA),  # type: ignore[no-untyped-call]
        )
        rate = options.learning_rate
        optimiser = torch.optim.AdamW(_groups(stage, rate), rate, betas=(0.9, 0.99))
        judging = torch.optim.AdamW(judge.parameters(), rate, betas=(0.5, 0.99))
        self.stage, self.optimiser = fabric.setup(stage, optimiser)
        self.judge, self.judging = fabric.setup(judge, judging)
        for network in self.judge.module:
            network.requires_grad_(True)
        self.perceptual: PerceptualLoss | None = None
        if options.perceptual is not None:
            if not options.perceptual.is_file():
                raise CheckpointNotFound("no such weights", path=options.perceptual)
            self.perceptual = PerceptualLoss()
            self.perceptual.load_state_dict(load_file(options.perceptual))
            self.perceptual = self.perceptual.to(fabric.device)
        else:
            log.warning("training without the perceptual loss: no weights were given")
        self.validation = [
            to_device(check.draw(options.batch_size), fabric.device)
            for _ in range(max(VALIDATION // options.batch_size, 1))
        ]
        self.step = 0
        self.path = options.output / "renderer-state.ckpt"
        if options.resume and self.path.exists():
            state = self._state()
            fabric.load(self.path, state, weights_only=True)
            self.step = state["step"]
            batcher.random.seed(f"{options.seed} {fabric.global_rank} {self.step}")
            log.info("resumed at step %d", self.step)

    def _state(self) -> dict[str, Any]:
        return {
            "stage": self.stage,
            "judge": self.judge,
            "average": self.average,
            "optimiser": self.optimiser,
            "judging": self.judging,
            "step": self.step,
        }

    def train(self) -> None:
        with ThreadPoolExecutor(1) as self.drawing:  # the next batch is drawn beside the step
            self.drawn = self.drawing.submit(self.batcher.draw, self.options.batch_size)
            self._train()

    def _train(self) -> None:
        o = self.options
        if self.step == 0:
            self._log({}, self._validate(self.stage))
        while self.step < o.steps:
            terms = self._one_step()
            self.step += 1
            last = self.step == o.steps
            if self.step % (o.log_every * 8) == 0 or last:
                self._log(terms, self._validate(self.average.module))
            elif self.step % o.log_every == 0:
                self._log(terms, {})
            if self.step % o.save_every == 0 or last:
                self._save()

    def _one_step(self) -> dict[str, float]:
        o = self.options
        decay = 0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi * self.step / o.steps))
        for group in self.optimiser.param_groups:
            group["lr"] = group["rate"] * min((self.step + 1) / 50, 1.0) * decay
        batch = to_device(self.drawn.result(), self.fabric.device)
        self.drawn = self.drawing.submit(self.batcher.draw, o.batch_size)
        made, copied = rendered(self.stage, batch)
        made, copied = made.float(), copied.float()
        weight = 0.1 + batch.mask + LIP_WEIGHT * batch.lips
        terms = {
            "l1": L1 * (blurred(made - batch.truth, SMOOTH).abs() * weight).mean(),
            "copied": COPIED * ((copied - batch.truth).abs() * weight).mean(),
        }
        if batch.pairs:
            changes = (changed(made, batch.pairs) - changed(batch.truth, batch.pairs)).abs()
            terms["temporal"] = TEMPORAL * (changes * weight[: 2 * batch.pairs : 2]).mean()
        boxes = [cut(x, batch.corner, LIP_WINDOW) for x in (made, batch.truth)]
        if self.perceptual is not None:
            with self.fabric.autocast():
                terms["perceptual"] = PERCEPTUAL * self.perceptual(*boxes)
        # outside the mask the truth stands in, so that the judges look at what will be seen
        shown = made * batch.mask + batch.truth * (1 - batch.mask)
        if self.step >= o.adversarial_from:
            terms |= self._adversarial(shown, batch.truth, boxes)
        loss = torch.stack(list(terms.values())).sum()
        self.optimiser.zero_grad(set_to_none=True)
        self.fabric.backward(loss)
        self.fabric.clip_gradients(self.stage, self.optimiser, max_norm=1.0)
        self.optimiser.step()
        self.average.update_parameters(self.stage.module)
        return {k: float(v.detach()) for k, v in terms.items()}

    def _adversarial(self, made: Tensor, truth: Tensor, boxes: list[Tensor]) -> dict[str, Tensor]:
        """Generator terms, after one step of both discriminators (face window, mouth window)."""
        pairs = [(made, truth), (boxes[0], boxes[1])]
        judge_loss = torch.zeros((), device=made.device)
        scored = []
        for network, (fake, real) in zip(self.judge.module, pairs, strict=True):
            real_score, real_features = network(real)
            fake_score, _ = network(fake.detach())
            judge_loss = judge_loss + discriminator_loss(real_score, fake_score)
            scored.append([f.detach() for f in real_features])
        self.judging.zero_grad(set_to_none=True)
        self.fabric.backward(judge_loss)
        average_gradients(self.fabric, self.judge)
        self.judging.step()
        self.judge.requires_grad_(False)
        adversarial, matching = [], []
        for network, (fake, _), real_features in zip(self.judge.module, pairs, scored, strict=True):
            score, features = network(fake)
            adversarial.append(generator_loss(score))
            matching.append(feature_matching(real_features, features))
        self.judge.requires_grad_(True)
        return {
            "adversarial": ADVERSARIAL * torch.stack(adversarial).sum(),
            "matching": MATCHING * torch.stack(matching).sum(),
        }

    @torch.no_grad()
    def _validate(self, stage: nn.Module) -> dict[str, float]:
        stage.eval()
        rows = []
        for batch in self.validation:
            made, copied = rendered(stage, batch)
            mouth = batch.lips
            rows.append(
                torch.stack(
                    [
                        psnr(made, batch.truth, batch.mask),
                        psnr(copied, batch.truth, batch.mask),
                        psnr(made, batch.truth, mouth),
                        sharpness(made, batch.mask) / sharpness(batch.truth, batch.mask),
                        sharpness(made, mouth) / sharpness(batch.truth, mouth),
                    ],
                    1,
                )
            )
        stage.train()
        table = torch.cat(rows).float()
        names = ("psnr", "psnr_copied", "psnr_lips", "sharpness", "sharpness_lips")
        means = [*table[:, :3].mean(0).tolist(), *table[:, 3:].median(0).values.tolist()]
        return dict(zip(names, means, strict=True))

    def _log(self, terms: dict[str, float], scores: dict[str, float]) -> None:
        if not self.fabric.is_global_zero:
            return
        names = ("l1", "copied", "temporal", "perceptual", "adversarial", "matching", "psnr",
                 "psnr_copied", "psnr_lips", "sharpness", "sharpness_lips")  # fmt: skip
        found = terms | scores
        row = {"step": float(self.step)} | {n: found.get(n, float("nan")) for n in names}
        append_csv(self.options.output / "renderer.csv", row)
        log.info(" ".join(f"{k}={v:.4g}" for k, v in (found | {"step": self.step}).items()))

    def _save(self) -> None:
        self.fabric.save(self.path, self._state())
        if self.fabric.is_global_zero:
            averaged = cast(WindowRenderer, self.average.module)
            save_network(
                self.options.output / f"{RENDERER}.safetensors", RENDERER, averaged.renderer
            )
