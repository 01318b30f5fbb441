"""What stage 1 is measured by, one line of figures per clip or pair of clips."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, replace
from itertools import permutations
from statistics import fmean
from typing import Any

from torch import Tensor

from dubbing.errors import DubbingError, OptionInvalid
from dubbing.evaluation.clips import Clip, Samples, other_speaker, other_voices, speech_spans
from dubbing.evaluation.closures import CLOSED, below
from dubbing.evaluation.curves import aligned
from dubbing.evaluation.faces import FaceMotion, vertex_motion
from dubbing.evaluation.lips import inside, lip_agreement, lip_closures, lip_distance
from dubbing.evaluation.silence import pause_movement, stillness, with_silence
from dubbing.evaluation.studio import Studio
from dubbing.evaluation.style import style_code, style_similarity
from dubbing.media.audio import SPEECH_RATE
from dubbing.models.style_encoder import StyleEncoder
from dubbing.motion import RATE
from dubbing.options import DubOptions
from dubbing.persona import Persona

Row = dict[str, Any]
Offsets = dict[Clip, float]
"""Frames at 25 Hz by which a clip's lips are late behind its sound"""

OTHER, REST, MEAN = "other ", "rest ", "mean "
"""Prefixes of the baselines' columns: driven by another speaker's clip, mouth held at rest, mouth
held at its mean over the clip"""
VOICES = 3  # other speakers whose sound drives a dub that is judged by its style
MIN_SPOKEN = 10  # frames of speech, 0.4 s: from fewer no amplitude is taken
ALIGNED = "aligned "
"""Prefix of figures with the clip's own offset between sound and lips removed"""


def self_dub(studio: Studio, clip: Clip, clips: Sequence[Clip], offsets: Offsets) -> Row:
    """A clip driven by its own sound, beside its real lips and the baselines.

    Raises:
        DubbingError: the clip can't be prepared or compared.
    """
    truth = studio.truth(clip)
    other = other_speaker(clips, clip)
    # a dub starts its speech with the first picture; the clip itself may not
    own = studio.lips(clip, clip).shifted(clip.sound_offset)
    foreign = studio.lips(clip, other)
    row: Row = {"clip": clip.name, "speaker": clip.speaker, "other": other.name}
    row |= figures(truth, own, clip.speech)
    row |= _named(OTHER, figures(truth, foreign, clip.speech))
    for name, face in ((REST, studio.rest(clip).vertices[0]), (MEAN, truth.vertices.mean(0))):
        row[f"{name}lmd"] = lip_distance(truth, truth.still(face))
    return row | _without_offset(truth, own, clip, offsets)


def same_speaker(
    studio: Studio, clip: Clip, speech: Clip, clips: Sequence[Clip], offsets: Offsets
) -> Row:
    """Persona of one clip, sound of another of the same speaker, beside the latter's real lips.

    Raises:
        DubbingError: a clip can't be prepared, or the lips can't be compared.
    """
    truth = studio.truth(speech)
    other = other_speaker(clips, speech)
    own = studio.lips(clip, speech).shifted(speech.sound_offset)
    row: Row = {"clip": clip.name, "speech": speech.name, "speaker": clip.speaker}
    row |= lip_agreement(truth, own).to_dict()
    row |= _named(OTHER, lip_agreement(truth, studio.lips(clip, other)).to_dict())
    return row | _without_offset(truth, own, speech, offsets)


def silence(studio: Studio, clip: Clip) -> Row:
    """Digital silence put into the clip's speech and at its end, and the clip's own pauses.

    Raises:
        DubbingError: the clip can't be prepared, or nobody speaks in it.
    """
    material = with_silence(clip.samples, speech_spans(clip.samples))
    made = studio.driven(material.samples, studio.persona(clip))
    rest = float(studio.rest(clip).curve.opening[0])
    still = stillness(made.curve, rest, material.silences, speech_spans(material.samples))
    row: Row = {"clip": clip.name, "rest opening": rest, **asdict(still)}
    truth = studio.truth(clip).curve
    real, ours = aligned(truth, studio.lips(clip, clip).shifted(clip.sound_offset).curve)
    end = float(truth.times[-1])
    row["pauses"] = pause_movement(ours.opening, ours.times, clip.speech, end)
    row["real pauses"] = pause_movement(real.opening, real.times, clip.speech, end)
    return row


def language(studio: Studio, clip: Clip, name: str, samples: Samples) -> Row:
    """A clip's speaker driven by speech of some language, which has no truth: is the motion whole,
    and as large as with the speaker's own sound?

    Args:
        samples: [N] at 16 kHz.

    Raises:
        DubbingError: the clip can't be prepared, or nobody speaks.
    """
    made = studio.driven(samples, studio.persona(clip))
    spoken = made.curve.opening[inside(made.curve.times, speech_spans(samples))]
    own = studio.lips(clip, clip).shifted(clip.sound_offset).curve
    usual = own.opening[inside(own.times, clip.speech)]
    if min(len(spoken), len(usual)) < MIN_SPOKEN:
        raise OptionInvalid(
            f"{len(spoken)} and {len(usual)} frames of speech in {name} and in {clip.name}",
            hint=f"give at least {MIN_SPOKEN} frames of speech of each",
        )
    return {
        "clip": clip.name,
        "language": name,
        "seconds": len(samples) / SPEECH_RATE,
        "finite": bool(made.vertices.isfinite().all()),
        "amplitude": float(spoken.std() / usual.std()),
        "largest opening": float(spoken.max() / usual.max()),
        "closed": float(below(spoken, CLOSED).mean()),
    }


def style(
    studio: Studio, encoder: StyleEncoder, clip: Clip, real: Clip, clips: Sequence[Clip]
) -> Row:
    """How alike the dubs of one clip are in style to another, real clip of the same speaker.

    The dubs speak with the sound of `VOICES` clips of other speakers, so that words can't tell
    (`own words`: with the sound of the real clip itself). Each figure is a mean over the voices.

    Returns:
        StyleSim of the dub, of the dub without style, of the dub with the style of the voice's
        speaker, of the speaker's two real clips, of the mouth held at the clip's mean, and of real
        clips of the voices' speakers.

    Raises:
        DubbingError: a clip can't be prepared or is too short to show a style.
    """
    persona = studio.persona(clip)
    seen, known = real_motion(studio, encoder, clip)
    target = style_code(encoder, *real_motion(studio, encoder, real))
    row: Row = {"clip": clip.name, "real": real.name, "speaker": clip.speaker}
    row["real clips"] = style_similarity(style_code(encoder, seen, known), target)
    still = seen[known].mean(0).expand_as(seen)
    row["still"] = style_similarity(style_code(encoder, still, known), target)

    def likeness(samples: Samples, persona: Persona, strength: float = 1.0) -> float:
        motion = studio.motion(samples, persona, DubOptions(style_strength=strength))
        return style_similarity(style_code(encoder, motion.lower), target)

    row["own words"] = likeness(real.samples, persona)
    voices = other_voices(clips, clip, VOICES)
    found = [
        (
            likeness(voice.samples, persona),
            likeness(voice.samples, persona, strength=0.0),
            likeness(voice.samples, replace(persona, style=studio.persona(voice).style)),
            style_similarity(style_code(encoder, *real_motion(studio, encoder, voice)), target),
        )
        for voice in voices
    ]
    means = [fmean(values) for values in zip(*found, strict=True)]
    names = ("dub", "without style", "another's style", "others' real clips")
    return row | dict(zip(names, means, strict=True))


def real_motion(studio: Studio, encoder: StyleEncoder, clip: Clip) -> tuple[Tensor, Tensor]:
    """Motion [T, L, 3] of a real clip's lower face at 25 Hz and where it is known [T]."""
    truth = studio.truth(clip)
    start = float(truth.times[0])
    frames = int((truth.times[-1] - start) * RATE) + 1
    return vertex_motion(truth, studio.persona(clip).template, encoder.lower, start, frames)


def figures(truth: FaceMotion, made: FaceMotion, speech: list[tuple[float, float]]) -> Row:
    """Every figure of one dub: agreement of curves, LMD, closures and those within speech."""
    row: Row = {**lip_agreement(truth, made).to_dict(), "lmd": lip_distance(truth, made)}
    row |= asdict(lip_closures(truth, made))
    return row | _named("speech ", asdict(lip_closures(truth, made, speech)))


def pairs_of(clips: Iterable[Clip]) -> list[tuple[Clip, Clip]]:
    """All ordered pairs of different clips of one speaker."""
    return [(a, b) for a, b in permutations(clips, 2) if a.speaker == b.speaker]


def collect(
    jobs: Iterable[tuple[str, Callable[[], Row]]], errors: list[str], note: Callable[[str], None]
) -> list[Row]:
    """Run jobs (name, function); those that fail leave a line in `errors` and no row."""
    return list(_collected(jobs, errors, note))


def _collected(
    jobs: Iterable[tuple[str, Callable[[], Row]]], errors: list[str], note: Callable[[str], None]
) -> Iterator[Row]:
    for name, job in jobs:
        try:
            yield job()
        except DubbingError as error:
            errors.append(f"{name}: {type(error).__name__}: {error}")
            note(errors[-1])
        else:
            note(name)


def _without_offset(truth: FaceMotion, made: FaceMotion, clip: Clip, offsets: Offsets) -> Row:
    """The agreement once the clip's own offset is removed; nothing where it is not known."""
    if clip not in offsets:
        return {}
    moved = made.shifted(offsets[clip] / RATE)
    return {"offset": offsets[clip], **_named(ALIGNED, lip_agreement(truth, moved).to_dict())}


def _named(prefix: str, values: Row) -> Row:
    return {f"{prefix}{key}": value for key, value in values.items()}
