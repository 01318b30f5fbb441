"""Dubs every clip of a folder with the speech of the next one, and checks every result.

    python scripts/ring.py FOLDER --output DIR [--jobs N] [--only NAME ...] [--device auto|cpu|cuda]

Clips are taken in the order of their names; the last one gets the speech of the first. Results are
as long as their source (`--length video`). Checked per result: frame count, every presentation
time, size, a face in at least 99 % of the frames that had one, PSNR of at least 42 dB above the
nose (RGB, pooled over the clip), and the speech sample by sample from the first picture on.

DIR receives the dubs, DIR/NAME.png (contact sheet), DIR/NAME.json (report and checks),
overview.png and ring.json. What is finished is not done again; `--overwrite` starts anew,
`--recheck` keeps the dubs. The exit status is 1 if any check failed.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import torch

from dubbing.console import shown_progress
from dubbing.dubber import Dubber
from dubbing.errors import DubbingError
from dubbing.evaluation.checks import check_dub
from dubbing.evaluation.sheets import contact_sheet, overview, save_png
from dubbing.evaluation.tables import markdown, save_json
from dubbing.media.containers import CONTAINERS, choose_audio, rules_for
from dubbing.media.probe import require_audio
from dubbing.options import DubOptions

SUFFIXES = {".mp4", ".m4v", ".mov", ".mkv", ".mpg", ".mpeg"}
CHECKS = ("frames", "times", "size", "face", "psnr", "samples", "length", "start")
LOSSLESS_PCM = {"pcm_u8", "pcm_s16le", "pcm_s16be", "pcm_s24le", "pcm_s24be"}
"""Sound that FLAC (mp4) and ALAC (mov) give back sample by sample."""


@dataclass(frozen=True)
class Job:
    """One clip to dub, and where its results go."""

    source: Path
    speech: Path
    folder: Path
    overwrite: bool
    recheck: bool
    quiet: bool

    @property
    def facts(self) -> Path:
        return self.folder / f"{self.source.stem}.json"

    @property
    def sheet(self) -> Path:
        return self.folder / f"{self.source.stem}.png"


def clips_of(folder: Path) -> list[Path]:
    """The videos of a folder in the order of their names.

    Raises:
        SystemExit: fewer than two, or two whose results would have one name.
    """
    clips = sorted(p for p in folder.iterdir() if p.suffix.lower() in SUFFIXES)
    if len(clips) < 2:
        raise SystemExit(f"error: {folder}: a ring needs two clips or more, found {len(clips)}")
    stems = [p.stem for p in clips]
    if twice := sorted({s for s in stems if stems.count(s) > 1}):
        raise SystemExit(f"error: {folder}: more than one clip is called {', '.join(twice)}")
    return clips


def choose_output(source: Path, speech: Path, folder: Path) -> tuple[Path, str]:
    """(output file, sound codec) that keep the source's times and the speech's samples exactly.

    The source's own container (mp4 for MPEG program streams) where it takes the speech as it is;
    else the same with a lossless codec where the speech is PCM; else mkv, which takes everything
    and rounds times to 1 ms. (Decoded MP2 has fractions of a 16-bit step, which no lossless codec
    holds.)
    """
    suffix = source.suffix.lower()
    if suffix not in CONTAINERS:
        suffix = ".mp4"
    target = folder / f"{source.stem}{suffix}"
    sound = require_audio(speech).audio[0]
    rules = rules_for(target)
    if choose_audio(rules, sound.codec, sound.sample_rate)[0]:
        return target, "auto"
    lossless = "flac" if "flac" in rules.audio else "alac"
    if sound.codec in LOSSLESS_PCM and lossless in rules.audio:
        return target, lossless
    return target.with_suffix(".mkv"), "auto"


_dubber: Dubber | None = None


def load(device: str, checkpoint: str, threads: int) -> None:
    """Load the networks once in this process; `threads` 0 leaves their number as it is."""
    global _dubber
    if threads:
        torch.set_num_threads(threads)
        cv2.setNumThreads(threads)
    _dubber = Dubber.from_pretrained(checkpoint, device=device)


def run_job(job: Job) -> dict[str, Any]:
    """Dub, check and draw one clip; its row. What fails becomes part of the row."""
    if _dubber is None:
        raise RuntimeError("load() comes first")
    row: dict[str, Any] = {"clip": job.source.name, "speech": job.speech.name}
    try:
        return row | _finished(job, _dubber)
    except DubbingError as error:
        return row | {"ok": False, "error": f"{type(error).__name__}: {error}"}


def _finished(job: Job, dubber: Dubber) -> dict[str, Any]:
    output, sound_codec = choose_output(job.source, job.speech, job.folder)
    facts = {} if job.overwrite else _read_facts(job, output)
    if not facts:
        options = DubOptions(length="video", audio_codec=sound_codec, overwrite=True)
        with shown_progress(sys.stderr, quiet=job.quiet) as progress:
            report = dubber.dub(job.source, job.speech, output, options, progress=progress)
        facts = {"output": output.name, "report": report.to_dict()}
        save_json(job.facts, facts)
    if "checks" not in facts or job.recheck:
        facts["checks"] = check_dub(job.source, job.speech, output).to_dict()
        save_json(job.facts, facts)
    if not job.sheet.exists() or job.sheet.stat().st_mtime < output.stat().st_mtime:
        save_png(job.sheet, contact_sheet(job.source, output))
    return _row(facts)


def _read_facts(job: Job, output: Path) -> dict[str, Any]:
    """Facts of a finished dub of the same two files, else nothing."""
    if not (output.is_file() and job.facts.is_file()):
        return {}
    facts: dict[str, Any] = json.loads(job.facts.read_text())
    report = facts["report"]
    same = [Path(report[k]["path"]).name for k in ("video", "audio")]
    return facts if same == [job.source.name, job.speech.name] else {}


def _row(facts: dict[str, Any]) -> dict[str, Any]:
    report, checks = facts["report"], facts["checks"]
    return {
        "ok": checks["ok"],
        "output": facts["output"],
        "sound": f"{report['audio_action']['action']} {report['audio_action']['codec']}",
        **{name: checks["checks"][name] for name in CHECKS},
        "count": checks["output_frames"],
        "time error ms": round(checks["time_error_ms"], 3),
        "face %": round(100 * checks["face_share"], 2),
        "PSNR dB": checks["psnr_above_nose_db"],
        "unequal": checks["unequal_samples"],
        "passed": sum(report["pass_through_counts"].values()),
        "fps": report["fps"],
        "details": checks,
    }


def run_all(jobs: list[Job], args: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Rows in the order of the jobs."""
    if args.jobs == 1:
        load(args.device, args.checkpoint, args.threads)
        yield from map(run_job, jobs)
        return
    threads = args.threads or max((os.cpu_count() or 1) // args.jobs, 1)
    setup = (args.device, args.checkpoint, threads)
    with ProcessPoolExecutor(
        args.jobs, multiprocessing.get_context("spawn"), initializer=load, initargs=setup
    ) as pool:
        yield from pool.map(run_job, jobs)


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="folder of clips that carry their own sound")
    parser.add_argument("--output", type=Path, required=True, help="folder for the results")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="clips to dub, by file or stem")
    parser.add_argument("--jobs", type=int, default=1, help="processes, each with the networks (1)")
    parser.add_argument("--threads", type=int, default=0, help="threads per process")
    parser.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"))
    parser.add_argument("--checkpoint", default="default", help="name or folder of a checkpoint")
    parser.add_argument("--overwrite", action="store_true", help="dub anew what is finished")
    parser.add_argument("--recheck", action="store_true", help="check anew what is finished")
    parser.add_argument("--quiet", action="store_true", help="show no progress")
    args = parser.parse_args(arguments)
    if args.jobs < 1:
        parser.error("--jobs has to be at least 1")
    return args


def jobs_of(args: argparse.Namespace) -> list[Job]:
    """The ring, cut down to `--only`."""
    clips = clips_of(args.folder)
    ring = list(zip(clips, clips[1:] + clips[:1], strict=True))
    if args.only:
        known = {name for p in clips for name in (p.name, p.stem)}
        if missing := [name for name in args.only if name not in known]:
            raise SystemExit(f"error: {args.folder}: no clip {', '.join(missing)}")
        ring = [pair for pair in ring if {pair[0].name, pair[0].stem} & set(args.only)]
    quiet = args.quiet or args.jobs > 1
    return [
        Job(source, speech, args.output, args.overwrite, args.recheck, quiet)
        for source, speech in ring
    ]


def main(arguments: list[str] | None = None) -> int:
    """Exit status: 0 if every check of every clip is met."""
    args = _parse(arguments)
    jobs = jobs_of(args)
    args.output.mkdir(parents=True, exist_ok=True)
    rows: list[dict[str, Any]] = []
    start = time.perf_counter()
    for job, row in zip(jobs, run_all(jobs, args), strict=True):
        rows.append(row)
        verdict = "ok" if row["ok"] else "FAILED"
        print(f"{len(rows)}/{len(jobs)} {job.source.name}: {verdict}", file=sys.stderr, flush=True)
    columns = ["clip", "speech", "output", "sound", "ok", *CHECKS, "count", "time error ms",
               "face %", "PSNR dB", "unequal", "passed", "fps"]  # fmt: skip
    print(markdown(columns, rows))
    for row in rows:
        if "error" in row:
            print(f"\n{row['clip']}: {row['error']}")
    good = sum(row["ok"] for row in rows)
    frames = sum(row.get("count", 0) for row in rows)
    seconds = time.perf_counter() - start
    print(f"\n{good} of {len(rows)} clips met every check; {frames} frames; {seconds:.0f} s")
    save_json(args.output / "ring.json", {"met": good, "clips": len(rows), "rows": rows})
    drawn = [(j.source.stem, j.sheet) for j in jobs if j.sheet.is_file()]
    if drawn:
        sheets = ((name, cv2.cvtColor(cv2.imread(str(p)), cv2.COLOR_BGR2RGB)) for name, p in drawn)
        save_png(args.output / "overview.png", overview(sheets))  # type: ignore[arg-type]
    return 0 if good == len(rows) else 1


if __name__ == "__main__":
    sys.exit(main())
