"""Dubs clips with their own sound and measures how well the made lips follow the real ones.

    python scripts/self_dub.py FOLDER --output DIR [--manifest manifest.csv] [--level picture]

Every clip is driven twice: by its own sound, and by that of the next clip as the baseline. The
pose-free lip opening (distance of the inner lips over that of the outer eye corners) is compared
with the tracked one of the clip, at 25 Hz: correlation at equal times, best correlation within
+-10 frames and the lag at which it is found, ratio of standard deviations, and correlation of the
mouth's width.

--level geometry (default) takes the curve from stage 1's vertices; nothing is rendered.
--level picture  dubs the clip, tracks the face in the dubbed video, and takes the curve from that.

With a manifest only clips of role "dev" count: others are not known to carry their own sound.
DIR receives self_dub_LEVEL.json and .csv, and the dubs at level picture. The exit status is 1 if
the mean correlation is below --minimum.
"""

from __future__ import annotations

import argparse
import csv
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import torch

from dubbing.console import shown_progress
from dubbing.dubber import Dubber
from dubbing.errors import DubbingError
from dubbing.evaluation.curves import (
    Agreement,
    LipCurve,
    compare_curves,
    mean_agreement,
    motion_curve,
    persona_curve,
    video_curve,
)
from dubbing.evaluation.tables import markdown, save_csv, save_json
from dubbing.media.audio import SPEECH_RATE, audio_start, check_speech, load_speech
from dubbing.media.reader import VideoReader
from dubbing.options import DubOptions
from dubbing.persona import Persona

SUFFIXES = {".mp4", ".m4v", ".mov", ".mkv", ".mpg", ".mpeg"}
ROLE = "dev"
HONESTY = (
    "Template, speaking style and resting mouth are learned from the very clip that is dubbed, so "
    "these figures\nshow how well speech places the movements of a known speaker, not how well an "
    "unseen clip's style is guessed.\n'best' is a maximum over 21 lags: read it beside that of "
    "other speech."
)
FIGURES = ("opening", "best", "lag", "amplitude", "width")


@dataclass(frozen=True)
class Setup:
    """What every clip is measured with."""

    dubber: Dubber
    level: str
    folder: Path
    quiet: bool


def clips_of(folder: Path, manifest: Path | None) -> list[Path]:
    """The clips whose sound is their own, in the order of their names."""
    clips = sorted(p for p in folder.iterdir() if p.suffix.lower() in SUFFIXES)
    if manifest is not None:
        with manifest.open(newline="") as file:
            roles = {Path(line["file"]).name: line["role"] for line in csv.DictReader(file)}
        clips = [clip for clip in clips if roles.get(clip.name) == ROLE]
    if len(clips) < 2:
        raise SystemExit(f"error: {folder}: two clips or more are needed, found {len(clips)}")
    return clips


def sound_offset(video: Path) -> float:
    """Seconds by which a clip's own sound begins after its first picture."""
    with VideoReader(video) as reader:
        return float(audio_start(video) - reader.video.start_time)


def made_by_geometry(
    setup: Setup, clip: Path, speech: Path, persona: Persona
) -> tuple[LipCurve, float]:
    """(curve of stage 1's motion, seconds of speech); times count from the first sample."""
    samples = load_speech(speech)
    check_speech(samples, speech)
    seconds = len(samples) / SPEECH_RATE
    motion = setup.dubber.drive(torch.from_numpy(samples), seconds, persona)
    curve = motion_curve(motion, persona.template, setup.dubber.weights.geometry.lower)
    return curve.until(seconds), seconds


def made_by_picture(
    setup: Setup, clip: Path, speech: Path, persona: Persona
) -> tuple[LipCurve, float]:
    """(curve tracked in the dubbed video, seconds of speech)."""
    seconds = len(load_speech(speech)) / SPEECH_RATE
    output = setup.folder / f"{clip.stem}_{speech.stem}.mkv"
    options = DubOptions(length="video", overwrite=True)
    with shown_progress(sys.stderr, quiet=setup.quiet) as progress:
        setup.dubber.dub(clip, speech, output, options, persona, progress)
    curve = video_curve(output, setup.dubber.weights.morphable.to("cpu"), persona.template)
    return curve.until(seconds), seconds


def measure(setup: Setup, clip: Path, other: Path) -> tuple[Agreement, Agreement]:
    """Agreement with the clip's real lips of its own and of the other clip's speech."""
    make: Callable[..., tuple[LipCurve, float]] = (
        made_by_geometry if setup.level == "geometry" else made_by_picture
    )
    with shown_progress(sys.stderr, quiet=setup.quiet) as progress:
        persona = setup.dubber.prepare(clip, progress=progress)
    truth = persona_curve(persona, clip, setup.dubber.weights.morphable.to("cpu"))
    own, _ = make(setup, clip, clip, persona)
    foreign, _ = make(setup, clip, other, persona)
    # a dub starts its speech with the first picture; the clip itself may not
    return compare_curves(truth, own.shifted(sound_offset(clip))), compare_curves(truth, foreign)


def row_of(clip: Path, other: Path, own: Agreement, foreign: Agreement) -> dict[str, Any]:
    """One line of the table."""
    row: dict[str, Any] = {"clip": clip.name, "other": other.name, "frames": own.frames}
    row |= {name: getattr(own, name) for name in FIGURES}
    return row | {f"other {name}": getattr(foreign, name) for name in FIGURES}


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="folder of clips that carry their own sound")
    parser.add_argument("--output", type=Path, required=True, help="folder for the results")
    parser.add_argument("--manifest", type=Path, help="CSV with columns file and role")
    parser.add_argument("--level", default="geometry", choices=("geometry", "picture"))
    parser.add_argument("--only", nargs="+", metavar="NAME", help="clips to measure")
    parser.add_argument("--minimum", type=float, default=0.5, help="mean correlation asked for")
    parser.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"))
    parser.add_argument("--checkpoint", default="default", help="name or folder of a checkpoint")
    parser.add_argument("--threads", type=int, default=0, help="threads (all cores)")
    parser.add_argument("--quiet", action="store_true", help="show no progress")
    return parser.parse_args(arguments)


def measure_all(setup: Setup, pairs: list[tuple[Path, Path]]) -> tuple[list[Any], list[str]]:
    """([(clip, other, own, foreign)], errors)."""
    results, errors = [], []
    for number, (clip, other) in enumerate(pairs, start=1):
        try:
            own, foreign = measure(setup, clip, other)
        except DubbingError as error:
            errors.append(f"{clip.name}: {type(error).__name__}: {error}")
            print(f"{number}/{len(pairs)} {errors[-1]}", file=sys.stderr, flush=True)
            continue
        results.append((clip, other, own, foreign))
        note = f"{number}/{len(pairs)} {clip.name}: {own.opening:.3f} ({foreign.opening:.3f})"
        print(note, file=sys.stderr, flush=True)
    return results, errors


def main(arguments: list[str] | None = None) -> int:
    """Exit status: 0 if every clip could be measured and the mean reaches `--minimum`."""
    args = _parse(arguments)
    clips = clips_of(args.folder, args.manifest)
    pairs = list(zip(clips, clips[1:] + clips[:1], strict=True))
    if args.only:
        known = {name for clip in clips for name in (clip.name, clip.stem)}
        if missing := [name for name in args.only if name not in known]:
            raise SystemExit(f"error: no clip {', '.join(missing)} among those that count")
        pairs = [pair for pair in pairs if {pair[0].name, pair[0].stem} & set(args.only)]
    if args.threads:
        torch.set_num_threads(args.threads)
        cv2.setNumThreads(args.threads)
    args.output.mkdir(parents=True, exist_ok=True)
    dubber = Dubber.from_pretrained(args.checkpoint, device=args.device)
    results, errors = measure_all(Setup(dubber, args.level, args.output, args.quiet), pairs)
    rows = [row_of(*result) for result in results]
    own = mean_agreement([r[2] for r in results]) if results else {}
    other = mean_agreement([r[3] for r in results]) if results else {}
    shown = [
        *rows,
        {"clip": "mean (lag: median)", **own, **{f"other {k}": v for k, v in other.items()}},
    ]
    columns = ["clip", "frames", *FIGURES, *(f"other {name}" for name in FIGURES)]
    print(f"Self-dub, level {args.level}: lip opening made from speech against the real one\n")
    print(markdown(columns, shown))
    print(f"\n{HONESTY}")
    for error in errors:
        print(error)
    passed = bool(results) and not errors and own["opening"] >= args.minimum
    print(f"\nmean correlation at least {args.minimum}: {'ok' if passed else 'FAILED'}")
    facts = {"level": args.level, "checkpoint": dubber.weights.hashes, "note": HONESTY,
             "mean": own, "mean_other": other, "rows": rows, "errors": errors}  # fmt: skip
    save_json(args.output / f"self_dub_{args.level}.json", facts)
    save_csv(args.output / f"self_dub_{args.level}.csv", ["clip", "other", *columns[1:]], rows)
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
