"""The same batch on a Ray started for the test."""

from __future__ import annotations

import importlib.util
import os
import signal
from pathlib import Path

import pytest
from batch_samples import Alone, write_jobs

from dubbing.batch.jobs import read_jobs
from dubbing.batch.journal import read_journal
from dubbing.batch.options import BatchOptions
from dubbing.batch.runner import HIDDEN, JOURNAL, run_batch
from dubbing.batch.tasks import Result
from dubbing.cli import main
from dubbing.options import DubOptions

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("ray") is None, reason="Ray is not installed: pip install '.[ray]'"
)


def test_ray_does_the_same_and_survives_a_killed_worker(
    inputs: Path, tmp_path: Path, alone: Alone
) -> None:
    a, b = str(inputs / "a.mp4"), str(inputs / "b.mp4")
    one, two = str(inputs / "one.flac"), str(inputs / "two.flac")
    rows = [
        {"video": a, "audio": one, "output": "a1.mp4", "preset": "ultrafast"},
        {"video": b, "audio": two, "output": "deep/b2.mp4", "preset": "ultrafast"},
        {"video": str(inputs / "text.mp4"), "audio": one, "output": "f1.mp4"},
    ]
    jobs = read_jobs(write_jobs(tmp_path / "jobs.jsonl", rows))
    killed: list[int] = []

    def kill(result: Result, finished: int, total: int) -> None:
        if not killed:
            killed.append(int(result.worker.rpartition(":")[2]))
            os.kill(killed[0], signal.SIGKILL)

    options = BatchOptions(engine="ray", workers=1, threads=1, backoff=0.0)
    output = tmp_path / "out"
    summary = run_batch(jobs, output, options, device="cpu", listener=kill)
    assert killed
    assert (summary.done, summary.failed, summary.reasons) == (2, 1, {"NotAVideo": 1})
    records = read_journal(output / HIDDEN / JOURNAL)
    done = sorted(r["job"] for r in records if r["kind"] == "done")
    assert done == ["a1.mp4", "deep/b2.mp4"]
    options_alone = DubOptions(preset="ultrafast", overwrite=True)
    assert (output / "a1.mp4").read_bytes() == alone.content("a.mp4", "one.flac", options_alone)


def test_more_workers_than_a_cluster_has_place_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    jobs = write_jobs(
        tmp_path / "jobs.jsonl", [{"video": "a.mp4", "audio": "a.wav", "output": "a.mp4"}]
    )
    line = ["batch", str(jobs), "--output-dir", str(tmp_path / "out"), "--engine", "ray"]
    assert main([*line, "--device", "cuda"]) == 13
    assert "--gpus-per-worker" in capsys.readouterr().err
    assert main([*line, "--resume", "--device", "cpu", "--gpus-per-worker", "0.5"]) == 13
