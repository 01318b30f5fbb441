"""Processes that are asked to end, stopped or killed: messages, exit codes, and what is left."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from engine_samples import write_speech

from dubbing.dubber import Dubber
from dubbing.job import state_path
from dubbing.persona import Persona

OPTIONS = ("--preset", "ultrafast", "--segment-seconds", "0.2", "--device", "cpu")


class Bench:
    """One job as a process of its own."""

    def __init__(self, video: Path, audio: Path, persona: Path, output: Path):
        self.output, self.state = output, state_path(output)
        self._command = [
            sys.executable, "-m", "dubbing.cli", "run", str(video), str(audio), "-o", str(output),
            "--persona", str(persona), *OPTIONS,
        ]  # fmt: skip

    def start(self, *more: str) -> subprocess.Popen[str]:
        """OpenMP threads make the sums, so there are as many as in the other runs."""
        return subprocess.Popen(
            [*self._command, *more], stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
        )  # fmt: skip

    def signalled(self, number: int, segments: int) -> tuple[int, str]:
        """(exit status, stderr) of a run that gets a signal once so many segments are finished."""
        process = self.start()
        last = self.state / f"segment-{segments - 1:05d}.json"
        while not last.exists() and process.poll() is None:
            time.sleep(0.002)
        process.send_signal(number)
        _, words = process.communicate(timeout=60)
        return process.returncode, words

    def resumed(self) -> bytes:
        process = self.start("--resume")
        _, words = process.communicate(timeout=120)
        assert process.returncode == 0, words
        assert list(self.output.parent.iterdir()) == [self.output]
        return self.output.read_bytes()


@pytest.fixture(scope="module")
def half(folder: Path) -> Path:
    return write_speech(folder / "half.flac", 0.62)


@pytest.fixture(scope="module")
def saved(folder: Path, persona: Persona) -> Path:
    persona.save(folder / "kill.persona")
    return folder / "kill.persona"


@pytest.fixture(scope="module")
def whole(dubber: Dubber, clip: Path, half: Path, saved: Path, folder: Path) -> bytes:
    """The bytes of an uninterrupted run."""
    bench = Bench(clip, half, saved, folder / "uninterrupted" / "o.mp4")
    bench.output.parent.mkdir()
    return bench.resumed()


@pytest.fixture
def bench(clip: Path, half: Path, saved: Path, tmp_path: Path) -> Bench:
    return Bench(clip, half, saved, tmp_path / "o.mp4")


@pytest.mark.parametrize(
    ("number", "code", "words"),
    [(signal.SIGINT, 130, "stopped from the keyboard"), (signal.SIGTERM, 143, "asked to end")],
)
def test_a_stopped_run_says_so_and_goes_on(
    bench: Bench, whole: bytes, number: int, code: int, words: str
) -> None:
    status, said = bench.signalled(number, segments=1)
    assert status == code
    last = said.strip().splitlines()
    assert last[-1] == f"error: {words}; no output was written"
    assert "Traceback" not in said
    assert "--resume" in last[-2]
    assert f"dub clean {bench.output}" in last[-2]
    assert list(bench.output.parent.iterdir()) == [bench.state]
    assert not list(bench.state.glob("*.part"))
    assert bench.resumed() == whole


@pytest.mark.parametrize("segments", [1, 3])
def test_a_killed_run_goes_on_with_the_same_bytes(
    bench: Bench, whole: bytes, segments: int
) -> None:
    status, _ = bench.signalled(signal.SIGKILL, segments)
    assert status == -signal.SIGKILL
    assert not bench.output.exists()
    assert bench.resumed() == whole


def test_a_run_that_is_stopped_at_once_leaves_nothing(bench: Bench) -> None:
    process = bench.start()
    lock = bench.state / "lock"
    while not (lock.exists() and lock.read_bytes()) and process.poll() is None:
        time.sleep(0.001)
    process.send_signal(signal.SIGTERM)
    _, words = process.communicate(timeout=60)
    assert process.returncode == 143
    assert list(bench.output.parent.iterdir()) == [] or "--resume" in words
