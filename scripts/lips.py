"""Measures stage 1: how well the lips that speech makes follow the real ones.

    python scripts/lips.py FOLDER --manifest manifest.csv --output DIR

FOLDER holds clips of speakers that were never trained on; the manifest says which carry their own
sound (role "dev") and who speaks in which language. Everything is measured on lips free of head
pose at 25 Hz, in distances between the outer eye corners:

self-dub       every clip driven by its own sound, against its own lips
same speaker   persona of one clip, sound of another clip of that speaker, against the latter's lips
silence        two seconds of digital silence within and after the speech, and the clip's own pauses
style          StyleSim of dubs with the speaker's other real clips, and without style
speed          seconds of speech per second of work
languages      some speakers driven by every language of the manifest and of --speech-folder

beside trivial baselines: another speaker's sound, a mouth that rests, a mouth held at its mean.
--level picture dubs every clip, tracks the face in the dubbed video, and measures self-dub there.

DIR receives one CSV per table, lips.json with everything, and the personas, which later runs with
the same morphable model and the same code use again. The exit status is 0 if every target holds.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import cv2
import torch

from dubbing.console import shown_progress
from dubbing.dubber import Dubber
from dubbing.errors import CheckpointNotFound, DubbingError
from dubbing.evaluation import sections
from dubbing.evaluation.case_audio import write_wav
from dubbing.evaluation.clips import Clip, Samples, load_clips
from dubbing.evaluation.languages import folder_speech, manifest_speech
from dubbing.evaluation.offsets import own_offset
from dubbing.evaluation.sections import Measuring, Section
from dubbing.evaluation.sheets import contact_sheet, overview, save_png
from dubbing.evaluation.studio import PictureStudio, Studio
from dubbing.evaluation.style import load_style_encoder
from dubbing.evaluation.tables import markdown, save_csv, save_json
from dubbing.media.audio import SPEECH_RATE
from dubbing.options import DubOptions
from dubbing.sync import load_sync

SHEET_S = 2.0  # seconds rendered of each language

HONESTY = (
    "In self-dub, template and rest pose come from the very clip that is dubbed, the style of\n"
    "each quarter from the other three: it shows how well speech places the movements of a\n"
    "known speaker; 'same speaker' takes all of them from another clip. 'best' is the highest\n"
    "correlation of 21 lags: read it beside that of other speech."
)

Note = Callable[[str], None]


def offsets_of(
    studio: Studio, clips: list[Clip], errors: list[str], note: Note
) -> dict[Clip, float]:
    """Frames by which each real clip's lips are late behind its own sound, as the sync expert
    finds them; 0 where it is not sure."""
    try:
        expert = load_sync()
    except CheckpointNotFound as error:
        errors.append(f"{error}: no clip's own offset is removed")
        return {}
    lower = studio.dubber.lower
    if len(lower) != expert.config.lower_vertices:
        errors.append(
            f"the sync expert looks at {expert.config.lower_vertices} vertices and the checkpoint "
            f"moves {len(lower)}: no clip's own offset is removed"
        )
        return {}
    encoder = studio.dubber.weights.speech_encoder
    found: dict[Clip, float] = {}
    for clip in clips:
        try:
            truth, template = studio.truth(clip), studio.persona(clip).template
            offset, sure = own_offset(expert, encoder, clip, truth, template, lower)
        except DubbingError as error:
            note(f"offset of {clip.name}: {error}")
            continue
        note(f"offset of {clip.name}: {offset}, {'sure' if sure else 'not sure'}")
        found[clip] = float(offset) if sure else 0.0
    return found


def language_sheet(studio: Studio, clip: Clip, speech: dict[str, Samples], folder: Path) -> None:
    """Render two seconds of every language; three moments of each go into languages.png."""
    persona = studio.persona(clip)
    folder.mkdir(parents=True, exist_ok=True)
    sheets = []
    with tempfile.TemporaryDirectory() as temporary:
        for name, samples in speech.items():
            sound, dubbed = Path(temporary) / f"{name}.wav", folder / f"{clip.path.stem}_{name}.mp4"
            write_wav(sound, samples[: round(SHEET_S * SPEECH_RATE)])
            options = DubOptions(overwrite=True, audio_codec="aac")
            studio.dubber.dub(clip.path, sound, dubbed, options, persona, studio.progress)
            sheets.append((name, contact_sheet(clip.path, dubbed)))
    save_png(folder / "languages.png", overview(sheets, columns=(3, 5, 7)))


def chosen(clips: list[Clip], only: Sequence[str] | None) -> list[Clip]:
    """The clips named by `--only` (file name or stem), all without it."""
    if not only:
        return clips
    known = {name for clip in clips for name in (clip.name, clip.path.stem)}
    if missing := [name for name in only if name not in known]:
        raise SystemExit(f"error: no clip {', '.join(missing)} among those that count")
    return [clip for clip in clips if {clip.name, clip.path.stem} & set(only)]


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="folder of clips that carry their own sound")
    parser.add_argument("--output", type=Path, required=True, help="folder for the results")
    parser.add_argument("--manifest", type=Path, help="CSV with file, role, speaker, language")
    parser.add_argument("--level", default="geometry", choices=("geometry", "picture"))
    parser.add_argument("--only", nargs="+", metavar="NAME", help="clips to measure")
    parser.add_argument(
        "--speech-folder",
        type=Path,
        metavar="DIR",
        help="sound files named by their language (de.wav, fr_news.flac)",
    )
    parser.add_argument(
        "--language-clips",
        nargs="+",
        metavar="NAME",
        help="clips whose speakers speak every language (the first of two speakers)",
    )
    parser.add_argument(
        "--sheet",
        action="store_true",
        help="render 2 s of every language for a sheet of pictures (slow)",
    )
    parser.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"))
    parser.add_argument("--checkpoint", default="default", help="name or folder of a checkpoint")
    parser.add_argument("--threads", type=int, default=0, help="threads (all cores)")
    parser.add_argument("--quiet", action="store_true", help="show no progress")
    return parser.parse_args(arguments)


def measured(args: argparse.Namespace, studio: Studio, clips: list[Clip], errors: list[str],
             note: Note) -> list[Section]:  # fmt: skip
    """Every table that the options ask for."""
    shown = chosen(clips, args.only)
    if args.level == "picture":
        return [sections.self_dub(Measuring(studio, clips, shown, {}, errors, note))]
    offsets = offsets_of(studio, shown, errors, note)
    at = Measuring(studio, clips, shown, offsets, errors, note)
    found = [sections.self_dub(at), sections.same_speaker(at), sections.silence(at)]
    try:
        found.append(sections.style(at, load_style_encoder()))
    except CheckpointNotFound as error:
        errors.append(f"{error}: no StyleSim")
    found.append(sections.speed(at))
    speech = languages_of(args, clips)
    if speech:
        speakers = language_clips(clips, args.language_clips)
        found.append(sections.languages(at, speakers, speech))
        if args.sheet:
            language_sheet(studio, speakers[0], speech, args.output / "languages")
    return found


def languages_of(args: argparse.Namespace, clips: list[Clip]) -> dict[str, Samples]:
    """{language: speech} of the manifest's clips of other speakers and of `--speech-folder`."""
    speech: dict[str, Samples] = {}
    if args.manifest:
        driven = language_clips(clips, args.language_clips)
        speech |= manifest_speech(args.manifest, [clip.speaker for clip in driven])
    if args.speech_folder:
        speech |= folder_speech(args.speech_folder)
    return speech


def language_clips(clips: list[Clip], names: Sequence[str] | None) -> list[Clip]:
    """The clips named, or the first of the first and of the middle speaker."""
    if names:
        return chosen(clips, names)
    speakers = list(dict.fromkeys(clip.speaker for clip in clips))
    wanted = (speakers[0], speakers[len(speakers) // 2])
    return [next(clip for clip in clips if clip.speaker == name) for name in wanted]


def print_report(found: list[Section], errors: list[str]) -> None:
    """Tables, errors and verdicts on standard output."""
    for section in found:
        print(f"{section.title}\n")
        columns = list(dict.fromkeys(name for line in section.lines for name in line))
        print(f"{markdown(columns, section.lines)}\n")
    print(f"{HONESTY}\n")
    for error in errors:
        print(f"error: {error}")
    for section in found:
        for target in section.targets:
            print(target)


def main(arguments: list[str] | None = None) -> int:
    """Exit status: 0 if every clip could be measured and every target holds."""
    args = _parse(arguments)
    if args.threads:
        torch.set_num_threads(args.threads)
        cv2.setNumThreads(args.threads)
    errors: list[str] = []
    try:
        clips = load_clips(args.folder, args.manifest)
        if len({clip.speaker for clip in clips}) < 2:
            raise SystemExit(f"error: {args.folder}: clips of two speakers or more are needed")
        dubber = Dubber.from_pretrained(args.checkpoint, device=args.device)
        args.output.mkdir(parents=True, exist_ok=True)
        with shown_progress(sys.stderr, quiet=args.quiet) as progress:
            studio = studio_of(args, dubber, progress)
            found = measured(args, studio, clips, errors, silent if args.quiet else told)
    except DubbingError as error:
        raise SystemExit(f"error: {error}") from error
    print_report(found, errors)
    passed = not errors and all(target.met for s in found for target in s.targets)
    save(args, dubber, found, errors, passed)
    return 0 if passed else 1


def told(text: str) -> None:
    """Show a step on standard error."""
    print(text, file=sys.stderr, flush=True)


def silent(text: str) -> None:
    """Show nothing."""


def studio_of(args: argparse.Namespace, dubber: Dubber, progress: Any) -> Studio:
    """The studio of the level asked for."""
    personas = args.output / "personas"
    if args.level == "picture":
        return PictureStudio(dubber, personas, progress, dubs=args.output / "dubs")
    return Studio(dubber, personas, progress)


def save(args: argparse.Namespace, dubber: Dubber, found: list[Section], errors: list[str],
         passed: bool) -> None:  # fmt: skip
    """One CSV per section, and lips.json."""
    suffix = "" if args.level == "geometry" else f"_{args.level}"
    for section in found:
        columns = list(dict.fromkeys(name for row in section.rows for name in row))
        save_csv(args.output / f"{section.name}{suffix}.csv", columns, section.rows)
    facts = {
        "level": args.level,
        "checkpoint": dubber.weights.hashes,
        "note": HONESTY,
        "passed": passed,
        "errors": errors,
        "sections": [s.facts() for s in found],
    }
    save_json(args.output / f"lips{suffix}.json", facts)


if __name__ == "__main__":
    sys.exit(main())
