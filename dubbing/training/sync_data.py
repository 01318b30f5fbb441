"""Training windows of the sync experts: sound and mouth that belong together, as far as known."""

from __future__ import annotations

import logging
import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dubbing.geometry.morphable import MorphableModel
from dubbing.models.speech_encoder import SpeechEncoder
from dubbing.motion import RATE
from dubbing.speech.features import FEATURE_RATE, to_rate
from dubbing.speech.mel import SAMPLE_RATE
from dubbing.sync import feature_times
from dubbing.training.clips import at_rate, fitted, load_speech_samples
from dubbing.training.geometry_data import joined_windows
from dubbing.training.mouth_pictures import mouth_pictures
from dubbing.training.speech_states import own_features, speech_states
from dubbing.whole_file import save_arrays

log = logging.getLogger(__name__)

WINDOW = 40  # frames of mouth, 1.6 s
MARGIN = 12  # frames of sound more on either side: room for wrong offsets
CLEAN_SHARE = 0.5  # of the windows whose sound is the recording itself


@dataclass(frozen=True)
class SyncClip:
    """A clip at 25 Hz.

    Attributes:
        name, speaker: what is filmed, and who.
        mouth: [T, ...] expressions [T, E], or mouth pictures [T, H, W] uint8.
        usable: [T] bool where the mouth is to be trusted.
        sounds: features [T50, A] float16 of the recording and its disturbed versions.
        stretch: a sound at time t lies at t / stretch in each version.
        lag: frames by which the picture is late behind the sound.
        weight: 0 where the clip is left out.
    """

    name: str
    speaker: str
    mouth: Tensor
    usable: Tensor
    sounds: tuple[Tensor, ...]
    stretch: tuple[float, ...]
    lag: int = 0
    weight: float = 1.0

    def audio(self, start: int, frames: int, variant: int = 0) -> tuple[Tensor, Tensor]:
        """Features [2 frames, A] of the frames from `start` on (may be negative) and where the
        sound is there, [frames] bool."""
        stretch, sound = self.stretch[variant], self.sounds[variant]
        times = (feature_times(frames) + start / RATE) / stretch
        place = times * FEATURE_RATE
        inside = (place >= 0) & (place < len(sound))
        low = min(max(int(place[0]) - 2, 0), len(sound) - 1)
        part = sound[low : max(int(place[-1]) + 4, low + 1)]
        taken = to_rate(part.float(), times - low / FEATURE_RATE)
        return taken, inside.view(-1, 2).all(1)


def clip_sounds(
    encoder: SpeechEncoder, samples: Tensor, cache: Path, name: str, seed: int
) -> tuple[tuple[Tensor, ...], tuple[float, ...]]:
    """Features of a clip's sound, as recorded and disturbed, and their stretch; from the windows
    that stage 1 caches too, joined once and cached under `name`."""
    path = cache / f"{name}.sounds.npz"
    if not path.exists():
        states = speech_states(own_features(encoder), samples, cache, name, seed)
        arrays: dict[str, Any] = {"stretch": states.stretch.numpy()}
        for k, total in enumerate(states.counts.tolist()):
            rows = states.of(k)
            lower = states.windows[rows][..., : encoder.config.width]
            joined = joined_windows(lower, states.first[rows], total)
            arrays[f"sound{k}"] = joined.half().numpy()
        save_arrays(path, **arrays)
    with np.load(path) as file:
        stretch = tuple(file["stretch"].tolist())
        return tuple(torch.from_numpy(file[f"sound{k}"]) for k in range(len(stretch))), stretch


def load_sync_clips(
    folder: Path,
    cache: Path,
    speakers: dict[str, str],
    model: MorphableModel,
    encoder: SpeechEncoder,
    pictures: bool,
) -> list[SyncClip]:
    """Clips of half a second and more: the expressions of their fits or, with `pictures`, their
    mouths, where faces were large enough to be stored."""
    clips = []
    for k, (name, speaker) in enumerate(speakers.items()):
        samples = load_speech_samples(folder, name)
        fit = fitted(folder, cache, name, model)
        if len(samples) < SAMPLE_RATE // 2 or fit.times[-1] < 0.5:
            continue
        mouth, usable = at_rate(fit)
        if pictures:
            found = mouth_pictures(folder, cache, name)
            if found is None:
                continue
            mouth, usable = found[0], usable & found[1]
        count = min(len(mouth), int(len(samples) / SAMPLE_RATE * RATE))
        sounds, stretch = clip_sounds(encoder, samples, cache, name, seed=k)
        clips.append(SyncClip(name, speaker, mouth[:count], usable[:count], sounds, stretch))
        if k % 100 == 0:
            log.info("loaded %d of %d clips", k, len(speakers))
    return clips


@dataclass
class SyncBatch:
    """B windows.

    Attributes:
        mouth: [B, WINDOW, ...] as in the clips.
        seen: [B, WINDOW] bool where it is to be trusted.
        audio: [B, 2 (WINDOW + 2 MARGIN), A]; its frame MARGIN belongs to mouth frame 0.
        heard: [B, WINDOW + 2 MARGIN] bool where there is sound.
        same: [B, B] bool, True where two rows are of one clip.
    """

    mouth: Tensor
    seen: Tensor
    audio: Tensor
    heard: Tensor
    same: Tensor

    def to(self, device: torch.device) -> SyncBatch:
        return SyncBatch(**{k: v.to(device) for k, v in vars(self).items()})


class SyncBatcher:
    """Draws training windows."""

    def __init__(self, clips: Sequence[SyncClip], seed: int):
        self.clips = list(clips)
        self.random = random.Random(seed)

    def draw(self, size: int) -> SyncBatch:
        """`size` windows of clips with a weight, longer clips more often."""
        weights = [c.weight * min(len(c.mouth), 500) ** 0.7 for c in self.clips]
        picked = self.random.choices(self.clips, weights, k=size)
        rows = [self._window(clip) for clip in picked]
        names = [clip.name for clip in picked]
        same = torch.tensor([[a == b for b in names] for a in names])
        mouth, seen, audio, heard = (torch.stack(part) for part in zip(*rows, strict=True))
        return SyncBatch(mouth, seen, audio, heard, same)

    def _window(self, clip: SyncClip) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        spare = max(len(clip.mouth) - WINDOW, 0)
        start = self.random.randint(0, spare)
        time = torch.arange(start, start + WINDOW)
        place = time.clamp_max(len(clip.mouth) - 1)
        seen = clip.usable[place] & (time < len(clip.mouth))
        clean = len(clip.sounds) == 1 or self.random.random() < CLEAN_SHARE
        variant = 0 if clean else self.random.randint(1, len(clip.sounds) - 1)
        first = start - clip.lag - MARGIN
        audio, heard = clip.audio(first, WINDOW + 2 * MARGIN, variant)
        return clip.mouth[place], seen, audio, heard


def with_lags(clips: Sequence[SyncClip], lags: dict[str, tuple[int, float]]) -> list[SyncClip]:
    """Clips with the lag and weight that `lags` has for them."""
    return [
        replace(c, lag=lags[c.name][0], weight=lags[c.name][1]) if c.name in lags else c
        for c in clips
    ]


def mirror_map(mean: Tensor, index: Tensor) -> Tensor:
    """For each of the vertices `index` [L] of the mean face [V, 3] the place in `index` of its
    mirror image."""
    points = mean[index]
    mirrored = points * torch.tensor([-1.0, 1.0, 1.0])
    return torch.cdist(mirrored, points).argmin(1)
