"""How many workers fit, how long to wait, and what a batch refuses before it starts."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from batch_samples import write_jobs

from dubbing.batch.engines import choose_engine
from dubbing.batch.options import BatchOptions
from dubbing.batch.resources import Machine, this_machine, worker_count
from dubbing.batch.tasks import WorkerSetup
from dubbing.cli import main
from dubbing.errors import OptionInvalid

JOB = {"video": "a.mp4", "audio": "a.wav", "output": "a.mp4"}
GPUS = (("0", 80.0), ("1", 80.0))


@pytest.mark.parametrize(
    ("machine", "on_gpu", "workers"),
    [
        (Machine(16, 64.0, ()), False, 16),
        (Machine(16, 5.0, ()), False, 4),
        (Machine(1, 0.5, ()), False, 1),
        (Machine(64, 512.0, GPUS), True, 40),
        (Machine(24, 512.0, GPUS), True, 24),
    ],
)
def test_workers_by_memory_and_cores(machine: Machine, on_gpu: bool, workers: int) -> None:
    assert worker_count(machine, on_gpu) == workers


def test_this_machine_has_something() -> None:
    machine = this_machine()
    assert machine.cores >= 1
    assert machine.memory_gib > 0.1


def test_waits_grow_twofold() -> None:
    options = BatchOptions(backoff=3.0)
    assert [options.wait_before(k) for k in (1, 2, 3, 4)] == [0.0, 3.0, 6.0, 12.0]


@pytest.mark.parametrize(
    "values",
    [{"engine": "slurm"}, {"workers": -1}, {"retries": 21}, {"gpus_per_worker": 2.0}],
)
def test_options_out_of_range(values: dict[str, object]) -> None:
    with pytest.raises(OptionInvalid):
        BatchOptions(**values)  # type: ignore[arg-type]


@pytest.mark.parametrize("options", [{"address": "auto"}, {"gpus_per_worker": 0.5}])
def test_options_of_ray_need_ray(options: dict[str, object]) -> None:
    setup = WorkerSetup("default", "cpu", 1, None)
    with pytest.raises(OptionInvalid, match="ray"):
        choose_engine(setup, BatchOptions(**options), 1)  # type: ignore[arg-type]


def batch(folder: Path, *arguments: str) -> int:
    jobs = write_jobs(folder / "jobs.jsonl", [JOB])
    return main(["batch", str(jobs), "--device", "cpu", *arguments])


def test_faults_end_it_before_anything_is_made(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    jobs = write_jobs(tmp_path / "jobs.jsonl", [JOB | {"crf": 77}, {"video": "a.mp4"}])
    assert main(["batch", str(jobs), "--output-dir", str(tmp_path / "out")]) == 24
    text = capsys.readouterr().err
    assert "3 faults" in text and "line 1" in text and "line 2" in text
    assert not (tmp_path / "out").exists()


def test_url_needs_a_folder_for_the_journal(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert batch(tmp_path, "--output-dir", "memory://out") == 13
    assert "--state-dir" in capsys.readouterr().err
    assert batch(tmp_path, "--output-dir", str(tmp_path), "--state-dir", str(tmp_path)) == 13


def test_unknown_checkpoint_and_unwritable_folder(tmp_path: Path) -> None:
    assert batch(tmp_path, "--output-dir", str(tmp_path / "o"), "--checkpoint", "none") == 9
    (tmp_path / "file").touch()
    assert batch(tmp_path, "--output-dir", str(tmp_path / "file")) == 8


@pytest.mark.parametrize(
    "arguments",
    [["batch"], ["batch", "jobs.csv"], ["batch", "status"], ["batch", "a", "b", "c", "--pair"]],
)
def test_lines_that_do_not_parse(arguments: list[str]) -> None:
    assert main(arguments) == 2


def test_status_of_a_folder_without_a_batch(tmp_path: Path) -> None:
    assert main(["batch", "status", str(tmp_path)]) == 3


def test_folders_and_pair_belong_together(tmp_path: Path) -> None:
    assert batch(tmp_path, "--output-dir", str(tmp_path / "o"), "--pair", "stem") == 13
    assert json.dumps(JOB)  # the file was fine
