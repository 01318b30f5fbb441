"""kill -9 at every step of a job, one after the other: the end is that of an uninterrupted run."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from dubbing.errors import DubbingError
from dubbing.job import held_state, lock, state_path
from dubbing.job.folder import JobFolder
from dubbing.report import save_bytes

ROOT = Path(__file__).parents[2]
LAST = ["record of a segment", "joining", "joined", "multiplexing", "multiplexed", "report",
        "before its place", "at its place", "removing the state"]  # fmt: skip
FIRST = ["planning", "planned"]


@pytest.mark.parametrize(
    ("speakers", "steps"), [(1, [*FIRST, *LAST]), (2, ["mixing", *FIRST, *LAST])]
)
def test_killed_at_every_step(speakers: int, steps: list[str], tmp_path: Path) -> None:
    """With one speaker, and with one speech for each of two (`--map`)."""
    done = subprocess.run(
        [sys.executable, ROOT / "scripts" / "kill_test.py", "--kills", "0", "--steps",
         "--seconds", "0.6", "--speakers", str(speakers), "--output", tmp_path],
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    trials = json.loads((tmp_path / "kill_test.json").read_text())["trials"]
    assert [trial["stage"] for trial in trials] == steps
    assert all(trial["equal"] and trial["clean"] for trial in trials)
    assert trials[-1]["finished_segments"] >= 2


def test_a_file_that_could_not_be_written_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "taken.json").mkdir()
    with pytest.raises(DubbingError, match=r"taken\.json: can't be written"):
        save_bytes(tmp_path / "taken.json", b"{}")
    assert [p.name for p in tmp_path.iterdir()] == ["taken.json"]


def test_the_report_is_the_last_to_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As long as it is there a resumed run knows that the result is at its place."""
    folder = JobFolder(state_path(tmp_path / "o.mp4"))
    folder.path.mkdir()
    names = ["job.json", "lock", "motion.safetensors", "report.json", "segment-00000.json"]
    for name in names:
        (folder.path / name).touch()
    gone: list[str] = []
    work = Path.unlink

    def noted(path: Path, missing_ok: bool = False) -> None:
        gone.append(path.name)
        work(path, missing_ok)

    monkeypatch.setattr(Path, "unlink", noted)
    folder.remove()
    assert (gone[0], gone[-2:]) == ("job.json", ["report.json", "lock"])
    assert sorted(gone) == names
    assert not folder.path.exists()


@pytest.mark.parametrize("call", ["pwrite", "fstat", "ftruncate"])
def test_a_signal_while_the_lock_is_taken_leaves_no_state(
    call: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was locked is let go before the state is removed: else the run meets its own lock."""
    calls: list[object] = []

    class InterruptedOnce:
        def __getattr__(self, name: str) -> object:
            return self.interrupted if name == call else getattr(os, name)

        @staticmethod
        def interrupted(*arguments: object) -> object:
            done = getattr(os, call)(*arguments)
            calls.append(arguments)
            if len(calls) == 1:
                raise KeyboardInterrupt
            return done

    monkeypatch.setattr(lock, "os", InterruptedOnce())
    with pytest.raises(KeyboardInterrupt), held_state(tmp_path / "o.mp4"):
        raise AssertionError("never held")
    assert len(calls) == 2, "once in the run, once as its state is removed"
    assert not list(tmp_path.iterdir())
