"""Demonstrations of `dub batch`, each printed as a table.

    python scripts/batch_check.py [FOLDER] --output DIR [--check NAME ...] [--jobs 24]
                                  [--seconds 30] [--minutes 10] [--long CLIP]

FOLDER holds clips that carry their own sound; every clip is dubbed with the speech of the next.
Without it small clips of the demo's speaker are made. Checks (default: all):

    jobs      --jobs jobs, 4 of them broken in different ways, on both engines with 2 workers: the
              good ones have the bytes of `dub run`, the others fail with their reason, and a
              resumed batch does no good job again
    kill      the same jobs while a worker, then the batch itself, is killed with SIGKILL: after
              --resume nothing is lost and nothing done twice
    scaling   jobs per hour with 1 and 2 workers of one thread each
    ray       the same jobs of --seconds each, local and on Ray, 2 workers of one thread, start-up
              apart
    segments  one video of --minutes on 1 and 2 workers of one thread each: equal bytes, less time

Figures of scaling, ray and segments mean something on a machine that does nothing else. The exit
status is 1 if a check of results fails; pace is printed, not judged.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import wave
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import av
import numpy as np

from dubbing.batch.journal import Record, read_journal
from dubbing.batch.runner import HIDDEN, JOURNAL, SUMMARY
from dubbing.demo import demo_pose, demo_puppet, demo_speech
from dubbing.evaluation.tables import markdown, save_json
from dubbing.media.audio import decode_audio, load_speech
from dubbing.media.reader import VideoReader
from dubbing.media.timeline import iter_plan, plan_output

SUFFIXES = {".mp4", ".m4v", ".mov", ".mkv", ".mpg", ".mpeg"}
ENGINES = ("local", "ray")
ONE_THREAD = {"OMP_NUM_THREADS": "1"}
BROKEN = {
    "absent.mp4": "InputNotFound",
    "text.mp4": "NotAVideo",
    "silent.mp4": "AudioUnusable",
    "faceless.mp4": "NoFaceFound",
}
POLL_S = 0.02

Row = dict[str, Any]


@dataclass(frozen=True)
class Bench:
    """Where things are, and how large they are made."""

    clips: list[Path]
    folder: Path
    jobs: int
    seconds: float
    minutes: float
    options: tuple[str, ...]

    def write_jobs(self, name: str, rows: list[Row]) -> Path:
        path = self.folder / f"{name}.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return path

    def start(self, jobs: Path, output: Path, *more: str) -> subprocess.Popen[bytes]:
        command = [
            sys.executable, "-m", "dubbing.cli", "batch", str(jobs), "--output-dir", str(output),
            "--quiet", "--backoff", "0", "--threads", "1", *self.options, *more,
        ]  # fmt: skip
        return subprocess.Popen(command, env=os.environ | ONE_THREAD)

    def batch(self, jobs: Path, output: Path, *more: str) -> tuple[int, dict[str, Any]]:
        """(exit status, summary) of a whole batch."""
        status = self.start(jobs, output, *more).wait()
        return status, json.loads((output / HIDDEN / SUMMARY).read_text())

    def anew(self, name: str) -> Path:
        """A folder for results that does not exist."""
        place = self.folder / name
        shutil.rmtree(place, ignore_errors=True)
        return place


def main(arguments: list[str] | None = None) -> int:
    """Exit status."""
    args = _parse(arguments)
    args.output.mkdir(parents=True, exist_ok=True)
    clips = clips_of(args.folder) if args.folder else demo_clips(args.output / "clips", args.jobs)
    bench = Bench(
        clips, args.output.absolute(), args.jobs, args.seconds, args.minutes,
        tuple(part for option in args.option for part in option.split("=", 1)),
    )  # fmt: skip
    ok = True
    for name in args.check:
        print(f"\n## {name}\n", flush=True)
        rows = CHECKS[name](bench)
        print(markdown(list(dict.fromkeys(k for row in rows for k in row)), rows), flush=True)
        save_json(bench.folder / f"{name}.json", rows)
        ok = ok and all(row.get("ok", True) for row in rows)
    return 0 if ok else 1


def check_jobs(bench: Bench) -> list[Row]:
    """Good and broken jobs on both engines, compared with `dub run`, then resumed."""
    rows, good = ring_jobs(bench)
    jobs = bench.write_jobs("jobs", rows)
    reference = run_alone(bench, good, bench.anew("alone"))
    table = []
    for engine in ENGINES:
        output = bench.anew(f"jobs-{engine}")
        status, summary = bench.batch(jobs, output, "--engine", engine, "--workers", "2")
        reasons = {f["job"]: f["kind"] for f in summary["failures"]}
        equal = sum(content(output / n) == content(p) for n, p in reference.items())
        first = {r["job"] for r in records(output, "done")}
        times = {name: (output / name).stat().st_mtime_ns for name in first}
        line = ("--engine", engine, "--workers", "2", "--resume")
        resumed, _ = bench.batch(jobs, output, *line)
        again = len(records(output, "done")) - len(first)
        same = all((output / n).stat().st_mtime_ns == t for n, t in times.items())
        ok = (
            equal == len(good) and reasons == BROKEN and again == 0 and same
            and status == resumed == 30 + len(BROKEN)
        )  # fmt: skip
        table.append(
            {
                "engine": engine, "jobs": len(rows), "done": summary["done"],
                "equal to dub run": equal, "failed": ", ".join(sorted(reasons.values())),
                "exit": status, "done again by resume": again,
                "jobs per hour": summary["jobs_per_hour"],
                "fps": summary["frames_per_second"], "ok": ok,
            }
        )  # fmt: skip
    return table


def check_kill(bench: Bench) -> list[Row]:
    """SIGKILL for a worker, then for the batch, on both engines."""
    rows, good = ring_jobs(bench)
    jobs = bench.write_jobs("jobs", rows)
    reference = run_alone(bench, good, bench.folder / "alone")
    table = []
    for engine in ENGINES:
        for victim in ("worker", "batch"):
            output = bench.anew(f"kill-{victim}-{engine}")
            line = ("--engine", engine, "--workers", "2")
            running = bench.start(jobs, output, *line)
            wait_for(running, lambda place=output: len(records(place, "done")) >= 2)
            before = len(records(output, "done"))
            worker = int(records(output, "done")[-1]["worker"].rpartition(":")[2])
            os.kill(worker if victim == "worker" else running.pid, signal.SIGKILL)
            running.wait()
            resumed, summary = bench.batch(jobs, output, *line, "--resume")
            done = [r["job"] for r in records(output, "done")]
            found = sorted(p.name for p in output.iterdir() if p.name != HIDDEN)
            equal = sum(content(output / n) == content(p) for n, p in reference.items())
            ok = (
                resumed == 30 + len(BROKEN) and found == sorted(reference)
                and equal == len(good) and len(done) == len(set(done)) == len(good)
            )  # fmt: skip
            table.append(
                {
                    "engine": engine, "killed": victim, "done before": before,
                    "deaths": len([r for r in records(output, "retry")]),
                    "done at last": len(set(done)), "done twice": len(done) - len(set(done)),
                    "equal to dub run": equal, "failed": summary["failed"], "ok": ok,
                }
            )  # fmt: skip
    return table


def check_scaling(bench: Bench) -> list[Row]:
    """Jobs per hour with one and two workers."""
    _, good = ring_jobs(bench)
    jobs = bench.write_jobs("good", good)
    table: list[Row] = []
    for workers in (1, 2):
        _, summary = bench.batch(jobs, bench.anew(f"scaling-{workers}"), "--workers", str(workers))
        table.append(pace_row({"workers": workers}, summary))
    table[1]["speed-up"] = speed_up(table[0], table[1])
    return table


def check_ray(bench: Bench) -> list[Row]:
    """The same long jobs on both engines."""
    rows = []
    for number, clip in enumerate(islice(cycle(bench.clips), 4)):
        made, sound = stretch(bench, clip, bench.seconds)
        rows.append({"video": str(made), "audio": str(sound), "output": f"{number}.mp4"})
    jobs = bench.write_jobs("long", rows)
    table: list[Row] = []
    for engine in ENGINES:
        output = bench.anew(f"overhead-{engine}")
        line = ("--engine", engine, "--workers", "2", "--segment-minutes", "1000")
        _, summary = bench.batch(jobs, output, *line)
        table.append(pace_row({"engine": engine, "seconds each": bench.seconds}, summary))
    table[1]["overhead %"] = round(100 * (table[1]["seconds"] / table[0]["seconds"] - 1), 1)
    return table


def check_segments(bench: Bench) -> list[Row]:
    """One long video by one worker and by two."""
    made, sound = stretch(bench, bench.clips[0], 60 * bench.minutes)
    job = {"video": str(made), "audio": str(sound), "output": "long.mp4"}
    jobs = bench.write_jobs("one", [job])
    table: list[Row] = []
    for workers in (1, 2):
        output = bench.anew(f"segments-{workers}")
        status, summary = bench.batch(jobs, output, "--workers", str(workers))
        row = pace_row({"workers": workers, "minutes": bench.minutes}, summary)
        row |= {"segments": len(records(output, "segment")), "ok": status == 0}
        table.append(row)
    first, second = (content(bench.folder / f"segments-{n}" / "long.mp4") for n in (1, 2))
    table[1] |= {"speed-up": speed_up(table[0], table[1]), "equal bytes": first == second}
    table[1]["ok"] = table[1]["ok"] and first == second
    return table


CHECKS: dict[str, Callable[[Bench], list[Row]]] = {
    "jobs": check_jobs,
    "kill": check_kill,
    "scaling": check_scaling,
    "ray": check_ray,
    "segments": check_segments,
}


def pace_row(row: Row, summary: dict[str, Any]) -> Row:
    return row | {
        "jobs": summary["done"], "seconds": summary["seconds"],
        "jobs per hour": summary["jobs_per_hour"], "fps": summary["frames_per_second"],
    }  # fmt: skip


def speed_up(one: Row, two: Row) -> float:
    return round(float(one["seconds"]) / float(two["seconds"]), 2)


def records(output: Path, kind: str) -> list[Record]:
    return [r for r in read_journal(output / HIDDEN / JOURNAL) if r["kind"] == kind]


def content(path: Path) -> bytes:
    """Bytes of a file; none where there is none."""
    return path.read_bytes() if path.is_file() else b""


def wait_for(running: subprocess.Popen[bytes], reached: Callable[[], bool]) -> None:
    while not reached():
        if running.poll() is not None:
            raise SystemExit("error: the batch ended before it could be killed: use more --jobs")
        time.sleep(POLL_S)


def ring_jobs(bench: Bench) -> tuple[list[Row], list[Row]]:
    """(all jobs, the good ones among them): every clip with the speech of the next, again and
    again with other options, and the broken ones spread between."""
    good: list[Row] = []
    pairs = zip(bench.clips, [*bench.clips[1:], bench.clips[0]], strict=True)
    for number, (video, audio) in enumerate(islice(cycle(pairs), bench.jobs - len(BROKEN))):
        turn = number // len(bench.clips)
        job = {"video": str(video), "audio": str(audio), "output": f"{video.stem}-{turn}.mp4"}
        good.append(job | {"length": "shortest", "crf": 14 + turn})
    broken = broken_jobs(bench, good[0])
    rows = list(good)
    step = max(len(rows) // len(broken), 1)
    for number, job in enumerate(broken):
        rows.insert(number * (step + 1), job)
    return rows, good


def broken_jobs(bench: Bench, good: Row) -> list[Row]:
    """Four jobs that can't be done, each for a reason of its own."""
    folder = bench.folder / "broken"
    folder.mkdir(exist_ok=True)
    (folder / "text.mp4").write_text("no pictures here")
    with wave.open(str(folder / "silent.wav"), "wb") as sink:
        sink.setparams((1, 2, 16000, 0, "NONE", ""))
        sink.writeframes(bytes(32000))
    grey = np.full((120, 160, 3), 90, np.uint8)
    with av.open(str(folder / "faceless.mp4"), "w") as sink:
        stream = sink.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 160, 120, "yuv420p"
        for _ in range(12):
            sink.mux(stream.encode(av.VideoFrame.from_ndarray(grey, "rgb24")))
        sink.mux(stream.encode(None))
    changes: dict[str, Row] = {
        "absent.mp4": {"video": str(folder / "absent.mp4")},
        "text.mp4": {"video": str(folder / "text.mp4")},
        "silent.mp4": {"audio": str(folder / "silent.wav")},
        "faceless.mp4": {"video": str(folder / "faceless.mp4")},
    }
    return [good | change | {"output": name} for name, change in changes.items()]


def run_alone(bench: Bench, jobs: list[Row], folder: Path) -> dict[str, Path]:
    """Every job by `dub run`, one after another, unless it was done before; results by name."""
    folder.mkdir(exist_ok=True)
    made = {}
    for job in jobs:
        made[job["output"]] = folder / job["output"]
        if made[job["output"]].is_file():
            continue
        options = [
            f"--{k}={v}" for k, v in job.items() if k not in ("video", "audio", "output")
        ]  # fmt: skip
        command = [
            sys.executable, "-m", "dubbing.cli", "run", job["video"], job["audio"],
            "--output", str(made[job["output"]]), "--quiet", *options, *bench.options,
        ]  # fmt: skip
        subprocess.run(command, check=True, env=os.environ | ONE_THREAD)
    return made


def stretch(bench: Bench, clip: Path, seconds: float) -> tuple[Path, Path]:
    """A clip played to and fro, and its sound repeated, to `seconds`."""
    folder = bench.folder / "stretched"
    folder.mkdir(exist_ok=True)
    video = folder / f"{clip.stem}-{seconds:g}.mp4"
    sound = video.with_suffix(".wav")
    if not video.is_file():
        part = video.with_suffix(".part.mp4")
        with VideoReader(clip) as reader, av.open(str(part), "w") as sink:
            length = Fraction(seconds).limit_denominator(1000)
            plan = plan_output(reader.index.times, reader.index.duration, length, "audio")
            rate = (reader.video.average_rate or Fraction(25)).limit_denominator(60_000)
            stream = sink.add_stream("libx264", rate=rate)
            stream.width, stream.height = reader.video.width, reader.video.height
            stream.pix_fmt = "yuv420p"
            stream.options = {"crf": "16", "preset": "veryfast"}
            stream.codec_context.time_base = Fraction(1, 90_000)
            for placed in iter_plan(reader, plan):
                frame = placed.source.frame.reformat(format="yuv420p")
                frame.pts, frame.time_base = round(placed.time * 90_000), Fraction(1, 90_000)
                frame.pict_type = 0
                sink.mux(stream.encode(frame))
            sink.mux(stream.encode(None))
        part.rename(video)
    samples = np.resize(load_speech(clip), round(seconds * 16000))
    with wave.open(str(sound), "wb") as out:
        out.setparams((1, 2, 16000, 0, "NONE", ""))
        out.writeframes((samples * 32767).clip(-32768, 32767).astype("<i2").tobytes())
    return video, sound


def clips_of(folder: Path) -> list[Path]:
    """The clips of a folder, by name.

    Raises:
        SystemExit: fewer than two.
    """
    clips = sorted(p.absolute() for p in folder.iterdir() if p.suffix.lower() in SUFFIXES)
    if len(clips) < 2:
        raise SystemExit(f"error: {folder}: two clips or more are needed, found {len(clips)}")
    return clips


def demo_clips(folder: Path, jobs: int) -> list[Path]:
    """Small clips of the demo's speaker with speech of their own, enough for `jobs` jobs."""
    folder.mkdir(parents=True, exist_ok=True)
    puppet = demo_puppet()
    speech, rate = decode_audio(demo_speech())
    clips = []
    for number in range(min(max(jobs - len(BROKEN), 2), 6)):
        path = (folder / f"clip{number}.mp4").absolute()
        clips.append(path)
        if path.is_file():
            continue
        with av.open(str(path), "w") as sink:
            stream = sink.add_stream("libx264", rate=25)
            stream.width = stream.height = 256
            stream.pix_fmt = "yuv420p"
            sound = sink.add_stream("aac", rate=rate)
            sound.layout = "mono"
            for k in range(20):
                picture = puppet.frame(demo_pose(number + k * 0.04))
                frame = av.VideoFrame.from_ndarray(picture, "rgb24").reformat(256, 256)
                frame.pts, frame.time_base = k, Fraction(1, 25)
                sink.mux(stream.encode(frame))
            sink.mux(stream.encode(None))
            part = np.ascontiguousarray(speech[:, number * rate : round((number + 0.8) * rate)])
            heard = av.AudioFrame.from_ndarray(part, "s16", "mono")
            heard.sample_rate = rate
            sink.mux(sound.encode(heard))
            sink.mux(sound.encode(None))
    return clips


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, nargs="?", help="clips with their own sound")
    parser.add_argument("--output", type=Path, required=True, help="folder for everything made")
    parser.add_argument("--check", nargs="+", choices=CHECKS, default=list(CHECKS))
    parser.add_argument("--jobs", type=int, default=24, help="jobs, the 4 broken ones counted (24)")
    parser.add_argument("--seconds", type=float, default=30.0, help="length of ray's jobs (30)")
    parser.add_argument("--minutes", type=float, default=10.0, help="length of segments' video")
    parser.add_argument("--option", action="append", default=[], metavar="--NAME=VALUE",
                        help="further option of every dub, as --option=--preset=fast")  # fmt: skip
    args = parser.parse_args(arguments)
    if args.jobs < len(BROKEN) + 3:
        parser.error(f"--jobs has to be at least {len(BROKEN) + 3}")
    return args


if __name__ == "__main__":
    sys.exit(main())
