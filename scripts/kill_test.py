"""Whether a run that is killed goes on with the same bytes: kill -9 at random moments, resume each.

    python scripts/kill_test.py [VIDEO AUDIO] [--kills 20] [--seed 0] [--segment-seconds 0.25]
                                [--steps] [--speakers 2] [--output DIR]

One run is left alone; it is the reference, and tells how long a run takes. Then every trial starts
the same run afresh, kills it with SIGKILL at a random moment after it has begun to work (its state
folder is there), and runs it again with `resume` to its end. Its bytes have to be the reference's,
and nothing but the output may be left. A run that ended before its moment came was not killed and
does not count: another moment is drawn. Random moments nearly always fall into rendering: with
--steps one more run dies at every step of `STEPS` in turn, joining and multiplexing among them, and
goes on after each. --speakers 2 dubs two people with a speech each, as `dub run --map`. Runs are
forks of this process, which holds the networks: what is measured is the work, not the start of
Python. Without VIDEO and AUDIO a small clip of the demo's speaker is made. The exit status is 1 if
any trial fails.
"""

from __future__ import annotations

import argparse
import itertools
import json
import multiprocessing
import os
import random
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from importlib import import_module
from multiprocessing.context import ForkProcess
from pathlib import Path
from typing import Any

import numpy as np
import torch

from dubbing import Dubber, DubOptions, Persona
from dubbing.demo import demo_pose, demo_puppet, demo_speech
from dubbing.evaluation.tables import markdown, save_json
from dubbing.job.folder import JobFolder, state_path

POLL_S = 0.002
ENDED = "ended"  # before the kill


def die() -> None:
    """kill -9 of this very process."""
    os.kill(os.getpid(), signal.SIGKILL)


def die_at_call(place: str, name: str, call: int = 0, before: bool = True) -> None:
    """Die at a certain call of a function: before its work, or after it."""
    owner: Any = import_module(place)
    *inside, last = name.split(".")
    for part in inside:
        owner = getattr(owner, part)
    work, calls = getattr(owner, last), itertools.count()

    def hooked(*positional: Any, **values: Any) -> Any:
        now = next(calls) == call
        if now and before:
            die()
        done = work(*positional, **values)
        if now:
            die()
        return done

    setattr(owner, last, hooked)


def die_at_replace(name: str, before: bool = True) -> None:
    """Die when a file gets its name: before that, or after."""
    work = os.replace

    def hooked(source: Any, target: Any, **values: Any) -> None:
        now = Path(target).name == name
        if now and before:
            die()
        work(source, target, **values)
        if now:
            die()

    os.replace = hooked


def die_while_mixing(output: Path) -> None:
    """Die with half of the mixed sound written."""
    planning: Any = import_module("dubbing.job.planning")
    work = planning.mix_speech

    def hooked(paths: Any, sound: Path, limits: Any) -> None:
        work(paths, sound, limits)
        os.truncate(sound, sound.stat().st_size // 2)
        die()

    planning.mix_speech = hooked


def die_while_muxing(output: Path) -> None:
    """Die while ffmpeg writes, which goes on for a while: it reads as slowly as one looks on."""
    mux: Any = import_module("dubbing.media.mux")
    work = mux.run_ffmpeg

    def hooked(arguments: list[str], *, path: Path) -> None:
        def watch() -> None:
            while not list(state_path(output).glob(".result*")):
                time.sleep(POLL_S)
            time.sleep(0.1)
            die()

        threading.Thread(target=watch).start()
        first = arguments.index("-i")
        work([*arguments[:first], "-re", *arguments[first:]], path=path)
        die()  # at the latest

    mux.run_ffmpeg = hooked


def die_while_removing(output: Path) -> None:
    """Die when three files of the state are gone."""
    work, calls = Path.unlink, itertools.count()

    def hooked(path: Path, missing_ok: bool = False) -> None:
        if path.parent == state_path(output) and output.exists() and next(calls) == 3:
            die()
        work(path, missing_ok)

    Path.unlink = hooked  # type: ignore[method-assign]


STEPS: dict[str, Callable[[Path], None]] = {
    "mixing": die_while_mixing,
    "planning": lambda output: die_at_replace("job.json"),
    "planned": lambda output: die_at_replace("job.json", before=False),
    "record of a segment": lambda output: die_at_replace("segment-00001.json"),
    "joining": lambda output: die_at_call("dubbing.job.joining", "Times.duration", 7),
    "joined": lambda output: die_at_call("dubbing.job.finishing", "_join", before=False),
    "multiplexing": die_while_muxing,
    "multiplexed": lambda output: die_at_replace(f"result{output.suffix}", before=False),
    "report": lambda output: die_at_replace("report.json"),
    "before its place": lambda output: die_at_replace(output.name),
    "at its place": lambda output: die_at_replace(output.name, before=False),
    "removing the state": die_while_removing,
}
"""What makes a run with that output die, by the step at which it does, in order."""


@dataclass(frozen=True)
class Setting:
    """One job that is run again and again; `audio` is a speech, or {speaker: speech}."""

    dubber: Dubber
    video: Path
    audio: Path | dict[str, Path]
    options: DubOptions
    persona: Path | None

    def start(self, output: Path, resume: bool = False, step: str = "") -> ForkProcess:
        """Run it in a process of its own, which dies at a step of `STEPS`, if one is named."""
        process = multiprocessing.get_context("fork").Process(
            target=self._run, args=(output, replace(self.options, resume=resume), step)
        )
        process.start()
        return process

    def _run(self, output: Path, options: DubOptions, step: str) -> None:
        if step:
            STEPS[step](output)
        if isinstance(self.audio, dict):
            self.dubber.dub_speakers(self.video, self.audio, output, options)
            return
        persona = Persona.load(self.persona) if self.persona else None
        self.dubber.dub(self.video, self.audio, output, options, persona)


@dataclass(frozen=True)
class Trial:
    """One kill: when (s after the state folder appeared; None at a step), what was there, and what
    came of it."""

    number: int
    after_s: float | None
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
        return ENDED
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
    if stage != ENDED:
        run_whole(setting, output, resume=True)
    equal = output.read_bytes() == wanted
    clean = list(output.parent.iterdir()) == [output]
    return Trial(number, round(after, 2), stage, finished, equal, clean)


def kill_at_steps(setting: Setting, steps: list[str], output: Path, wanted: bytes) -> list[Trial]:
    """One run that dies at every step in turn, and goes on after each.

    Raises:
        SystemExit: a run did not come to its step.
    """
    equal: dict[str, bool] = {}
    found: dict[str, int] = {}
    state = JobFolder(state_path(output))
    for step in steps:
        process = setting.start(output, resume=bool(equal), step=step)
        process.join()
        if process.exitcode != -signal.SIGKILL:
            raise SystemExit(f"error: the run ended with {process.exitcode}, not at {step!r}")
        # under the output's name lies nothing, or all of it
        equal[step] = not output.exists() or output.read_bytes() == wanted
        found[step] = len(list(state.path.glob("segment-*.json")))
    run_whole(setting, output, resume=True)
    same = output.read_bytes() == wanted
    clean = list(output.parent.iterdir()) == [output]
    return [Trial(number, None, step, found[step], equal[step] and same, clean)
            for number, step in enumerate(steps)]  # fmt: skip


def steps_of(setting: Setting) -> list[str]:
    """The steps that a job has."""
    several = isinstance(setting.audio, dict)
    return [step for step in STEPS if several or step != "mixing"]


def make_clip(path: Path, seconds: float, people: int) -> None:
    """A small clip of the demo's speaker, several times side by side, every other one mirrored."""
    import av
    import cv2

    puppet, size = demo_puppet(), 256
    with av.open(str(path), "w") as sink:
        stream: Any = sink.add_stream("libx264", rate=25, options={"preset": "ultrafast"})
        stream.width, stream.height = size * people, size
        stream.pix_fmt = "yuv420p"
        for index in range(round(seconds * 25)):
            one = cv2.resize(puppet.frame(demo_pose(index / 25)), (size, size))
            picture = np.hstack([one[:, ::-1] if k % 2 else one for k in range(people)])
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
    parser.add_argument("--steps", action="store_true", help="also die at every step in turn")
    parser.add_argument("--speakers", type=int, default=1, metavar="N", help="of the made clip (1)")
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
            apart(make_clip, video, args.seconds, args.speakers)
        options = DubOptions(
            length="video", preset="ultrafast", segment_seconds=args.segment_seconds
        )
        dubber = Dubber.from_pretrained(device="cpu")
        several = args.speakers > 1
        persona = None if args.analyse or several else folder / "speaker.persona"
        if persona:
            apart(prepare, dubber, video, persona)
        said = {f"{256 * k + 128},128@0": audio for k in range(args.speakers)}
        setting = Setting(dubber, video, said if several else audio, options, persona)
        output = folder / f"reference{args.suffix}"
        lasted = run_whole(setting, output)
        wanted = output.read_bytes()
        print(f"a run takes {lasted:.1f} s", file=sys.stderr, flush=True)
        moments = random.Random(args.seed)
        trials = []
        attempts = 0
        while len(trials) < args.kills:
            place = folder / f"attempt{attempts}"
            place.mkdir()
            attempts += 1
            after = moments.uniform(0, lasted)
            trial = kill_once(setting, len(trials), after, place / output.name, wanted)
            print(json.dumps(asdict(trial)), file=sys.stderr, flush=True)
            if trial.stage != ENDED:
                trials.append(trial)
        if args.steps:
            place = folder / "steps"
            place.mkdir()
            trials += kill_at_steps(setting, steps_of(setting), place / output.name, wanted)
    rows = [asdict(trial) | {"passed": trial.passed} for trial in trials]
    print(markdown(list(rows[0]), rows))
    good = sum(trial.passed for trial in trials)
    print(f"\n{good} of {len(trials)} killed runs gave the bytes of an uninterrupted one")
    print(f"({attempts - args.kills} more had ended before they could be killed)")
    if args.output:
        args.output.mkdir(parents=True, exist_ok=True)
        save_json(args.output / "kill_test.json", {"seconds": lasted, "trials": rows})
    return 0 if good == len(trials) else 1


if __name__ == "__main__":
    sys.exit(main())
