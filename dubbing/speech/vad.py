"""Where somebody speaks: probability per 32 ms, segments, and a smooth gate for the mouth."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from dubbing.errors import OptionInvalid
from dubbing.speech.level import frame_levels, is_silent, level_gain, quantile
from dubbing.speech.silero import SAMPLE_RATE, VAD_WINDOW, load_silero

ENTER = 0.5  # probability at which speech begins
LEAVE = 0.35  # probability below which it ends
MIN_WINDOWS = 2  # shorter runs (under 64 ms) are clicks, not speech
MAX_TRIM = 8  # windows: the network keeps on for up to a quarter second after speech has ended
QUIET_SHARE = 10 ** (-35 / 20)  # of a segment's loud windows: quieter edge windows are no speech
FLOOR_QUANTILE = 0.1  # quantile of all windows' levels that is taken as the noise floor
FLOOR_MARGIN = 2.0  # edge windows within 6 dB of the floor are no speech
FLOOR_SHARE = 0.1  # of the loud windows: more can't be the floor where nobody pauses (-20 dB)
SILENCE_SHARE = 10 ** (-60 / 20)  # of the loud windows' level: below it there is no sound
WINDOW_S = VAD_WINDOW / SAMPLE_RATE


@torch.no_grad()
def speech_probability(samples: Tensor) -> Tensor:
    """Probability of speech per window of 32 ms.

    Args:
        samples: [N] float32, 16 kHz mono, full scale 1.0. The level is normalised first, so quiet
            speech counts like loud speech.

    Returns:
        [ceil(N / 512)] float32 on the CPU, in 0..1; zeros for silence. Window i covers the samples
        512 i to 512 (i + 1). The same samples always give the same values.

    Raises:
        CheckpointNotFound: the package silero-vad or its model is missing.
    """
    samples = samples.detach().to("cpu", torch.float32)
    if is_silent(samples):
        return torch.zeros(-(-samples.numel() // VAD_WINDOW))
    probability: Tensor = load_silero()(samples, level_gain(samples))
    return probability


def speech_runs(probability: Tensor) -> list[tuple[int, int]]:
    """Runs (first, end) of windows from [n] probabilities: a run begins at 0.5 and lasts until
    the probability is below 0.35; runs under 64 ms are dropped."""
    runs: list[tuple[int, int]] = []
    start: int | None = None
    for index, value in enumerate([*probability.tolist(), 0.0]):
        if start is None and value >= ENTER:
            start = index
        elif start is not None and value < LEAVE:
            if index - start >= MIN_WINDOWS:
                runs.append((start, index))
            start = None
    return runs


def trim_run(run: tuple[int, int], levels: Tensor) -> tuple[int, int]:
    """Take windows that are too quiet for speech from both edges of a run, at most 8 from each.

    Args:
        run: (first, end) windows.
        levels: [n] RMS of every window of the audio.
    """
    first, end = run
    inside = levels[first:end]
    loud = quantile(inside, 0.9)
    floor = min(quantile(levels, FLOOR_QUANTILE) * FLOOR_MARGIN, loud * FLOOR_SHARE)
    least = max(loud * QUIET_SHARE, floor)
    spoken = (inside >= min(least, float(inside.max()) / 2.0)).tolist()
    lead = min(spoken.index(True), MAX_TRIM)
    tail = min(spoken[::-1].index(True), MAX_TRIM)
    return first + lead, end - tail


@torch.no_grad()
def speech_segments(samples: Tensor) -> Tensor:
    """Segments in which somebody speaks.

    Args:
        samples: [N] float32, 16 kHz mono, full scale 1.0.

    Returns:
        [S, 2] float64: start and end in seconds, ascending, not overlapping, to 32 ms.

    Raises:
        CheckpointNotFound: the package silero-vad or its model is missing.
    """
    levels = frame_levels(samples.detach().cpu())
    runs = [trim_run(run, levels) for run in speech_runs(speech_probability(samples))]
    return torch.tensor(runs, dtype=torch.float64).reshape(-1, 2) * WINDOW_S


@dataclass(frozen=True)
class Easing:
    """How the mouth goes from speech to rest and back, in seconds.

    A mouth begins to move well before its sound and closes with it, so the two sides differ.
    Measured on 24 clips of unseen speakers: the opening correlates with the real one by 0.66 with
    0.2 s before speech, 0.72 with these values, 0.73 without any easing.
    """

    pause: float = 0.6  # a shorter pause is part of the speech: the network moves the mouth in it
    lead: float = 0.3  # fully open from here on before speech
    rise: float = 0.5  # begins to open here before speech
    trail: float = 0.08  # fully open up to here after speech
    fall: float = 0.2  # at rest from here on after speech

    def __post_init__(self) -> None:
        if not (0 <= self.lead < self.rise and 0 <= self.trail < self.fall and self.pause >= 0):
            raise OptionInvalid(f"{self}: lead must be less than rise, and trail less than fall")


STRICT = Easing(pause=0.3, lead=0.08, rise=0.2, trail=0.08, fall=0.2)  # about digital silence


def segment_gate(segments: Tensor, times: Tensor, easing: Easing | None = None) -> Tensor:
    """Gate 0..1 at given times: 1 in and near speech, smoothly down to 0 away from it.

    Args:
        segments: [S, 2] start and end in seconds, ascending, not overlapping.
        times: [T] in seconds, any order.

    Returns:
        [T] float32. Pauses shorter than `easing.pause` count as speech.
    """
    easing = easing or Easing()
    times = times.to("cpu", torch.float64)
    if segments.shape[0] == 0:
        return torch.zeros(times.shape[0])
    starts, ends = segments[:, 0], segments[:, 1]
    long = starts[1:] - ends[:-1] >= easing.pause
    starts = torch.cat([starts[:1], starts[1:][long]])
    ends = torch.cat([ends[:-1][long], ends[-1:]])
    following = torch.searchsorted(starts, times, right=True)
    never = torch.full((1,), float("inf"), dtype=torch.float64)
    to_next = torch.cat([starts, never])[following] - times
    since_last = (times - torch.cat([-never, ends])[following]).clamp(min=0.0)
    rising = _smooth((to_next - easing.lead) / (easing.rise - easing.lead))
    falling = _smooth((since_last - easing.trail) / (easing.fall - easing.trail))
    return torch.maximum(rising, falling).float()


def _smooth(closed: Tensor) -> Tensor:
    closed = closed.clamp(0.0, 1.0)
    return 1.0 - closed * closed * (3.0 - 2.0 * closed)


def sounding_segments(samples: Tensor) -> Tensor:
    """Where there is any sound at all: [S, 2] start and end in seconds, to 32 ms.

    Args:
        samples: [N] float32, 16 kHz mono. What lies 60 dB under the loud windows is silence, such
            as an editor or a synthesiser puts between two sentences.
    """
    levels = frame_levels(samples.detach().cpu())
    if levels.numel() == 0:
        return torch.zeros(0, 2, dtype=torch.float64)
    heard = levels > SILENCE_SHARE * quantile(levels, 0.95)
    edges = torch.diff(F.pad(heard.double(), (1, 1)))
    starts, ends = (edges > 0).nonzero()[:, 0], (edges < 0).nonzero()[:, 0]
    return torch.stack([starts, ends], 1).double() * WINDOW_S


def speech_envelope(samples: Tensor, times: Tensor, easing: Easing | None = None) -> Tensor:
    """Smooth gate of the mouth: 1 in speech, 0 at rest. Where there is no sound at all the mouth
    rests within 0.2 s of either side, whatever `easing` allows before speech.

    Args:
        samples: [N] float32, 16 kHz mono, full scale 1.0.
        times: [T] in seconds from the first sample, any order; may lie outside the audio.

    Returns:
        [T] float32 on the CPU. 0 everywhere for silence and noise.

    Raises:
        CheckpointNotFound: the package silero-vad or its model is missing.
    """
    spoken = segment_gate(speech_segments(samples), times, easing)
    return torch.minimum(spoken, segment_gate(sounding_segments(samples), times, STRICT))
