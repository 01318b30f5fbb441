"""Training windows of stage 1: sound, lips, style and template that belong together."""

from __future__ import annotations

import csv
import logging
import random
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from torch import Tensor

from dubbing.errors import InputNotFound, OptionInvalid
from dubbing.geometry.morphable import MorphableModel
from dubbing.speech.features import FEATURE_CENTRE_S, FEATURE_RATE
from dubbing.training.clips import RATE, at_rate, fitted, load_care, load_speech_samples
from dubbing.training.speech_states import (
    CORE,
    LENGTH,
    STEP,
    Extractor,
    SpeechStates,
    speech_states,
)

log = logging.getLogger(__name__)

WINDOW = 96  # frames at 25 Hz, 3.8 s
STYLE_FRAMES = 100
CLEAN_SHARE = 0.4  # of the windows that come from the recording itself
OTHER_STYLE_SHARE = 0.4  # of the windows whose style comes from another clip of the speaker


@dataclass(frozen=True)
class Example:
    """A clip at 25 Hz: beta [T, E], usable [T], template [V, 3], states, lag of the lips behind
    the sound in frames, weight 0 where the clip is left out, who speaks, and whether the lag was
    measured by somebody who knows."""

    name: str
    beta: Tensor
    usable: Tensor
    template: Tensor
    states: SpeechStates
    lag: int = 0
    weight: float = 1.0
    speaker: str = ""
    known: bool = False


@dataclass(frozen=True)
class Window:
    """What one row of a batch is cut from."""

    example: Example
    start: int  # first frame at 25 Hz
    piece: int  # window of the speech states
    style: Example
    style_start: int = 0


@dataclass
class Batch:
    """B windows of T frames; see `collate` for what is what."""

    windows: Tensor
    places: Tensor
    style: Tensor
    style_mask: Tensor
    template: Tensor
    mask: Tensor
    target: Tensor
    names: list[str] = field(default_factory=list)

    def to(self, device: torch.device) -> Batch:
        moved = {k: v.to(device) for k, v in vars(self).items() if isinstance(v, Tensor)}
        return Batch(**moved, names=self.names)


def load_examples(
    folder: Path,
    cache: Path,
    speakers: dict[str, str],
    model: MorphableModel,
    extract: Extractor,
    suffix: str = "",
) -> list[Example]:
    """Fit every clip and encode its sound, from the cache where possible.

    Args:
        speakers: {clip: speaker} of the clips to load.
        suffix: tells the cached features of one extractor from those of another.
    """
    examples = []
    for k, (name, speaker) in enumerate(speakers.items()):
        clip = fitted(folder, cache, name, model)
        samples = load_speech_samples(folder, name)
        if len(samples) < 3200 or clip.times[-1] < 0.5:
            continue
        beta, usable = at_rate(clip)
        states = speech_states(extract, samples, cache, name + suffix, seed=k)
        count = min(len(beta), int(len(samples) / 16000 * RATE))
        examples.append(
            Example(
                name,
                beta[:count],
                usable[:count],
                clip.template,
                states,
                clip.lag,
                clip.weight,
                speaker,
                load_care(folder, name).sure,
            )
        )
        if k % 100 == 0:
            log.info("loaded %d of %d clips", k, len(speakers))
    return examples


def with_offsets(examples: Sequence[Example], table: Path) -> list[Example]:
    """Examples with the lags of a table ('dub train sync' writes offsets.csv), where it is sure.

    Raises:
        InputNotFound: no such file.
        OptionInvalid: not a table with the columns clip, lag and weight.
    """
    if not table.is_file():
        raise InputNotFound("no such table of offsets", path=table)
    with table.open(newline="") as file:
        rows = list(csv.DictReader(file))
    try:
        sure = {r["clip"]: int(float(r["lag"])) for r in rows if float(r["weight"]) > 0}
    except (KeyError, ValueError) as error:
        raise OptionInvalid(
            "a table of offsets needs the columns clip, lag and weight", path=table
        ) from error
    return [
        replace(e, lag=sure[e.name], weight=1.0, known=True) if e.name in sure else e
        for e in examples
    ]


def feature_places(times: Tensor, stretch: float) -> Tensor:
    """Fractional 50-Hz frames [2 T] of the two features of each frame time [T] (seconds); the
    sound of a moment t lies at t / stretch."""
    pairs = (times[:, None] + torch.tensor([-0.01, 0.01], dtype=times.dtype)).flatten()
    return (pairs / stretch - FEATURE_CENTRE_S) * FEATURE_RATE


class Batcher:
    """Draws training windows."""

    def __init__(self, examples: list[Example], model: MorphableModel, seed: int):
        self.examples, self.model = examples, model
        self.random = random.Random(seed)
        self.lower = model.lower.gt(0).nonzero()[:, 0]

    def draw(self, size: int) -> Batch:
        """`size` windows of clips with a weight, longer clips more often."""
        weights = [e.weight * min(len(e.beta), 500) ** 0.7 for e in self.examples]
        picked = self.random.choices(self.examples, weights, k=size)
        return self.collate([self._window(e) for e in picked])

    def _window(self, e: Example) -> Window:
        variants = len(e.states.stretch)
        clean = variants == 1 or self.random.random() < CLEAN_SHARE
        variant = 0 if clean else self.random.randint(1, variants - 1)
        piece = int(self.random.choice(e.states.of(variant).tolist()))
        stretch = float(e.states.stretch[variant])
        centre = (int(e.states.first[piece]) + LENGTH // 2) / FEATURE_RATE * stretch * RATE
        reach = CORE / FEATURE_RATE * stretch * RATE  # frames of the core on either side
        last = max(len(e.beta) - WINDOW, 0)
        low = min(max(round(centre - reach), 0), last)
        high = min(max(round(centre + reach) - WINDOW, low), last)
        start = self.random.randint(low, high)
        other = e
        if self.random.random() < OTHER_STYLE_SHARE:
            same = [x for x in self.examples if x.speaker == e.speaker and x.weight > 0]
            other = self.random.choice(same) if same else e
        spare = max(len(other.beta) - STYLE_FRAMES, 0)
        return Window(e, start, piece, other, self.random.randint(0, spare))

    def collate(self, items: Sequence[Window]) -> Batch:
        """Windows as one padded batch.

        Returns:
            windows [B, LENGTH, 2 D] float32 as cached, places [B, 2 WINDOW] fractional frames in
            them, style [B, S, V, 3] expressions and style_mask [B, S], template [B, V, 3], mask
            [B, T] where target [B, T, L, 3] is known.
        """
        rows: dict[str, list[Tensor]] = {k: [] for k in Batch.__annotations__ if k != "names"}
        for item in items:
            e = item.example
            time = torch.arange(item.start, item.start + WINDOW)
            shown = time + e.lag
            inside = (time < len(e.beta)) & (shown >= 0) & (shown < len(e.beta))
            shown = shown.clamp(0, len(e.beta) - 1)
            stretch = float(e.states.stretch[int(e.states.variant[item.piece])])
            places = feature_places(time / RATE, stretch) - int(e.states.first[item.piece])
            heard = (places >= 0) & (places <= LENGTH - 1)
            rows["windows"].append(e.states.windows[item.piece].float())
            rows["places"].append(places.clamp(0, LENGTH - 1))
            seen = torch.arange(item.style_start, item.style_start + STYLE_FRAMES)
            own = item.style.beta[seen.clamp_max(len(item.style.beta) - 1)]
            rows["style"].append(self.model.expression_vertices(own))
            rows["style_mask"].append(seen < len(item.style.beta))
            rows["template"].append(e.template)
            rows["mask"].append((inside & e.usable[shown] & heard.view(-1, 2).all(1)).float())
            rows["target"].append(self.model.expression_vertices(e.beta[shown])[:, self.lower])
        stacked = {k: torch.stack(v) for k, v in rows.items()}
        return Batch(**stacked, names=[i.example.name for i in items])


def sample_windows(windows: Tensor, places: Tensor) -> Tensor:
    """Features [B, P, D] at fractional frames `places` [B, P] of windows [B, LENGTH, D]."""
    left = places.floor().long().clamp(0, windows.shape[1] - 1)
    right = (left + 1).clamp_max(windows.shape[1] - 1)
    share = (places - left).to(windows.dtype)[..., None]

    def at(index: Tensor) -> Tensor:
        return windows.gather(1, index[..., None].expand(-1, -1, windows.shape[2]))

    return torch.lerp(at(left), at(right), share)


def joined_windows(windows: Tensor, first: Tensor, total: int) -> Tensor:
    """One variant's windows [W, LENGTH, D] that begin at `first` [W] as one track [total, D]; as
    in the engine each frame is the mean of the windows with the nearest centres."""
    out = torch.zeros(total, windows.shape[2])
    weight = torch.zeros(total, 1)
    for row, start in zip(windows, first.tolist(), strict=True):
        low, high = max(start, 0), min(start + LENGTH, total)
        distance = (torch.arange(low, high) - (start + LENGTH // 2)).abs()
        ramp = (1 - distance / STEP).clamp_min(1e-4)[:, None]
        out[low:high] += row[low - start : high - start].float() * ramp
        weight[low:high] += ramp
    return out / weight.clamp_min(1e-9)
