"""Where somebody speaks: probability per 32 ms, segments, and a smooth gate for the mouth."""

from __future__ import annotations

import torch
from torch import Tensor

from dubbing.errors import OptionInvalid
from dubbing.speech.level import frame_levels, is_silent, normalise_level, quantile
from dubbing.speech.silero import SAMPLE_RATE, VAD_WINDOW, load_silero

ENTER = 0.5  # probability at which speech begins
LEAVE = 0.35  # probability below which it ends
MIN_WINDOWS = 2  # shorter runs (under 64 ms) are clicks, not speech
MAX_TRIM = 8  # windows: the network keeps on for up to a quarter second after speech has ended
QUIET_SHARE = 10 ** (-35 / 20)  # of a segment's loud windows: quieter edge windows are no speech
FLOOR_QUANTILE = 0.1  # quantile of all windows' levels that is taken as the noise floor
FLOOR_MARGIN = 2.0  # edge windows within 6 dB of the floor are no speech
FLOOR_SHARE = 0.1  # of the loud windows: more can't be the floor where nobody pauses (-20 dB)
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
    probability: Tensor = load_silero()(normalise_level(samples))
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


def segment_gate(segments: Tensor, times: Tensor, pad_s: float, ease_s: float) -> Tensor:
    """Gate 0..1 at given times: 1 within `pad_s` of a segment, smoothly down to 0 at `ease_s`.

    Args:
        segments: [S, 2] start and end in seconds, ascending, not overlapping.
        times: [T] in seconds, any order.
        pad_s: seconds around each segment where the gate stays open.
        ease_s: distance in seconds from a segment at which the gate is closed; more than `pad_s`.

    Returns:
        [T] float32. With a pause shorter than `2 * pad_s` the gate does not move.

    Raises:
        OptionInvalid: not 0 <= pad_s < ease_s.
    """
    if not 0.0 <= pad_s < ease_s:
        raise OptionInvalid(f"pad_s {pad_s} must be at least 0 and less than ease_s {ease_s}")
    times = times.to("cpu", torch.float64)
    if segments.shape[0] == 0:
        return torch.zeros(times.shape[0])
    starts, ends = segments[:, 0].contiguous(), segments[:, 1].contiguous()
    following = torch.searchsorted(starts, times, right=True)
    never = torch.full((1,), float("inf"), dtype=torch.float64)
    to_next = torch.cat([starts, never])[following] - times
    since_last = (times - torch.cat([-never, ends])[following]).clamp(min=0.0)
    distance = torch.minimum(to_next, since_last)
    closed = ((distance - pad_s) / (ease_s - pad_s)).clamp(0.0, 1.0)
    return (1.0 - closed * closed * (3.0 - 2.0 * closed)).float()


def speech_envelope(
    samples: Tensor, times: Tensor, pad_s: float = 0.08, ease_s: float = 0.2
) -> Tensor:
    """Smooth gate of the mouth: 1 in speech, 0 at rest.

    Args:
        samples: [N] float32, 16 kHz mono, full scale 1.0.
        times: [T] in seconds from the first sample, any order; may lie outside the audio.
        pad_s: seconds before and after speech in which the gate stays fully open.
        ease_s: seconds before and after speech at which the gate is fully closed.

    Returns:
        [T] float32 on the CPU. 0 everywhere for silence and noise.

    Raises:
        OptionInvalid: not 0 <= pad_s < ease_s.
        CheckpointNotFound: the package silero-vad or its model is missing.
    """
    return segment_gate(speech_segments(samples), times, pad_s, ease_s)
