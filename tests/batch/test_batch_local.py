"""Batches on worker processes: results as of `dub run`, failures apart, nothing lost by a kill."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from batch_samples import Alone, write_jobs

from dubbing.batch.jobs import read_jobs
from dubbing.batch.journal import read_journal
from dubbing.batch.options import BatchOptions
from dubbing.batch.runner import HIDDEN, JOURNAL, batch_status, run_batch
from dubbing.cli import main
from dubbing.options import DubOptions

GOOD = {
    "a1.mp4": ("a.mp4", "one.flac"),
    "deep/a2.mp4": ("a.mp4", "two.flac"),
    "b2.mp4": ("b.mp4", "two.flac"),
}
BROKEN = {
    "f1.mp4": ("text.mp4", "one.flac", "NotAVideo"),
    "f2.mp4": ("a.mp4", "text.wav", "NoAudioStream"),
    "f3.mp4": ("absent.mp4", "one.flac", "InputNotFound"),
}
FAST = {"preset": "ultrafast"}
OPTIONS = ("--device", "cpu", "--threads", "1", "--quiet")


def jobs_file(inputs: Path, folder: Path, names: list[str]) -> Path:
    rows: list[dict[str, Any]] = []
    for name in names:
        video, audio, *_ = (GOOD | BROKEN)[name]
        rows.append(
            {"video": str(inputs / video), "audio": str(inputs / audio), "output": name, **FAST}
        )
    return write_jobs(folder / "jobs.jsonl", rows)


def records(folder: Path, kind: str) -> list[dict[str, Any]]:
    return [r for r in read_journal(folder / HIDDEN / JOURNAL) if r["kind"] == kind]


@pytest.fixture(scope="module")
def batch(inputs: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, int]:
    """(jobs file, output folder, exit status) of a batch of three good and three bad jobs."""
    folder = tmp_path_factory.mktemp("batch")
    jobs = jobs_file(inputs, folder, [*GOOD, *BROKEN])
    output = folder / "out"
    status = main(
        ["batch", str(jobs), "--output-dir", str(output), "--workers", "2", "--backoff", "0",
         *OPTIONS]
    )  # fmt: skip
    return jobs, output, status


def test_bad_jobs_are_told_and_stop_no_other(batch: tuple[Path, Path, int]) -> None:
    _, output, status = batch
    assert status == 30 + len(BROKEN)
    summary = json.loads((output / HIDDEN / "summary.json").read_text())
    assert (summary["done"], summary["failed"]) == (len(GOOD), len(BROKEN))
    assert {f["job"]: f["kind"] for f in summary["failures"]} == {
        name: kind for name, (_, _, kind) in BROKEN.items()
    }
    assert {f["attempts"] for f in summary["failures"]} == {1}  # bad inputs stay bad
    assert summary["jobs_per_hour"] > 0 and summary["frames_per_second"] > 0
    made = {str(p.relative_to(output)) for p in output.rglob("*") if p.is_file()}
    assert {name for name in made if not name.startswith(HIDDEN)} == set(GOOD)
    assert not (output / HIDDEN / "work").exists()


def test_results_are_those_of_one_process(batch: tuple[Path, Path, int], alone: Alone) -> None:
    _, output, _ = batch
    for name in ("a1.mp4", "b2.mp4"):  # with a shared persona, and without
        options = DubOptions(preset="ultrafast", overwrite=True)
        assert (output / name).read_bytes() == alone.content(*GOOD[name], options)


def test_one_persona_for_the_jobs_of_one_speaker(batch: tuple[Path, Path, int]) -> None:
    _, output, _ = batch
    assert len(records(output, "persona")) == 1
    assert len(list((output / HIDDEN / "personas").iterdir())) == 1


def test_workers_load_the_networks_once(batch: tuple[Path, Path, int]) -> None:
    _, output, _ = batch
    workers = {r["worker"] for kind in ("done", "failed") for r in records(output, kind)}
    assert len(workers) == 2


def test_status(batch: tuple[Path, Path, int], capsys: pytest.CaptureFixture[str]) -> None:
    _, output, _ = batch
    assert main(["batch", "status", str(output)]) == 0
    text = capsys.readouterr().out
    assert "NotAVideo" in text and "f3.mp4" in text
    assert main(["batch", "status", str(output), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["done"] == len(GOOD)


def test_a_second_batch_in_the_folder_needs_resume(
    batch: tuple[Path, Path, int], capsys: pytest.CaptureFixture[str]
) -> None:
    jobs, output, _ = batch
    assert main(["batch", str(jobs), "--output-dir", str(output), *OPTIONS]) == 8
    assert "--resume" in capsys.readouterr().err


def test_resume_of_what_is_done_does_nothing(batch: tuple[Path, Path, int], inputs: Path) -> None:
    _, output, _ = batch
    before = {name: (output / name).stat().st_mtime_ns for name in GOOD}
    journal = len(records(output, "begin"))
    good = read_jobs(jobs_file(inputs, output.parent, list(GOOD)))
    summary = run_batch(good, output, BatchOptions(resume=True), device="cpu")
    assert (summary.done, summary.kept, summary.failed) == (3, 3, 0)
    assert {name: (output / name).stat().st_mtime_ns for name in GOOD} == before
    assert len(records(output, "begin")) == journal


def test_a_killed_batch_goes_on_where_it_was(inputs: Path, tmp_path: Path) -> None:
    jobs, output = jobs_file(inputs, tmp_path, ["a1.mp4", "b2.mp4"]), tmp_path / "out"
    line = ["batch", str(jobs), "--output-dir", str(output), "--workers", "1", *OPTIONS]
    driver = subprocess.Popen([sys.executable, "-m", "dubbing.cli", *line])
    deadline = time.monotonic() + 120
    while not (output.is_dir() and records(output, "done")):
        assert driver.poll() is None and time.monotonic() < deadline
        time.sleep(0.02)
    driver.kill()
    driver.wait()
    first = records(output, "done")[0]
    worker = int(first["worker"].rpartition(":")[2])
    while _alive(worker):  # workers end with their batch
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert batch_status(output).waiting == 1
    made = (output / first["job"]).stat().st_mtime_ns
    assert main([*line, "--resume"]) == 0
    assert (output / first["job"]).stat().st_mtime_ns == made
    assert sorted(r["job"] for r in records(output, "done")) == ["a1.mp4", "b2.mp4"]
    assert {p.name for p in output.iterdir()} == {HIDDEN, "a1.mp4", "b2.mp4"}


def test_segments_by_two_workers_of_which_one_is_killed_make_the_same_file(
    inputs: Path, tmp_path: Path, alone: Alone
) -> None:
    row = {"video": str(inputs / "b.mp4"), "audio": str(inputs / "two.flac"), "output": "b2.mp4"}
    job = row | FAST | {"segment_seconds": 0.1}
    jobs = read_jobs(write_jobs(tmp_path / "jobs.jsonl", [job]))
    output = tmp_path / "out"
    killer = threading.Thread(target=_kill_after_a_segment, args=(output,))
    killer.start()
    options = BatchOptions(workers=2, threads=1, backoff=0.0)
    summary = run_batch(jobs, output, options, device="cpu")
    killer.join()
    assert (summary.done, summary.failed, summary.workers) == (1, 0, 2)
    numbers = {r["part"] for r in records(output, "segment") if r["error"] is None}
    assert numbers == {f"b2.mp4#{k}" for k in range(4)}
    assert len({r["worker"] for r in records(output, "segment")}) > 1
    wanted = DubOptions(preset="ultrafast", segment_seconds=0.1, overwrite=True)
    assert (output / "b2.mp4").read_bytes() == alone.content("b.mp4", "two.flac", wanted)
    assert not (output / HIDDEN / "work").exists()


def test_inputs_and_results_at_urls(inputs: Path, tmp_path: Path) -> None:
    job = {
        "video": f"file://{inputs}/a.mp4",
        "audio": f"file://{inputs}/one.flac",
        "output": "a1.mp4",
        "report": "a1.json",
        **FAST,
    }
    jobs = read_jobs(write_jobs(tmp_path / "jobs.jsonl", [job]))
    options = BatchOptions(workers=1, threads=1, state_dir=tmp_path / "state")
    url = f"file://{tmp_path}/store"
    assert run_batch(jobs, url, options, device="cpu").done == 1
    report = json.loads((tmp_path / "store" / "a1.json").read_text())
    assert report["video"]["path"] == job["video"]
    assert report["output"]["path"] == f"{url}/a1.mp4"
    assert (tmp_path / "store" / "a1.mp4").stat().st_size > 1000
    again = BatchOptions(workers=1, resume=True, state_dir=tmp_path / "state")
    assert run_batch(jobs, url, again, device="cpu").kept == 1
    assert batch_status(tmp_path / "state").done == 1


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def _kill_after_a_segment(output: Path) -> None:
    """SIGKILL for the worker that finished the first segment: it has another in hand."""
    deadline = time.monotonic() + 120
    while not (output.is_dir() and records(output, "segment")):
        assert time.monotonic() < deadline
        time.sleep(0.005)
    os.kill(int(records(output, "segment")[0]["worker"].rpartition(":")[2]), signal.SIGKILL)
