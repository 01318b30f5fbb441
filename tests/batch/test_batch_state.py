"""The journal survives what kills its writer; plans follow from it."""

from __future__ import annotations

import multiprocessing
from pathlib import Path

import pytest

from dubbing.batch.identity import input_identity
from dubbing.batch.jobs import Job
from dubbing.batch.journal import Journal, read_journal
from dubbing.batch.plan import make_plan
from dubbing.batch.state import DONE, BatchState, JobState, replay
from dubbing.batch.summary import summarise
from dubbing.checksums import file_sha256
from dubbing.errors import BatchInvalid, OutputUnwritable
from dubbing.options import DubOptions


def test_journal_reads_what_it_wrote(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "journal.jsonl"
    assert read_journal(path) == []
    with Journal(path) as journal:
        journal.append("begin", jobs=["ä.mp4"])
    with Journal(path) as journal:
        journal.append("end")
    assert [r["kind"] for r in read_journal(path)] == ["begin", "end"]
    assert read_journal(path)[0]["jobs"] == ["ä.mp4"]


def test_torn_last_line_is_ignored_and_cut_off(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    with Journal(path) as journal:
        journal.append("begin", jobs=[])
    with path.open("ab") as file:
        file.write(b'{"time":1,"kind":"do')
    assert [r["kind"] for r in read_journal(path)] == ["begin"]
    with Journal(path) as journal:
        journal.append("end")
    assert [r["kind"] for r in read_journal(path)] == ["begin", "end"]


def test_damage_before_the_last_line_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    path.write_text('{"time":1\n{"time":2,"kind":"end"}\n')
    with pytest.raises(BatchInvalid, match="line 1"):
        read_journal(path)


def _try_to_open(path: Path, outcome: multiprocessing.SimpleQueue) -> None:  # type: ignore[type-arg]
    try:
        with Journal(path):
            outcome.put("opened")
    except OutputUnwritable as error:
        outcome.put(str(error))


def test_one_writer_at_a_time(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    context = multiprocessing.get_context("fork")
    outcome = context.SimpleQueue()
    with Journal(path):
        other = context.Process(target=_try_to_open, args=(path, outcome))
        other.start()
        other.join()
        assert "another batch is at work" in outcome.get()
    other = context.Process(target=_try_to_open, args=(path, outcome))
    other.start()
    other.join()
    assert outcome.get() == "opened"


@pytest.fixture
def job(tmp_path: Path) -> Job:
    for name in ("a.mp4", "a.wav"):
        (tmp_path / name).write_text(name)
    return Job(str(tmp_path / "a.mp4"), str(tmp_path / "a.wav"), "out.mp4")


@pytest.fixture
def done(tmp_path: Path, job: Job) -> BatchState:
    """The job is done, and its result lies in results/."""
    result = tmp_path / "results" / "out.mp4"
    result.parent.mkdir()
    result.write_text("frames")
    facts = {
        "bytes": 6,
        "sha256": file_sha256(result),
        "token": "",
        "inputs": {place: input_identity(place) for place in job.inputs},
    }
    state = JobState(job.digest, DONE, 1, facts)
    return BatchState(jobs={job.output: state}, owned={job.output})


def test_what_is_done_and_unchanged_is_not_done_again(
    tmp_path: Path, job: Job, done: BatchState
) -> None:
    plan = make_plan([job], str(tmp_path / "results"), done)
    assert (plan.todo, plan.again, plan.refused) == ([], [], {})


@pytest.mark.parametrize("change", ["result", "gone", "video", "options"])
def test_what_changed_is_done_again(
    tmp_path: Path, job: Job, done: BatchState, change: str
) -> None:
    result = tmp_path / "results" / "out.mp4"
    if change == "result":
        result.write_text("flames")
    elif change == "gone":
        result.unlink()
    elif change == "video":
        Path(job.video).write_text("another film")
    else:
        job = Job(job.video, job.audio, job.output, options=DubOptions(crf=3))
    plan = make_plan([job], str(tmp_path / "results"), done)
    assert plan.todo == [job]
    assert plan.again == ([] if change == "options" else ["out.mp4"])


def test_a_file_of_somebody_else_is_left_alone(tmp_path: Path, job: Job) -> None:
    (tmp_path / "out.mp4").write_text("the work of hours")
    plan = make_plan([job], str(tmp_path), BatchState())
    assert plan.todo == []
    assert plan.refused["out.mp4"]["kind"] == "OutputUnwritable"
    allowed = Job(job.video, job.audio, job.output, options=DubOptions(overwrite=True))
    assert make_plan([allowed], str(tmp_path), BatchState()).todo == [allowed]


def test_summary_of_a_journal() -> None:
    facts = {"frames": 50}
    error = {"kind": "NoFaceFound", "message": "no face", "permanent": True, "exit_code": 7}
    jobs = {"a": "1", "b": "2", "c": "3", "d": "4"}
    base = {"kind": "batch", "jobs": jobs, "again": [], "weights": {}, "engine": "local"}
    records = [
        {**base, "time": 0.0, "workers": 0},
        {"kind": "ready", "time": 10.0, "workers": 2},
        {"kind": "begin", "time": 10.0, "jobs": list(jobs), "attempt": 1},
        {"kind": "done", "time": 15.0, "seconds": 5.0, "job": "a", "facts": facts},
        {"kind": "failed", "time": 20.0, "seconds": 4.0, "job": "b", "error": error},
    ]
    summary = summarise(replay(records))
    assert (summary.jobs, summary.done, summary.failed, summary.waiting) == (4, 1, 1, 2)
    assert summary.reasons == {"NoFaceFound": 1}
    assert (summary.jobs_per_hour, summary.frames_per_second) == (360.0, 5.0)
    assert (summary.exit_code, summary.ended, summary.workers) == (31, False, 2)
    resumed = [
        *records,
        {**base, "time": 100.0, "workers": 0},
        {"kind": "begin", "time": 101.0, "jobs": ["b", "c", "d"], "attempt": 1},
        *({"kind": "done", "time": 105.0, "seconds": 4.0, "job": k, "facts": facts} for k in "bcd"),
        {"kind": "end", "time": 200.0},
    ]
    summary = summarise(replay(resumed))
    assert (summary.done, summary.kept, summary.exit_code, summary.ended) == (4, 1, 0, True)
    assert summary.jobs_per_hour == 3 * 3600 / 4


def test_many_failures_stay_an_exit_code() -> None:
    error = {"kind": "NoFaceFound", "message": "", "permanent": True}
    jobs = {str(k): JobState("x", "failed", 1, {}, error) for k in range(500)}
    assert summarise(BatchState(jobs=jobs)).exit_code == 120
