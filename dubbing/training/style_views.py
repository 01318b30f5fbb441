"""Pairs of windows that show one manner of speaking in different words and recordings.

What must not count as style is varied: the neutral face that a clip's template was estimated from,
the angle at which the camera saw the face, the size of the face, the tracker's smoothing, the
clock. What counts is invented too: a few hundred people are few, so each pair is also moved to a
manner of its own (wider, flatter, more crooked), the same in both windows. A speaker who occurs
twice in a batch then gives negatives that differ in manner alone.
"""

from __future__ import annotations

import logging
import math
import random
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from dubbing.errors import InputNotFound
from dubbing.evaluation.style import MIN_FRAMES
from dubbing.geometry.morphable import MorphableModel
from dubbing.geometry.topology import INNER_BOTTOM, INNER_TOP
from dubbing.models.motion_basis import MotionBasis
from dubbing.training.clips import at_rate, fitted

log = logging.getLogger(__name__)

SHORTEST, LONGEST = 40, 80  # frames of a window at 25 Hz
GAP = 4  # unknown frames between two clips in one window
CUT = (0.4, 0.6)  # share of an only clip at which its two windows part
SPEED = 0.1  # share by which a window is slowed or hurried
CLOCK = 0.1  # frames, deviation of the moments at which it is sampled
SMOOTHED = 0.8  # frames, largest deviation of the blur that stands for other trackers
RESTED_SHARE = 0.5  # of the windows get a neutral face of their own
CLOSED_SHARE = 0.3  # of the frames, least open, that a template is estimated from
TURN = math.radians(5)  # deviation of the wrong angle from which a face may have been seen
SIZE = 0.03  # deviation of the wrong size
AMPLITUDE = 0.3  # deviation of the logarithm of an invented manner's amplitudes
COUPLING = 0.15  # deviation of the share of one component that another one brings along


Window = tuple[Tensor, Tensor]  # expressions [T, E] and which of them are usable [T]


@dataclass(frozen=True)
class StyleClip:
    """Expressions [T, E] of a clip at 25 Hz, which of them are usable [T], and who speaks."""

    name: str
    speaker: str
    beta: Tensor
    usable: Tensor


def load_style_clips(
    folder: Path, cache: Path, speakers: dict[str, str], model: MorphableModel
) -> list[StyleClip]:
    """Fit the clips of `speakers` (name -> speaker); those too short to show a style are left out.

    Raises:
        InputNotFound: none is long enough.
    """
    clips = []
    for name, speaker in speakers.items():
        fit = fitted(folder, cache, name, model)
        if len(fit.times) < MIN_FRAMES:
            continue
        beta, usable = at_rate(fit)
        if usable.sum() >= MIN_FRAMES:
            clips.append(StyleClip(name, speaker, beta, usable))
    if not clips:
        raise InputNotFound("no prepared clip shows a face for 0.8 s", path=folder)
    log.info("%d of %d clips are long enough", len(clips), len(speakers))
    return clips


class PairSampler:
    """Draws pairs of windows for a style encoder or metric whose buffers are set."""

    def __init__(
        self, clips: Sequence[StyleClip], model: MorphableModel, encoder: MotionBasis, seed: int
    ):
        self.random = random.Random(seed)
        self.generator = torch.Generator().manual_seed(seed)
        index = encoder.lower.tolist()
        self.expression = model.expression[:, encoder.lower]
        basis = torch.unflatten(encoder.basis, 0, (-1, 3))
        self.projected = torch.einsum("elc,ldk->cdek", self.expression, basis)  # [3, 3, E, K]
        jaw = self.expression[:, index.index(INNER_BOTTOM)]
        self.opening = (jaw - self.expression[:, index.index(INNER_TOP)])[:, 1]
        by = defaultdict(list)
        for clip in clips:
            by[clip.speaker].append(clip)
        self.clips = {
            who: own for who, own in sorted(by.items()) if len(own) > 1 or shows_twice(own[0])
        }

    def draw(self, size: int) -> tuple[Tensor, Tensor]:
        """`size` pairs: components [2 size, T, K] for `StyleEncoder.encode` and mask [2 size, T];
        rows i and i + size show one manner.

        Speakers with two or more clips come twice as often: only their pairs show what stays from
        recording to recording.
        """
        weights = [2.0 if len(own) > 1 else 1.0 for own in self.clips.values()]
        pairs: list[tuple[Window, Window]] = []
        while len(pairs) < size:
            pair = self._pair(self.random.choices(list(self.clips.values()), weights)[0])
            if all(usable.sum() >= MIN_FRAMES for _, usable in pair):
                pairs.append(pair)
        manners = [self._manner() for _ in pairs]
        windows = [a for a, _ in pairs] + [b for _, b in pairs]
        longest = max(len(beta) for beta, _ in windows)
        rows, masks = [], []
        for k, (beta, usable) in enumerate(windows):
            seen = torch.einsum("dc,cdek->ek", self._seen_wrongly(), self.projected)
            spare = longest - len(beta)
            rows.append(F.pad(beta @ (seen @ manners[k % size]), (0, 0, 0, spare)))
            masks.append(F.pad(usable, (0, spare)))
        return torch.stack(rows), torch.stack(masks)

    def _pair(self, own: list[StyleClip]) -> tuple[Window, Window]:
        """Two windows of one speaker: of different clips, or else of two parts of the only one."""
        if len(own) == 1:
            beta, usable = own[0].beta, own[0].usable
            cut = round(len(beta) * self.random.uniform(*CUT))
            return self._window([(beta[:cut], usable[:cut])]), self._window(
                [(beta[cut:], usable[cut:])]
            )
        mixed = [(c.beta, c.usable) for c in self.random.sample(own, len(own))]
        cut = len(own) // 2 if len(own) > 5 else self.random.randint(1, len(own) - 1)
        return self._window(mixed[:cut]), self._window(mixed[cut:])

    def _window(self, parts: Sequence[Window]) -> Window:
        """A disturbed window of random length, of as many clips as it takes to fill it."""
        wanted = self.random.randint(SHORTEST, LONGEST)
        betas: list[Tensor] = []
        masks: list[Tensor] = []
        for beta, usable in parts:
            room = wanted - sum(len(b) for b in betas)
            if room < wanted // 4:
                break
            start = self.random.randint(0, max(len(beta) - room, 0))
            cut = slice(start, start + room)
            beta, usable = self._disturbed(beta[cut], usable[cut])
            if betas:
                betas.append(beta.new_zeros(GAP, beta.shape[1]))
                masks.append(usable.new_zeros(GAP))
            betas.append(beta)
            masks.append(usable)
        return torch.cat(betas), torch.cat(masks)

    def _disturbed(self, beta: Tensor, usable: Tensor) -> Window:
        """Another clock, another tracker's smoothing, another clip's neutral face."""
        pace = 1 + self.random.uniform(-SPEED, SPEED)
        count = max(int((len(beta) - 1) / pace) + 1, 2)
        shake = CLOCK * torch.randn(count, generator=self.generator)
        times = (torch.arange(count) * pace + shake).clamp(0, len(beta) - 1)
        left = times.long().clamp(max=len(beta) - 2)
        beta = torch.lerp(beta[left], beta[left + 1], (times - left)[:, None])
        usable = usable[left] & usable[left + 1]
        if self.random.random() < 0.5:
            beta = blurred(beta, self.random.uniform(0.3, SMOOTHED))
        if usable.any() and self.random.random() < RESTED_SHARE:
            openness = (beta @ self.opening)[usable]
            closed = openness <= openness.quantile(CLOSED_SHARE)
            beta = beta - beta[usable][closed].mean(0) * self.random.uniform(0.5, 1)
        return beta, usable

    def _seen_wrongly(self) -> Tensor:
        """[3, 3] a small turn and a change of size."""
        a, b, c = (self.random.gauss(0, s) for s in (TURN, TURN, TURN / 2))
        axes = torch.tensor([[0, -c, b], [c, 0, -a], [-b, a, 0]])
        turn: Tensor = torch.linalg.matrix_exp(axes)
        return turn * (1 + self.random.gauss(0, SIZE))

    def _manner(self) -> Tensor:
        """[K, K] an invented manner: amplitudes per component and in all, couplings between."""
        count = self.projected.shape[-1]
        random = torch.randn(count + 1, generator=self.generator) * AMPLITUDE
        mixed = COUPLING * torch.randn(count, count, generator=self.generator)
        mixed.fill_diagonal_(0)
        return (random[:-1] + random[-1]).exp().diag() + mixed


def shows_twice(clip: StyleClip) -> bool:
    """Whether each part of a clip shows enough of the speaker, wherever it is cut."""
    first, last = (round(len(clip.usable) * share) for share in CUT)
    shown = (clip.usable[:first].sum(), clip.usable[last:].sum())
    return min(int(n) for n in shown) >= MIN_FRAMES


def blurred(values: Tensor, deviation: float) -> Tensor:
    """Values [T, C] under a Gaussian over time, deviation in frames (below 1)."""
    steps = torch.arange(-3, 4)
    kernel = torch.exp(-0.5 * (steps / deviation).square())
    padded = F.pad(values.T[:, None], (3, 3), mode="replicate")
    return F.conv1d(padded, (kernel / kernel.sum())[None, None])[:, 0].T
