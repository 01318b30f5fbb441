"""What `dub train prepare` finds out about a clip besides its tracks.

By how many frames the lips are late behind the sound, whether both belong together at all, which
frames can't be learned from, and how much of the rest is speech and how much silence. Silence is
kept: a mouth that rests where nobody speaks has to be learned too.

A clip with some seconds of speech shows its offset by itself; where it does not, sound and lips
don't belong together. A few words may not show it, but they are mostly cut from a broadcast or
session with other clips of the same speaker: they get the offset that all of these together show.
Where that is not clear either, the clip is kept as it is, with an offset of 0.
"""

from __future__ import annotations

import hashlib
import logging
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from dubbing.checksums import file_sha256
from dubbing.errors import AudioUnusable, CheckpointNotFound, OptionInvalid
from dubbing.geometry.morphable import MorphableModel
from dubbing.models.speech_encoder import SpeechEncoder
from dubbing.models.sync_net import SyncNet
from dubbing.speech.vad import speech_segments
from dubbing.sync import (
    MAX_SURE_OFFSET,
    SURE,
    SYNC,
    best_offset,
    load_sync,
    offset_distances,
    sync_audio,
)
from dubbing.training.clips import (
    FAULTS,
    RATE,
    at_rate,
    fitted,
    load_faults,
    load_speech_samples,
)
from dubbing.training.options import PrepareOptions
from dubbing.weights import (
    MORPHABLE,
    PACKAGED,
    SPEECH,
    load_morphable,
    load_speech_encoder,
)

log = logging.getLogger(__name__)

OWN_FRAMES = 60  # frames of speech from which on a clip has to show its own offset
SURE_LONG = (
    2.0  # standard errors that are enough for so much speech: no wrong sound of 468 got them
)
AGREE = 1  # frames by which the sure offsets of a speaker's clips may differ from the shared one
AGREE_SHARE = 0.8  # of these clips that have to be so near
MIN_USABLE = 12  # frames at 25 Hz
SPEECH_PAD_S = 0.08  # around heard speech the lips already or still move

MEASURED, SHARED, UNKNOWN = "measured", "speaker", "unknown"  # where a lag comes from
NO_SOUND = "no sound"
NO_SPEECH = "nobody speaks"
UNSEEN = "lips seldom seen well"
MISMATCH = "sound and lips don't match"


@dataclass
class CareFacts:
    """What was found out about one clip; stored in its JSON.

    Attributes:
        lag: frames at 25 Hz by which the lips are late behind the sound; 0 where unknown.
        sure: the lag is known, from this clip or from all clips of its speaker.
        source: where the lag comes from: "measured", "speaker" or "unknown".
        errors: standard errors by which that lag beats all others.
        reasons: why stage 1 should not learn from the clip; empty where it may.
        masked: frames of the video that can't be learned from, by reason.
        frames: frames of the video with the face.
        speech_s, silence_s: seconds of usable frames in which somebody speaks, and the rest.
        made_with: models that measured it and clips it was compared with; where they are others
            now, it is measured anew.
    """

    lag: int = 0
    sure: bool = False
    source: str = UNKNOWN
    errors: float = 0.0
    reasons: list[str] = field(default_factory=list)
    masked: dict[str, int] = field(default_factory=dict)
    frames: int = 0
    speech_s: float = 0.0
    silence_s: float = 0.0
    made_with: str = ""


@dataclass(frozen=True)
class CarePaths:
    """Files that care needs; without an expert offsets stay unknown."""

    morphable: Path
    sync: Path | None
    speech_encoder: Path

    @property
    def digest(self) -> str:
        """Tells the facts of these models from those of others."""
        parts = [self.morphable, *([self.sync] if self.sync else [])]
        return "-".join(_digest(path) for path in parts)


@dataclass(frozen=True)
class Measured:
    """A clip looked at by itself.

    Attributes:
        usable: [T] bool at 25 Hz; masked: video frames by reason; frames: all of them.
        segments: [S, 2] seconds in which somebody speaks.
        distances: [T, offsets] of the expert; None without expert or sound.
        fault: why stage 1 can't learn from it, whatever the expert says.

    Arrays, not tensors: torch hands tensors from process to process as open files.
    """

    name: str
    usable: NDArray[np.bool_]
    frames: int
    masked: dict[str, int]
    segments: NDArray[np.float64]
    distances: NDArray[np.float32] | None
    fault: str


def care_paths(options: PrepareOptions) -> CarePaths | None:
    """The models to look after clips with: those named, else the packaged ones; None where there
    is no morphable model or care is not wanted."""
    if not options.care:
        return None
    morphable = options.morphable or PACKAGED / f"{MORPHABLE}.safetensors"
    if options.morphable is None and not morphable.is_file():
        log.warning("no packaged morphable model: sound and lips are not compared")
        return None
    sync: Path | None = options.sync or PACKAGED / f"{SYNC}.safetensors"
    if options.sync is None and sync is not None and not sync.is_file():
        log.warning("no packaged sync expert: the offset between sound and lips is not measured")
        sync = None
    encoder = options.speech_encoder or PACKAGED / f"{SPEECH}.safetensors"
    return CarePaths(morphable, sync, encoder)


def look_after(
    folder: Path,
    speakers: Mapping[str, str],
    known: Mapping[str, CareFacts],
    paths: CarePaths,
    workers: int = 1,
    fits: Path | None = None,
) -> dict[str, CareFacts]:
    """Facts of every prepared clip of `folder` that `speakers` names.

    Args:
        speakers: who speaks in each clip.
        known: facts from before; those by the same models stay, unless other clips count as the
            same speaker's than did then (they may share an offset).
        fits: folder for fitted geometry. Default: "fits-" and the morphable model's digest, in
            `folder`; `dub train` commands with this model can use it as their cache.

    Raises:
        CheckpointNotFound, CheckpointCorrupt: a model can't be loaded.
        OptionInvalid: the expert was trained with another morphable model.
    """
    stamps = _stamps(speakers, paths.digest)
    stale = {
        speaker
        for name, speaker in speakers.items()
        if name not in known or known[name].made_with != stamps[name]
    }
    names = sorted(name for name, speaker in speakers.items() if speaker in stale)
    place = fits or folder / f"fits-{_digest(paths.morphable)}"
    jobs = [(folder, place, name, paths) for name in names]
    _models(paths)  # a bad file should fail here, once
    if workers > 1 and len(jobs) > 1:
        with get_context("spawn").Pool(workers) as pool:
            seen = _told(pool.imap(_measure_job, jobs, chunksize=4), len(jobs))
    else:
        seen = _told(map(_measure_job, jobs), len(jobs))
    facts = {name: fact for name, fact in known.items() if name in speakers}
    facts |= decide(seen, speakers)
    for name in names:
        facts[name].made_with = stamps[name]
    return facts


def _stamps(speakers: Mapping[str, str], models: str) -> dict[str, str]:
    """What the facts of each clip rest on: the models, and all clips of its speaker."""
    clips: dict[str, list[str]] = defaultdict(list)
    for name in sorted(speakers):
        clips[speakers[name]].append(name)
    digests = {
        who: hashlib.sha256("/".join(names).encode()).hexdigest()[:8]
        for who, names in clips.items()
    }
    return {name: f"{models}-{digests[who]}" for name, who in speakers.items()}


def _told(results: Iterable[Measured], total: int) -> list[Measured]:
    """All results, with a line in the log now and then."""
    out = []
    for k, result in enumerate(results, 1):
        out.append(result)
        if k % 100 == 0 or k == total:
            log.info("looked after %d of %d clips", k, total)
    return out


@cache
def _models(paths: CarePaths) -> tuple[MorphableModel, SyncNet | None, SpeechEncoder | None]:
    model = load_morphable(paths.morphable)
    if paths.sync is None:
        return model, None, None
    expert = load_sync(paths.sync)
    lower = int(model.lower.gt(0).sum())
    if expert.config.lower_vertices != lower:
        raise OptionInvalid(
            f"the sync expert looks at {expert.config.lower_vertices} vertices, the morphable "
            f"model moves {lower}",
            hint="give the morphable model that the expert was trained with",
        )
    return model, expert, load_speech_encoder(paths.speech_encoder)


def _measure_job(job: tuple[Path, Path, str, CarePaths]) -> Measured:
    folder, fits, name, paths = job
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # the workers share the cores
    try:
        return measure(folder, fits, name, *_models(paths))
    finally:
        torch.set_num_threads(threads)


def measure(
    folder: Path,
    fits: Path,
    name: str,
    model: MorphableModel,
    expert: SyncNet | None,
    encoder: SpeechEncoder | None,
) -> Measured:
    """Look at one prepared clip: its fit (kept in `fits`), its speech, and how far its lips are
    from its sound at every offset."""
    clip = fitted(folder, fits, name, model)
    faults = load_faults(fits, name)
    counts = {FAULTS[k]: int(faults.eq(k).sum()) for k in range(1, len(FAULTS))}
    masked = {reason: count for reason, count in counts.items() if count}
    samples = load_speech_samples(folder, name)
    beta, usable = at_rate(clip)
    segments, distances, fault = np.zeros((0, 2)), None, ""
    if len(samples) == 0:
        fault = NO_SOUND
    else:
        segments = speech_segments(samples).numpy()
        if expert is not None and encoder is not None:
            lower = model.lower.gt(0).nonzero()[:, 0]
            motion = model.expression_vertices(beta)[:, lower]
            try:
                audio = sync_audio(encoder, samples, len(beta))
                distances = offset_distances(expert, audio, motion, usable).numpy()
            except AudioUnusable:
                fault = NO_SOUND
    if not fault and len(segments) == 0:
        fault = NO_SPEECH
    if not fault and int(usable.sum()) < MIN_USABLE:
        fault = UNSEEN
    return Measured(name, usable.numpy(), len(faults), masked, segments, distances, fault)


def decide(clips: Sequence[Measured], speakers: Mapping[str, str]) -> dict[str, CareFacts]:
    """Facts of clips that were measured, given all clips of their speakers."""
    by_speaker: dict[str, list[Measured]] = defaultdict(list)
    for clip in clips:
        by_speaker[speakers[clip.name]].append(clip)
    facts: dict[str, CareFacts] = {}
    for members in by_speaker.values():
        facts |= _decide_speaker(members)
    for clip in clips:
        fact = facts[clip.name]
        fact.frames, fact.masked = clip.frames, clip.masked
        speech = spoken(clip.segments, len(clip.usable), fact.lag)
        fact.speech_s = round(int((clip.usable & speech).sum()) / RATE, 2)
        fact.silence_s = round(int((clip.usable & ~speech).sum()) / RATE, 2)
    return facts


def _decide_speaker(members: Sequence[Measured]) -> dict[str, CareFacts]:
    facts: dict[str, CareFacts] = {}
    unsure = []
    for clip in members:
        if clip.fault or clip.distances is None:
            facts[clip.name] = CareFacts(reasons=[clip.fault] if clip.fault else [])
            continue
        lag, errors = best_offset(torch.from_numpy(clip.distances))
        scored = np.asarray(np.isfinite(clip.distances).any(1))
        long = int((scored & spoken(clip.segments, len(clip.distances))).sum()) >= OWN_FRAMES
        if errors >= (SURE_LONG if long else SURE) and abs(lag) <= MAX_SURE_OFFSET:
            facts[clip.name] = CareFacts(lag, True, MEASURED, round(errors, 2))
        elif long:
            facts[clip.name] = CareFacts(errors=round(errors, 2), reasons=[MISMATCH])
        else:
            unsure.append(clip.name)
    shared = _shared_offset(members, [f.lag for f in facts.values() if f.sure])
    return facts | {name: replace(shared, reasons=[], masked={}) for name in unsure}


def _shared_offset(members: Sequence[Measured], own: Sequence[int]) -> CareFacts:
    """The offset that all clips of a speaker together show, unless those that are sure of their
    `own` offset differ."""
    rows = [clip.distances for clip in members if clip.distances is not None]
    if not rows:
        return CareFacts()
    lag, errors = best_offset(torch.from_numpy(np.concatenate(rows)))
    near = sum(abs(other - lag) <= AGREE for other in own)
    sure = errors >= SURE_LONG and abs(lag) <= MAX_SURE_OFFSET
    if sure and near >= AGREE_SHARE * len(own):
        return CareFacts(lag, True, SHARED, round(errors, 2))
    return CareFacts(errors=round(errors, 2))


def _digest(path: Path) -> str:
    """First 8 hex digits of a file's SHA-256.

    Raises:
        CheckpointNotFound: no such file.
    """
    if not path.is_file():
        raise CheckpointNotFound("no such checkpoint file", path=path)
    return file_sha256(path)[:8]


def spoken(
    segments: NDArray[np.float64], frames: int, lag: int = 0, pad_s: float = SPEECH_PAD_S
) -> NDArray[np.bool_]:
    """[frames] whether somebody speaks, at most `pad_s` seconds away, to the lips of each frame at
    25 Hz.

    Args:
        segments: [S, 2] seconds of the sound; lag: frames by which the lips are late behind it.
    """
    times = (np.arange(frames) - lag) / RATE
    inside = (times >= segments[:, :1] - pad_s) & (times <= segments[:, 1:] + pad_s)
    return np.asarray(inside.any(0))


def care_report(facts: Sequence[CareFacts]) -> dict[str, Any]:
    """What stage 1 learns from, over the facts of all kept clips."""
    used = [f for f in facts if not f.reasons]
    frames, masked = sum(f.frames for f in used), Counter[str]()
    for fact in used:
        masked.update(fact.masked)
    lags = Counter(f.lag for f in used if f.source != UNKNOWN)
    return {
        "kept": len(used),
        "left_out": dict(Counter(reason for f in facts for reason in f.reasons)),
        "offsets": {str(lag): lags[lag] for lag in sorted(lags)},
        "offsets_from": dict(Counter(f.source for f in used)),
        "frames": frames,
        "masked": dict(masked),
        "speech_s": round(sum(f.speech_s for f in used), 1),
        "silence_s": round(sum(f.silence_s for f in used), 1),
    }


def care_summary(report: dict[str, Any]) -> list[str]:
    """`care_report`'s answer in a few lines for people."""
    lines = [f"stage 1 learns from {report['kept']} clips"]
    lines += [f"left out {count}: {why}" for why, count in sorted(report["left_out"].items())]
    sources = ", ".join(f"{count} {how}" for how, count in sorted(report["offsets_from"].items()))
    lines.append(f"offsets known from: {sources or 'nothing'}")
    histogram = " ".join(f"{int(lag):+d}:{count}" for lag, count in report["offsets"].items())
    lines.append(f"lips late by frames at {RATE} Hz (frames:clips): {histogram or 'unknown'}")
    masked = ", ".join(f"{count} {why}" for why, count in sorted(report["masked"].items()))
    lines.append(f"{report['frames']} frames, masked: {masked or 'none'}")
    seconds = report["speech_s"] + report["silence_s"]
    share = 100 * report["speech_s"] / seconds if seconds else 0.0
    lines.append(f"{seconds / 60:.1f} minutes of lips, {share:.0f} % speech, the rest silence")
    return lines
