"""Processes that are asked to end, stopped or killed: messages, exit codes, and what is left."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pytest
from engine_samples import write_speech

from dubbing.dubber import Dubber
from dubbing.job import state_path
from dubbing.options import DubOptions
from dubbing.persona import Persona

OPTIONS = DubOptions(preset="ultrafast", segment_seconds=0.2)
SAME = ("--preset", "ultrafast", "--segment-seconds", "0.2", "--device", "cpu")


@dataclass(frozen=True)
class Bench:
    """One job, as a process of its own and in this one."""

    dubber: Dubber
    video: Path
    audio: Path
    persona: Path
    output: Path

    @property
    def state(self) -> Path:
        return state_path(self.output)

    def signalled(self, number: int, appears: str) -> tuple[int, str]:
        """(exit status, stderr) of a run that gets a signal once a file of its state is there. A
        run that ended before the signal reached it says nothing: it is done again."""
        for _ in range(5):
            status, words = self._signalled(number, appears)
            if status != 0:
                break
            self.output.unlink()
        return status, words

    def _signalled(self, number: int, appears: str) -> tuple[int, str]:
        process = subprocess.Popen(
            [sys.executable, "-m", "dubbing.cli", "run", str(self.video), str(self.audio),
             "-o", str(self.output), "--persona", str(self.persona), *SAME],
            stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
            # a shell's background jobs ignore Ctrl-C, and their children inherit that
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )  # fmt: skip
        file = self.state / appears
        while not (file.exists() and file.stat().st_size) and process.poll() is None:
            time.sleep(0.002)
        process.send_signal(number)
        _, words = process.communicate(timeout=120)
        return process.returncode, words

    def finished(self) -> bytes:
        """The bytes of the result, in this process, from whatever is there."""
        options = DubOptions(**(vars(OPTIONS) | {"resume": True}))
        persona = Persona.load(self.persona)
        self.dubber.dub(self.video, self.audio, self.output, options, persona)
        assert list(self.output.parent.iterdir()) == [self.output]
        return self.output.read_bytes()


@pytest.fixture(scope="module")
def saved(folder: Path, persona: Persona) -> Path:
    persona.save(folder / "kill.persona")
    return folder / "kill.persona"


@pytest.fixture
def bench(dubber: Dubber, clip: Path, saved: Path, folder: Path, tmp_path: Path) -> Bench:
    speech = folder / "half.flac"
    if not speech.exists():
        write_speech(speech, 0.62)
    return Bench(dubber, clip, speech, saved, tmp_path / "o.mp4")


@pytest.mark.parametrize(
    ("number", "code", "words"),
    [(signal.SIGINT, 130, "stopped from the keyboard"), (signal.SIGTERM, 143, "asked to end")],
)
def test_a_stopped_run_says_how_to_go_on(bench: Bench, number: int, code: int, words: str) -> None:
    status, said = bench.signalled(number, "segment-00000.json")
    assert status == code, said
    last = said.strip().splitlines()
    assert last[-1] == f"error: {words}; no output was written"
    assert "Traceback" not in said
    assert "--resume" in last[-2]
    assert f"dub clean {bench.output}" in last[-2]
    assert list(bench.output.parent.iterdir()) == [bench.state]
    assert not list(bench.state.glob("*.part"))


def test_a_killed_run_goes_on_with_the_same_bytes(bench: Bench) -> None:
    whole = bench.finished()
    bench.output.unlink()
    status, _ = bench.signalled(signal.SIGKILL, "segment-00001.json")
    assert status == -signal.SIGKILL
    assert not bench.output.exists()
    assert bench.finished() == whole


def test_a_run_that_is_stopped_at_once_ends_in_order(bench: Bench) -> None:
    """While libraries are still being imported, which may swallow or change the exception."""
    status, said = bench.signalled(signal.SIGTERM, "lock")
    assert status == 143, said
    assert "Traceback" not in said
    assert list(bench.output.parent.iterdir()) == [] or "--resume" in said
