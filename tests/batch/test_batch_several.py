"""Jobs that dub several speakers of one video: shared among workers, resumed, done again."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from batch_samples import Alone, write_jobs

from dubbing.batch.identity import input_identity
from dubbing.batch.jobs import Job, read_jobs
from dubbing.batch.journal import read_journal
from dubbing.batch.options import BatchOptions
from dubbing.batch.personas import persona_key
from dubbing.batch.plan import make_plan
from dubbing.batch.runner import HIDDEN, JOURNAL, run_batch
from dubbing.batch.sharing import result_seconds
from dubbing.batch.state import DONE, BatchState, JobState
from dubbing.checksums import file_sha256
from dubbing.media.audio import decode_audio
from dubbing.options import DubOptions

SAID = {"120,110@0": "one.flac", "360,110@0.1": "two.flac"}
FAST = {"preset": "ultrafast", "segment_seconds": 0.1}


def test_results_are_those_of_one_process(
    inputs: Path, pair: Path, tmp_path: Path, alone: Alone
) -> None:
    """One job in segments by two workers; then, by a resumed batch, another with its own mix."""
    folder = tmp_path / "deep"  # inputs are relative to it
    folder.mkdir()
    for name in (pair.name, *SAID.values()):
        (folder / name).symlink_to(inputs / name)
    first = {"video": pair.name, "map": SAID, "output": "both.mp4", **FAST}
    second = {**first, "output": "mixed.mp4", "mix": "two.flac", "report": "mixed.json"}
    output = tmp_path / "out"
    options = BatchOptions(workers=2, threads=1, backoff=0.0)
    jobs = read_jobs(write_jobs(folder / "jobs.jsonl", [first]))
    summary = run_batch(jobs, output, options, device="cpu")
    assert (summary.done, summary.failed) == (1, 0)
    segments = [r for r in read_journal(output / HIDDEN / JOURNAL) if r["kind"] == "segment"]
    assert {r["part"] for r in segments} == {f"both.mp4#{k}" for k in range(4)}
    assert all(r["error"] is None for r in segments)
    wanted = DubOptions(preset="ultrafast", segment_seconds=0.1, overwrite=True)
    assert (output / "both.mp4").read_bytes() == alone.several(pair.name, SAID, wanted)

    jobs = read_jobs(write_jobs(folder / "jobs.jsonl", [first, second]))
    again = BatchOptions(workers=1, threads=1, backoff=0.0, resume=True)
    summary = run_batch(jobs, output, again, device="cpu")
    assert (summary.done, summary.kept, summary.failed) == (2, 1, 0)
    made = (output / "mixed.mp4").read_bytes()
    assert made == alone.several(pair.name, SAID, wanted, "two.flac")
    assert (decode_audio(output / "mixed.mp4")[0] == decode_audio(inputs / "two.flac")[0]).all()
    report = json.loads((output / "mixed.json").read_text())
    assert report["audio"]["path"] == str(folder / "two.flac")
    assert {f"speech of speaker {who}" for who in SAID} <= set(report["checksums"])
    assert not (output / HIDDEN / "work").exists()


def done(job: Job, folder: Path) -> BatchState:
    """The state after `job`, whose result is in `folder`."""
    result = folder / job.output
    result.parent.mkdir(exist_ok=True)
    result.write_text("frames")
    facts = {
        "bytes": 6, "sha256": file_sha256(result), "token": "",
        "inputs": {place: input_identity(place) for place in job.inputs},
    }  # fmt: skip
    return BatchState(jobs={job.output: JobState(job.digest, DONE, 1, facts)}, owned={job.output})


@pytest.mark.parametrize("change", ["", "anna.wav", "ben.wav", "final.wav"])
def test_a_changed_speech_or_mix_is_done_again(tmp_path: Path, change: str) -> None:
    names = ("talk.mp4", "anna.wav", "ben.wav", "final.wav")
    for name in names:
        (tmp_path / name).write_text(name)
    video, anna, ben, mix = (str(tmp_path / name) for name in names)
    job = Job(video, None, "out.mp4", mix=mix, speeches={"0": anna, "1": ben})
    state = done(job, tmp_path / "results")
    if change:
        (tmp_path / change).write_text("other words")
    plan = make_plan([job], str(tmp_path / "results"), state)
    assert plan.again == (["out.mp4"] if change else [])


def test_several_speakers_share_no_persona_and_last_as_long_as_the_longest(
    inputs: Path, pair: Path
) -> None:
    one, two = str(inputs / "one.flac"), str(inputs / "two.flac")
    video = str(inputs / "a.mp4")  # any will do
    job = Job(video, None, "o.mp4", speeches={"0": one, "1": two})
    assert persona_key(job) == ""
    assert persona_key(Job(video, one, "o.mp4")) != ""
    assert result_seconds([job]) == {"o.mp4": pytest.approx(0.4, abs=0.02)}
    absent = Job(video, None, "o.mp4", speeches={"0": one, "1": str(pair.with_name("no.flac"))})
    assert result_seconds([absent]) == {}
