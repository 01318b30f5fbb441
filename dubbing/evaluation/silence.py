"""What the mouth does where nobody speaks: digital silence put into speech, and real pauses."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from dubbing.errors import OptionInvalid
from dubbing.evaluation.clips import Samples
from dubbing.evaluation.closures import span_of
from dubbing.evaluation.curves import Curve, LipCurve
from dubbing.evaluation.lips import inside
from dubbing.media.audio import SPEECH_RATE
from dubbing.motion import RATE

SILENCE_S = 2.0  # seconds of digital silence between two parts of speech, and again at the end
EASE_S = 0.2  # the mouth may take so long from speech to rest, and to start before speech
SNAP_S = 0.5  # the easing is looked for within so much time of either edge of a silence
SETTLED = 0.1  # of the opening's range in speech: the mouth has eased once it stays so near rest
MIN_PAUSE_S = 0.6  # a shorter pause has no part of its own between two easings

Span = tuple[float, float]


@dataclass(frozen=True)
class SpeechWithSilence:
    """Two parts of speech, each followed by digital silence.

    Attributes:
        samples: [N] at 16 kHz; silences: (start, end) of both silences in seconds.
    """

    samples: Samples
    silences: tuple[Span, Span]

    @property
    def seconds(self) -> float:
        return len(self.samples) / SPEECH_RATE


def with_silence(
    samples: Samples, speech: list[Span], seconds: float = SILENCE_S
) -> SpeechWithSilence:
    """Put digital silence into speech and after it.

    Args:
        samples: [N] at 16 kHz; speech: (start, end) of speech in seconds.

    Returns:
        the speech, cut at the quietest place in the middle of its longest stretch and where its
        last stretch ends, so that the mouth has to ease from movement.

    Raises:
        OptionInvalid: nobody speaks.
    """
    if not speech:
        raise OptionInvalid("nobody speaks", hint="silence is measured against speech")
    start, end = max(speech, key=lambda span: span[1] - span[0])
    third = (end - start) / 3
    cut = quietest(samples, start + third, end - third)
    last = round(speech[-1][1] * SPEECH_RATE)
    gap = np.zeros(round(seconds * SPEECH_RATE), np.float32)
    joined = np.concatenate([samples[:cut], gap, samples[cut:last], gap])
    first, total = cut / SPEECH_RATE, len(joined) / SPEECH_RATE
    return SpeechWithSilence(joined, ((first, first + seconds), (total - seconds, total)))


def quietest(samples: Samples, start: float, end: float) -> int:
    """Sample number between two times (seconds) about which 50 ms are the quietest."""
    first, last = round(start * SPEECH_RATE), max(round(end * SPEECH_RATE), 1)
    power = np.convolve(samples.astype(np.float64) ** 2, np.ones(SPEECH_RATE // 20), "same")
    return first + int(power[first:last].argmin())


@dataclass(frozen=True)
class Stillness:
    """The mouth in digital silence against the same mouth in speech.

    Attributes:
        movement: standard deviation of the opening in silence (`EASE_S` after its start and before
            its end) over that in speech; the larger of both silences.
        rest: mean opening there against the speaker's resting opening, as a share of the latter;
            0.1 is 10 % off. The larger of both.
        rest_range: the same difference as a share of the opening's range in speech.
        ease: seconds from the start of a silence until the opening stays within 10 % of its range
            in speech from rest; the silence's length if it never does. The larger of both.
        snap: the largest step of the opening between frames, within half a second of an edge of a
            silence, over the 95th percentile of the steps in speech.
    """

    movement: float
    rest: float
    rest_range: float
    ease: float
    snap: float


def stillness(
    curve: LipCurve, rest: float, silences: tuple[Span, ...], speech: list[Span]
) -> Stillness:
    """Measure a made curve (25 Hz, one state per frame).

    Args:
        rest: opening of the speaker's resting mouth, in outer-eye distances.
        silences: (start, end) in seconds of digital silence.
        speech: (start, end) of speech.

    Raises:
        OptionInvalid: no moment of speech, or a silence without a moment of its own.
    """
    spoken = inside(curve.times, speech)
    for start, end in silences:
        spoken &= ~inside(curve.times, [(start, end)])
    opening = curve.opening
    if spoken.sum() < 3:
        raise OptionInvalid("no speech to compare the silence with")
    spread, size = float(opening[spoken].std()), span_of(opening[spoken])[1]
    steps = np.abs(np.diff(opening))
    usual = float(np.percentile(steps[spoken[1:] & spoken[:-1]], 95))
    found = [_in_silence(curve, rest, span, spread, size) for span in silences]
    edges = [(max(a, t - SNAP_S), min(b, t + SNAP_S)) for a, b in silences for t in (a, b)]
    edges[-1] = edges[-2]  # nothing follows the last silence
    easing = inside(curve.times, edges)
    largest = float(steps[easing[1:] & easing[:-1]].max(initial=0.0))
    movement, off, off_range, ease = (max(values) for values in zip(*found, strict=True))
    return Stillness(movement, off, off_range, ease, _ratio(largest, usual))


def _in_silence(
    curve: LipCurve, rest: float, span: Span, spread: float, size: float
) -> tuple[float, float, float, float]:
    """(movement, rest, rest_range, ease) of one silence."""
    start, end = span
    eased = inside(curve.times, [(start + EASE_S, end - EASE_S)])
    if not eased.any():
        raise OptionInvalid(f"the silence from {start} to {end} s is too short to be measured")
    opening = curve.opening[eased]
    off = abs(float(opening.mean()) - rest)
    within = inside(curve.times, [(start, end - EASE_S)])
    far = np.abs(curve.opening[within] - rest) > SETTLED * size
    ease = min((int(np.flatnonzero(far)[-1]) + 1) / RATE if far.any() else 0.0, end - start)
    return _ratio(float(opening.std()), spread), _ratio(off, rest), _ratio(off, size), ease


def pauses(speech: list[Span], end: float, least: float = MIN_PAUSE_S) -> list[Span]:
    """Stretches (start, end) without speech of `least` seconds or more, their easings cut off.

    Args:
        speech: (start, end) of speech, ascending; end: seconds of the recording.
    """
    borders = [0.0, *(t for span in speech for t in span), end]
    gaps = zip(borders[::2], borders[1::2], strict=True)
    return [(a + EASE_S, b - EASE_S) for a, b in gaps if b - a >= least]


def pause_movement(opening: Curve, times: Curve, speech: list[Span], end: float) -> float | None:
    """Movement in a recording's own pauses: root mean square of the opening's deviation from each
    pause's mean, over the opening's standard deviation in speech.

    Args:
        opening: [N] at `times` [N] (seconds); NaN where it is not known.

    Returns:
        None where there is no pause or no speech to measure.
    """
    known = np.isfinite(opening)
    spoken = opening[known & inside(times, speech)]
    deviations = []
    for span in pauses(speech, end):
        part = opening[known & inside(times, [span])]
        if len(part) >= 3:
            deviations.append(part - part.mean())
    if not deviations or len(spoken) < 3 or spoken.std() == 0:
        return None
    moved = np.concatenate(deviations)
    return float(np.sqrt((moved**2).mean()) / spoken.std())


def _ratio(a: float, b: float) -> float:
    """a / b for b > 0; 0 for 0 / 0, infinite otherwise."""
    if b > 0:
        return a / b
    return 0.0 if a == 0 else float("inf")
