"""Measures stage 2: how close the rendered lower face comes to the real one.

    python scripts/face.py FOLDER --manifest manifest.csv --output DIR --perceptual WHEEL

FOLDER holds clips of speakers that were never trained on; the manifest says which carry their own
sound (role "dev"). Pictures are compared as 256-px face crops:

held out   frames of every clip made anew with tracked geometry, and with geometry from the clip's
           own sound (self-dub). Neither the frame nor its 5 neighbours on each side are among the
           references, and its own lower face is hidden from the renderer.
dubs       25 consecutive frames of every clip dubbed with another speaker's sound, as the engine
           does it: flicker, faces, speed.

beside two baselines: the source's frame of one second later, and the nearest lip reference pasted
by a mesh warp. docs/evaluation.md defines every figure.

DIR receives face.json, one CSV per table, face.md and a contact sheet per clip. Every clip's row is
kept in DIR/rows: a run that was stopped goes on there while checkpoint, options and code are the
same. The exit status is 0 if every target holds.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path

import cv2
import torch

import dubbing.models
import dubbing.render
from dubbing.console import shown_progress
from dubbing.dubber import Dubber
from dubbing.errors import DubbingError
from dubbing.evaluation import face_protocols, face_sections
from dubbing.evaluation.clips import Clip, chosen, load_clips
from dubbing.evaluation.evaluate import code_digest
from dubbing.evaluation.face_protocols import FaceBench, Row
from dubbing.evaluation.judges import Judges
from dubbing.evaluation.protocols import collect
from dubbing.evaluation.sections import Section
from dubbing.evaluation.studio import Studio
from dubbing.evaluation.tables import markdown, save_csv, save_json
from dubbing.persona import fingerprint
from dubbing.report import save_bytes

TABLES = ("tracked", "self-dub", "dubs")


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="folder of clips that carry their own sound")
    parser.add_argument("--output", type=Path, required=True, help="folder for the results")
    parser.add_argument("--manifest", type=Path, help="CSV with file, role, speaker")
    parser.add_argument("--clips", nargs="+", metavar="NAME", help="clips to measure (all)")
    parser.add_argument("--frames", type=int, default=12, help="frames per clip (12)")
    parser.add_argument(
        "--tables", nargs="+", choices=TABLES, default=TABLES, help="what to measure (all)"
    )
    parser.add_argument(
        "--cache", type=Path, metavar="DIR", help="where tracked faces are kept (OUTPUT/cache)"
    )
    parser.add_argument(
        "--perceptual", type=Path, metavar="FILE", help="wheel stlpips-pytorch or its .pth file"
    )
    parser.add_argument("--checkpoint", default="default", help="name or folder of a checkpoint")
    parser.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"))
    parser.add_argument("--threads", type=int, default=0, help="threads (all cores)")
    parser.add_argument("--quiet", action="store_true", help="show no progress")
    args = parser.parse_args(arguments)
    if args.frames < 2:
        parser.error("--frames has to be at least 2")
    return args


def measured(args: argparse.Namespace, bench: FaceBench, shown: list[Clip],
             errors: list[str]) -> list[Section]:  # fmt: skip
    """The tables asked for."""
    found = []
    if {"tracked", "self-dub"} & set(args.tables):
        spoken = "self-dub" in args.tables
        measure = partial(face_protocols.held_out, bench, self_dub=spoken)
        kind = "held_out_both" if spoken else "held_out"
        jobs = [(f"held out {c.name}", kept(args, bench, kind, c, measure)) for c in shown]
        found.append(face_sections.held_out(collect(jobs, errors, bench.note)))
    if "dubs" in args.tables:
        measure = partial(face_protocols.dubbed_run, bench)
        jobs = [(f"dub {c.name}", kept(args, bench, "dub", c, measure)) for c in shown]
        found.append(face_sections.dubbed_runs(collect(jobs, errors, bench.note)))
    return found


def kept(args: argparse.Namespace, bench: FaceBench, kind: str, clip: Clip,
         measure: Callable[[Clip], Row]) -> Callable[[], Row]:  # fmt: skip
    """A job that measures a clip, or takes its row over from an earlier run of the same thing."""
    perceptual = bench.judges.perceptual
    facts = [bench.studio.dubber.weights.hashes, args.frames, perceptual and perceptual.version,
             fingerprint(clip.path), code_digest(), render_digest()]  # fmt: skip
    key = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]
    path = args.output / "rows" / f"{kind}-{clip.path.stem}-{key}.json"

    def job() -> Row:
        if path.is_file():
            row: Row = json.loads(path.read_text())
            return row
        row = measure(clip)
        path.parent.mkdir(parents=True, exist_ok=True)
        save_json(path, row)
        return row

    return job


@cache
def render_digest() -> str:
    """Hash of the code that renders."""
    digest = hashlib.sha256()
    for module in (dubbing.render, dubbing.models):
        for file in sorted(Path(str(module.__file__)).parent.glob("*.py")):
            digest.update(file.read_bytes())
    return digest.hexdigest()


def report(found: list[Section], errors: list[str]) -> str:
    """Tables, errors and verdicts as text."""
    parts = []
    for section in found:
        columns = list(dict.fromkeys(name for line in section.lines for name in line))
        parts.append(f"{section.title}\n\n{markdown(columns, section.lines)}\n")
    parts += [f"error: {error}" for error in errors]
    parts += [str(target) for section in found for target in section.targets]
    return "\n".join(parts)


def save(args: argparse.Namespace, bench: FaceBench, found: list[Section], errors: list[str],
         passed: bool, text: str) -> None:  # fmt: skip
    """face.json, face.md and one CSV per table."""
    judges = bench.judges
    for section in found:
        columns = list(dict.fromkeys(name for row in section.rows for name in row))
        save_csv(args.output / f"face_{section.name}.csv", columns, section.rows)
    facts = {
        "checkpoint": bench.studio.dubber.weights.hashes,
        "frames per clip": args.frames,
        "judges": {
            "perceptual": judges.perceptual and judges.perceptual.version,
            "identity": judges.identity and judges.identity.version,
        },
        "passed": passed,
        "errors": errors,
        "sections": [s.facts() for s in found],
    }
    save_json(args.output / "face.json", facts)
    save_bytes(args.output / "face.md", f"{text}\n".encode())


def noted(quiet: bool) -> Callable[[str], None]:
    """A listener that shows steps on standard error, or does not."""
    return (lambda text: None) if quiet else partial(print, file=sys.stderr, flush=True)


def main(arguments: list[str] | None = None) -> int:
    """Exit status: 0 if every clip could be measured and every target holds."""
    args = _parse(arguments)
    if args.threads:
        torch.set_num_threads(args.threads)
        cv2.setNumThreads(args.threads)
    try:
        clips = load_clips(args.folder, args.manifest)
        shown = chosen(clips, args.clips)
        dubber = Dubber.from_pretrained(args.checkpoint, device=args.device)
        args.output.mkdir(parents=True, exist_ok=True)
        with (
            shown_progress(sys.stderr, quiet=args.quiet) as progress,
            Judges.load(args.perceptual) as judges,
        ):
            studio = Studio(dubber, args.cache or args.output / "cache", progress)
            bench = FaceBench(
                studio, judges, clips, args.frames, args.output / "sheets", noted(args.quiet)
            )
            errors = list(judges.missing)
            found = measured(args, bench, shown, errors)
    except DubbingError as error:
        raise SystemExit(f"error: {error}") from error
    passed = not errors and all(target.met for s in found for target in s.targets)
    text = report(found, errors)
    print(text)
    save(args, bench, found, errors, passed, text)
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
