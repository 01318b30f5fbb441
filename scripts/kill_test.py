"""Whether a run that is killed goes on with the same bytes: kill -9 at random moments, resume each.

    python scripts/kill_test.py [VIDEO AUDIO] [--kills 20] [--seed 0] [--segment-seconds 0.25]
                                [--output DIR]

One run is left alone; it is the reference, and tells how long a run takes. Then every trial starts
the same run afresh, kills it with SIGKILL at a random moment after it has begun to work (its state
folder is there), and runs it again with `resume` to its end. Its bytes have to be the reference's,
and nothing but the output may be left. Runs are forks of this process, which holds the networks:
what is measured is the work, not the start of Python. Without VIDEO and AUDIO a small clip of the
demo's speaker is made. The exit status is 1 if any trial fails.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import random
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from multiprocessing.context import ForkProcess
from pathlib import Path
from typing import Any

import torch

from dubbing import Dubber, DubOptions, Persona
from dubbing.demo import demo_speech
from dubbing.evaluation.tables import markdown, save_json
from dubbing.job.folder import JobFolder, state_path

POLL_S = 0.002


@dataclass(frozen=True)
class Setting:
    """One job that is run again and again."""

    dubber: Dubber
    video: Path
    audio: Path
    options: DubOptions
    persona: Path | None

    def start(self, output: Path, resume: bool = False) -> ForkProcess:
        """Run it in a process of its own."""
        process = multiprocessing.get_context("fork").Process(
            target=self._run, args=(output, replace(self.options, resume=resume))
        )
        process.start()
        return process

    def _run(self, output: Path, options: DubOptions) -> None:
        persona = Persona.load(self.persona) if self.persona else None
        self.dubber.dub(self.video, self.audio, output, options, persona)


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


def run_whole(setting: Setting, output: Path, resume: bool = False) -> float:
    """Run to the end; seconds from the appearance of the state folder.

    Raises:
        SystemExit: the run failed.
    """
    process = setting.start(output, resume)
    began = wait_for_state(process, output)
    process.join()
    if process.exitcode:
        raise SystemExit(f"error: the run ended with status {process.exitcode}")
    return time.monotonic() - began


def wait_for_state(process: ForkProcess, output: Path) -> float:
    """The moment at which the run's state folder is there, or the run has ended."""
    folder = state_path(output)
    while not folder.is_dir() and process.is_alive():
        time.sleep(POLL_S)
    return time.monotonic()


def stage_of(folder: JobFolder, output: Path) -> str:
    """How far a killed run had come."""
    if not folder.path.is_dir():
        return "ended"
    if output.exists():
        return "at its end"
    if list(folder.path.glob("*result*")) or (folder.path / "picture.part").exists():
        return "joining"
    return "rendering" if folder.planned else "planning"


def kill_once(setting: Setting, number: int, after: float, output: Path, wanted: bytes) -> Trial:
    """Kill one run after so many seconds, resume it, and compare."""
    process = setting.start(output)
    began = wait_for_state(process, output)
    while time.monotonic() - began < after and process.is_alive():
        time.sleep(POLL_S)
    process.kill()
    process.join()
    state = JobFolder(state_path(output))
    stage = stage_of(state, output)
    finished = len(list(state.path.glob("segment-*.json")))
    if stage != "ended":
        run_whole(setting, output, resume=True)
    equal = output.read_bytes() == wanted
    clean = list(output.parent.iterdir()) == [output]
    return Trial(number, round(after, 2), stage, finished, equal, clean)


def make_clip(path: Path, seconds: float) -> None:
    """A small clip of the demo's speaker."""
    import av
    import cv2

    from dubbing.demo import demo_pose, demo_puppet

    puppet, size = demo_puppet(), 256
    with av.open(str(path), "w") as sink:
        stream: Any = sink.add_stream("libx264", rate=25, options={"preset": "ultrafast"})
        stream.width = stream.height = size
        stream.pix_fmt = "yuv420p"
        for index in range(round(seconds * 25)):
            picture = cv2.resize(puppet.frame(demo_pose(index / 25)), (size, size))
            sink.mux(stream.encode(av.VideoFrame.from_ndarray(picture, "rgb24")))
        sink.mux(stream.encode(None))


def prepare(dubber: Dubber, video: Path, path: Path) -> None:
    """Save the speaker, who is no part of what is killed."""
    dubber.prepare(video).save(path)


def apart(task: Callable[..., None], *arguments: object) -> None:
    """Do something in a fork, because MediaPipe does not survive to be forked after its use.

    Raises:
        SystemExit: it failed.
    """
    process = multiprocessing.get_context("fork").Process(target=task, args=arguments)
    process.start()
    process.join()
    if process.exitcode:
        raise SystemExit(f"error: preparing the trials ended with status {process.exitcode}")


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("video", type=Path, nargs="?")
    parser.add_argument("audio", type=Path, nargs="?")
    parser.add_argument("--kills", type=int, default=20, metavar="N")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=1.2, help="of the clip that is made (1.2)")
    parser.add_argument("--segment-seconds", type=float, default=0.25)
    parser.add_argument("--suffix", default=".mp4", help="of the output (.mp4)")
    parser.add_argument("--analyse", action="store_true", help="kill runs while they analyse too")
    parser.add_argument("--output", type=Path, help="folder for kill_test.json")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    """Exit status: 0 if every trial passed."""
    args = _parse(arguments)
    torch.set_num_threads(1)  # threads of a parent do not live on in its forks
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if args.video and args.audio:
            video, audio = args.video.absolute(), args.audio.absolute()
        else:
            video, audio = folder / "speaker.mp4", demo_speech()
            apart(make_clip, video, args.seconds)
        options = DubOptions(
            length="video", preset="ultrafast", segment_seconds=args.segment_seconds
        )
        dubber = Dubber.from_pretrained(device="cpu")
        persona = None if args.analyse else folder / "speaker.persona"
        if persona:
            apart(prepare, dubber, video, persona)
        setting = Setting(dubber, video, audio, options, persona)
        output = folder / f"reference{args.suffix}"
        lasted = run_whole(setting, output)
        wanted = output.read_bytes()
        print(f"a run takes {lasted:.1f} s", file=sys.stderr, flush=True)
        moments = random.Random(args.seed)
        trials = []
        for number in range(args.kills):
            place = folder / f"trial{number}"
            place.mkdir()
            after = moments.uniform(0, lasted)
            trial = kill_once(setting, number, after, place / output.name, wanted)
            print(json.dumps(asdict(trial)), file=sys.stderr, flush=True)
            trials.append(trial)
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
