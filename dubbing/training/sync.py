"""`dub train sync`: the audio-motion experts (loss of stage 1, sync score)."""

from __future__ import annotations

import copy
import csv
import json
import logging
import math
import random
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from dubbing.device import choose_device
from dubbing.errors import InputNotFound
from dubbing.geometry.morphable import MorphableModel
from dubbing.geometry.topology import LIPS
from dubbing.models.sync_net import MouthSyncNet, MouthSyncNetConfig, SyncNet, SyncNetConfig
from dubbing.sync import (
    MAX_SURE_OFFSET,
    SURE,
    SYNC,
    SYNC_CROP,
    best_offset,
    offset_distances,
)
from dubbing.training.clips import prepared_names
from dubbing.training.geometry import append_csv
from dubbing.training.options import SyncTrainOptions
from dubbing.training.speakers import held_back, load_speakers
from dubbing.training.sync_data import (
    SyncBatcher,
    SyncClip,
    load_sync_clips,
    with_lags,
)
from dubbing.training.sync_objective import SyncObjective
from dubbing.training.sync_views import MotionView, PictureView, View, disturb_sound, wrong_sizes
from dubbing.weights import load_morphable, load_speech_encoder, save_network
from dubbing.whole_file import whole_file

log = logging.getLogger(__name__)

Expert = SyncNet | MouthSyncNet

JAW = (152, 148, 176, 149, 150, 377, 400, 378, 379, 199, 200, 175, 18, 201, 421, 208, 428, 83, 313)
FIRST_TOLERANCE = 2  # frames by which the offsets may be wrong before they are measured
EMA = 0.995
LIKELY_LAG = 2  # frames
OWN_OFFSET_FRAMES = 60  # clips with fewer scored frames share the offset of their speaker


def build_sync_net(model: MorphableModel, audio_size: int) -> SyncNet:
    """A fresh expert for the lips and the chin of a morphable model's lower face."""
    index = model.lower.gt(0).nonzero()[:, 0].tolist()
    chosen = [index.index(v) for v in sorted({*LIPS, *JAW}) if v in index]
    config = SyncNetConfig(
        audio_size=audio_size, lower_vertices=len(index), points=len(chosen)
    )  # fmt: skip
    net = SyncNet(config)
    net.set_points(torch.tensor(chosen))
    return net


@dataclass(frozen=True)
class Offset:
    """What was measured of a clip: frames by which its picture is late, weight 0 where that is not
    clear, and by how many standard errors it beats the rest."""

    lag: int
    weight: float
    errors: float


def measure_offsets(expert: Expert, view: View, clips: Sequence[SyncClip]) -> dict[str, Offset]:
    """Offsets of clips by an expert that was not trained on them.

    Clips too short to tell share the offset of all short clips of their speaker (they are cut from
    the same broadcast or session). Most clips are nearly in step, so half the evidence will do for
    an offset of up to `LIKELY_LAG` frames; without it a clip or speaker gets weight 0.
    """
    groups: dict[str, list[tuple[str, Tensor]]] = defaultdict(list)
    for clip in clips:
        audio, _ = clip.audio(0, len(clip.mouth))
        motion = view.plain(clip.mouth[None])[0]
        rows = offset_distances(expert, audio, motion, clip.usable)
        seen = int(rows.isfinite().any(1).sum())
        key = clip.name if seen >= OWN_OFFSET_FRAMES else f"speaker {clip.speaker}"
        groups[key].append((clip.name, rows))
    found: dict[str, Offset] = {}
    for members in groups.values():
        lag, errors = best_offset(torch.cat([rows for _, rows in members]))
        needed = SURE / 2 if abs(lag) <= LIKELY_LAG else SURE
        clear = errors >= needed and abs(lag) <= MAX_SURE_OFFSET
        found |= {name: Offset(lag, float(clear), errors) for name, _ in members}
    return found


class Course:
    """The training of one expert: its optimiser, averaged weights, log and resumable state.

    Args:
        steps: in all; the learning rate falls to 2 % over them.
        tolerance: see `SyncObjective`.
        check: clips that are not trained on, for the log.
    """

    def __init__(
        self, net: Expert, view: View, clips: Sequence[SyncClip], options: SyncTrainOptions,
        name: str, steps: int, tolerance: int, check: Sequence[SyncClip] = (),
    ):  # fmt: skip
        self.options, self.view, self.name = options, view, name
        self.steps, self.tolerance = steps, tolerance
        bf16 = options.precision == "bf16-mixed"
        self.objective = SyncObjective(net.requires_grad_(True), bf16)
        self.objective.to(choose_device(options.device))
        self.average = copy.deepcopy(net).requires_grad_(False).eval()
        self.optimiser = torch.optim.AdamW(
            self.objective.parameters(), lr=options.learning_rate, weight_decay=0.05
        )
        self.batcher = SyncBatcher(clips, options.seed)
        self.check = SyncBatcher(check, options.seed) if check else None
        self.path = options.output / f"{name}.state"
        self.step = 0
        if options.resume and self.path.exists():
            self._load()

    def run(self) -> Expert:
        """Train to the end; the averaged network in evaluation mode."""
        o = self.options
        torch.manual_seed(o.seed + self.step)
        while self.step < self.steps:
            terms = self._one_step()
            self.step += 1
            if self.step % o.log_every == 0 or self.step == self.steps:
                self._log(terms)
            if self.step % o.save_every == 0 or self.step == self.steps:
                self._save()
        return self.average

    def _one_step(self) -> dict[str, Tensor]:
        self.objective.train()
        done = self.step / self.steps
        rate = min((self.step + 1) / 50, 1.0) * (0.02 + 0.49 * (1 + math.cos(math.pi * done)))
        for group in self.optimiser.param_groups:
            group["lr"] = self.options.learning_rate * rate
        terms = self._terms(self.batcher, train=True)
        self.optimiser.zero_grad(set_to_none=True)
        terms["loss"].backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(self.objective.parameters(), 1.0)
        self.optimiser.step()
        decay = min(EMA, (1 + self.step) / (10 + self.step))
        with torch.no_grad():
            for mean, now in zip(
                self.average.state_dict().values(),
                self.objective.net.state_dict().values(),
                strict=True,
            ):
                if mean.is_floating_point():
                    mean.lerp_(now.to(mean), 1 - decay)
                else:
                    mean.copy_(now)
        return {k: v.detach() for k, v in terms.items()}

    def _terms(self, batcher: SyncBatcher, train: bool) -> dict[str, Tensor]:
        batch = batcher.draw(self.options.batch_size)
        motion = self.view.disturbed(batch.mouth) if train else self.view.plain(batch.mouth)
        if train:
            batch.audio = disturb_sound(batch.audio, self.average.audio.deviation.cpu())
        batch = batch.to(next(self.objective.parameters()).device)
        motion = motion.to(batch.audio.device)
        resized = None
        if isinstance(self.average, SyncNet):
            resized = motion * wrong_sizes(len(motion)).to(motion)[:, None, None, None]
        terms: dict[str, Tensor] = self.objective(batch, motion, self.tolerance, resized)
        return terms

    @torch.no_grad()
    def _checked(self) -> dict[str, float]:
        if self.check is None:
            return {"check_moment": math.nan, "check_accuracy": math.nan}
        self.objective.eval()
        self.check.random = random.Random(self.options.seed)
        rows = [self._terms(self.check, train=False) for _ in range(2)]
        return {
            f"check_{k}": sum(r[k].item() for r in rows) / len(rows) for k in ("moment", "accuracy")
        }

    def _log(self, terms: dict[str, Tensor]) -> None:
        row: dict[str, float] = {"step": self.step} | {k: v.item() for k, v in terms.items()}
        row |= self._checked()
        append_csv(self.options.output / f"{self.name}.csv", row)
        log.info("%s %s", self.name, " ".join(f"{k}={v:.4g}" for k, v in row.items()))

    def _save(self) -> None:
        state = {
            "objective": self.objective.state_dict(),
            "average": self.average.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "step": self.step,
        }
        with whole_file(self.path) as partial:
            torch.save(state, partial)

    def _load(self) -> None:
        state = torch.load(self.path, weights_only=True)
        self.objective.load_state_dict(state["objective"])
        self.average.load_state_dict(state["average"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.step = state["step"]
        self.batcher.random.seed(f"{self.options.seed} {self.step}")
        log.info("%s resumed at step %d", self.name, self.step)


def run(options: SyncTrainOptions) -> Path:
    """Train an expert; the checkpoint's path.

    First two experts, each trained on half of the speakers, measure the offsets of the other
    half's clips, twice; then one is trained on all with the offsets corrected.

    Raises:
        InputNotFound: no prepared clips, or none with sound.
        CheckpointNotFound: no morphable model or speech encoder.
    """
    options.output.mkdir(parents=True, exist_ok=True)
    model = load_morphable(options.morphable)
    speakers = load_speakers(options.speakers, prepared_names(options.data))
    clips, view = _clips(options, model, speakers)
    held = held_back(speakers, options.held_out, options.seed)
    offsets = _offsets(options, model, view, clips, held)
    clips = with_lags(clips, {name: (o.lag, o.weight) for name, o in offsets.items()})
    used = [c for c in clips if c.name not in held and c.weight > 0]
    check = [c for c in clips if c.name in held and c.weight > 0]
    if not used:
        raise InputNotFound("no clip whose mouth follows its sound", path=options.data)
    net = _fresh(options, model, used)
    kind = SYNC if options.kind == "geometry" else SYNC_CROP
    course = Course(net, view, used, options, kind, options.steps, 0, check)
    path = options.output / f"{kind}.safetensors"
    save_network(path, kind, course.run(), half=True)
    return path


def _clips(
    options: SyncTrainOptions, model: MorphableModel, speakers: dict[str, str]
) -> tuple[list[SyncClip], View]:
    cache = options.cache or options.output / "cache"
    encoder = load_speech_encoder(options.speech_encoder)
    pictures = options.kind == "crop"
    clips = load_sync_clips(options.data, cache, speakers, model, encoder, pictures)
    if not clips:
        what = "with sound and stored crops" if pictures else "with sound"
        raise InputNotFound(f"no prepared clip lasts half a second {what}", path=options.data)
    return clips, PictureView(options.seed) if pictures else MotionView(model, options.seed)


def _fresh(options: SyncTrainOptions, model: MorphableModel, clips: Sequence[SyncClip]) -> Expert:
    """An untrained expert that knows the mean and deviation of the features."""
    torch.manual_seed(options.seed)
    some = torch.cat([c.sounds[0][::5].float() for c in clips])
    net: Expert
    if options.kind == "geometry":
        net = build_sync_net(model, some.shape[1])
    else:
        net = MouthSyncNet(MouthSyncNetConfig(audio_size=some.shape[1]))
    net.audio.set_statistics(some.mean(0), some.std(0).clamp_min(1e-3))
    return net


def _offsets(
    options: SyncTrainOptions, model: MorphableModel, view: View, clips: Sequence[SyncClip],
    held: set[str],
) -> dict[str, Offset]:  # fmt: skip
    """Offsets of all clips, each by an expert that never met its speaker."""
    path = options.offsets or options.output / "offsets.csv"
    if path.exists():
        with path.open(newline="") as file:
            return {
                row["clip"]: Offset(int(row["lag"]), float(row["weight"]), float(row["errors"]))
                for row in csv.DictReader(file)
            }
    if not options.rough_steps:
        return {}
    people = sorted({c.speaker for c in clips if c.name not in held})
    random.Random(options.seed).shuffle(people)
    halves = [set(people[::2]), set(people[1::2])]
    offsets: dict[str, Offset] = {}
    nets = [_fresh(options, model, clips) for _ in halves]
    for turn in range(2):
        known = with_lags(clips, {name: (o.lag, o.weight) for name, o in offsets.items()})
        found: dict[str, Offset] = {}
        for k, half in enumerate(halves):
            own = [c for c in known if c.speaker in half and c.weight > 0]
            tolerance = 0 if turn else FIRST_TOLERANCE
            course = Course(nets[k], view, own, options, f"rough{k}{turn}",
                            options.rough_steps, tolerance)  # fmt: skip
            nets[k] = course.run()
            others = halves[1 - k] if k else {c.speaker for c in clips} - half
            found |= measure_offsets(nets[k], view, [c for c in clips if c.speaker in others])
        offsets = found
        _report(offsets, turn)
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["clip", "lag", "weight", "errors"])
        for name, o in sorted(offsets.items()):
            writer.writerow([name, o.lag, o.weight, f"{o.errors:.3f}"])
    return offsets


def _report(offsets: dict[str, Offset], turn: int) -> None:
    kept = [o.lag for o in offsets.values() if o.weight > 0]
    counts = {lag: kept.count(lag) for lag in sorted(set(kept))}
    log.info("offsets, round %d: left out %d of %d clips; frames late: %s",
             turn + 1, len(offsets) - len(kept), len(offsets), json.dumps(counts))  # fmt: skip
