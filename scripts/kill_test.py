"""Whether a run that is killed goes on with the same bytes: kill -9 at random moments, resume each.

    python scripts/kill_test.py [VIDEO AUDIO] [--kills 20] [--seed 0] [--segment-seconds 0.5]
                                [--output DIR] [--option=--crf=20 ...]

One run is left alone; it is the reference, and tells how long a run takes. Then every trial starts
the same run afresh, kills it with SIGKILL at a random moment after it has begun to work (its state
folder is there), and starts it again with --resume until it ends. Its bytes have to be the
reference's, and nothing but the output may be left. Without VIDEO and AUDIO a small clip of the
demo's speaker is made. The exit status is 1 if any trial fails.
"""

from __future__ import annotations

import argparse
import json
import random
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from dubbing.evaluation.tables import markdown, save_json
from dubbing.job.folder import JobFolder, state_path

POLL_S = 0.005


@dataclass(frozen=True)
class Setting:
    """What is run: the arguments of `dub run` but for the output, of which only the extension."""

    video: Path
    audio: Path
    suffix: str
    options: tuple[str, ...]

    def start(self, output: Path, *more: str) -> subprocess.Popen[bytes]:
        command = [
            sys.executable, "-m", "dubbing.cli", "run", str(self.video), str(self.audio),
            "--output", str(output), "--quiet", *self.options, *more,
        ]  # fmt: skip
        return subprocess.Popen(command)


@dataclass(frozen=True)
class Trial:
    """One kill: when (s after the state folder appeared), what was there, and what came of it."""

    number: int
    after_s: float
    stage: str
    finished_segments: int
    equal: bool
    clean: bool

    @property
    def passed(self) -> bool:
        return self.equal and self.clean


def run_whole(setting: Setting, output: Path, *more: str) -> float:
    """Run to the end; seconds from the appearance of the state folder.

    Raises:
        SystemExit: the run failed.
    """
    process = setting.start(output, *more)
    began = wait_for_state(process, output)
    if process.wait():
        raise SystemExit(f"error: the run ended with status {process.returncode}")
    return time.monotonic() - began


def wait_for_state(process: subprocess.Popen[bytes], output: Path) -> float:
    """The moment at which the run's state folder is there, or the run has ended."""
    folder = state_path(output)
    while not folder.is_dir() and process.poll() is None:
        time.sleep(POLL_S)
    return time.monotonic()


def stage_of(folder: JobFolder, output: Path) -> str:
    """How far a killed run had come."""
    if not folder.path.is_dir():
        return "ended"
    if output.exists():
        return "at its end"
    if list(folder.path.glob("result*")) or (folder.path / "picture.part").exists():
        return "joining"
    return "rendering" if folder.planned else "analysing"


def kill_once(setting: Setting, number: int, after: float, folder: Path, reference: bytes) -> Trial:
    """Kill one run after so many seconds, resume it, and compare."""
    place = folder / f"trial{number}"
    place.mkdir()
    output = place / f"dubbed{setting.suffix}"
    process = setting.start(output)
    began = wait_for_state(process, output)
    while time.monotonic() - began < after and process.poll() is None:
        time.sleep(POLL_S)
    process.send_signal(signal.SIGKILL)
    process.wait()
    state = JobFolder(state_path(output))
    stage = stage_of(state, output)
    finished = len(list(state.path.glob("segment-*.json")))
    if stage != "ended":
        run_whole(setting, output, "--resume")
    equal = output.read_bytes() == reference
    clean = list(place.iterdir()) == [output]
    output.unlink()
    return Trial(number, round(after, 2), stage, finished, equal, clean)


def made_inputs(folder: Path, seconds: float) -> tuple[Path, Path]:
    """A small clip of the demo's speaker, and the demo's speech."""
    import av
    import cv2

    from dubbing.demo import demo_pose, demo_puppet, demo_speech

    puppet, size = demo_puppet(), 256
    path = folder / "speaker.mp4"
    with av.open(str(path), "w") as sink:
        stream: Any = sink.add_stream("libx264", rate=25, options={"preset": "ultrafast"})
        stream.width = stream.height = size
        stream.pix_fmt = "yuv420p"
        for index in range(round(seconds * 25)):
            picture = cv2.resize(puppet.frame(demo_pose(index / 25)), (size, size))
            sink.mux(stream.encode(av.VideoFrame.from_ndarray(picture, "rgb24")))
        sink.mux(stream.encode(None))
    return path, demo_speech()


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("video", type=Path, nargs="?")
    parser.add_argument("audio", type=Path, nargs="?")
    parser.add_argument("--kills", type=int, default=20, metavar="N")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=4.0, help="of the clip that is made (4)")
    parser.add_argument("--segment-seconds", type=float, default=0.5)
    parser.add_argument("--suffix", default=".mp4", help="of the output (.mp4)")
    parser.add_argument("--output", type=Path, help="folder for kill_test.json")
    parser.add_argument("--option", action="append", default=[], help="one more of dub run")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    """Exit status: 0 if every trial passed."""
    args = _parse(arguments)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if args.video and args.audio:
            video, audio = args.video.absolute(), args.audio.absolute()
        else:
            video, audio = made_inputs(folder, args.seconds)
        pieces = ("--segment-seconds", str(args.segment_seconds), "--length", "video")
        setting = Setting(video, audio, args.suffix, (*pieces, *args.option))
        output = folder / f"reference{args.suffix}"
        lasted = run_whole(setting, output)
        reference = output.read_bytes()
        print(f"a run takes {lasted:.1f} s of work", file=sys.stderr, flush=True)
        moments = random.Random(args.seed)
        trials = []
        for number in range(args.kills):
            after = moments.uniform(0, lasted)
            trials.append(kill_once(setting, number, after, folder, reference))
            print(json.dumps(asdict(trials[-1])), file=sys.stderr, flush=True)
    rows = [asdict(trial) | {"passed": trial.passed} for trial in trials]
    print(markdown(list(rows[0]), rows))
    good = sum(trial.passed for trial in trials)
    print(f"\n{good} of {len(trials)} killed runs gave the bytes of an uninterrupted one")
    if args.output:
        args.output.mkdir(parents=True, exist_ok=True)
        save_json(args.output / "kill_test.json", {"seconds": lasted, "trials": rows})
    return 0 if good == len(trials) else 1


if __name__ == "__main__":
    sys.exit(main())
