"""Which jobs several workers share."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from dubbing.batch.jobs import Job
from dubbing.batch.sharing import pieces, result_seconds, shared_jobs
from dubbing.options import DubOptions

JOB = Job("a.mp4", "a.wav", "a.mp4")


def names(lengths: list[float], workers: int, minutes: float | None = None) -> set[str]:
    jobs = [replace(JOB, output=f"{k}.mp4") for k in range(len(lengths))]
    seconds = {job.output: length for job, length in zip(jobs, lengths, strict=True)}
    return shared_jobs(seconds, jobs, workers, minutes)


@pytest.mark.parametrize(
    ("lengths", "workers", "shared"),
    [
        ([600.0], 2, {"0.mp4"}),  # one long video
        ([600.0], 1, set()),
        ([60.0] * 8, 2, set()),  # enough jobs for all
        ([60.0] * 8, 10, {f"{k}.mp4" for k in range(8)}),
        ([600.0, 60.0, 60.0], 2, {"0.mp4"}),
        ([9.0], 2, set()),  # one segment is nothing to share
    ],
)
def test_jobs_longer_than_a_workers_share(
    lengths: list[float], workers: int, shared: set[str]
) -> None:
    assert names(lengths, workers) == shared


def test_a_limit_of_ones_own() -> None:
    assert names([600.0, 60.0, 60.0], 2, 0.5) == {"0.mp4", "1.mp4", "2.mp4"}
    assert names([600.0, 60.0, 60.0], 2, 20.0) == set()


def test_unknown_lengths_are_not_shared() -> None:
    assert shared_jobs({}, [JOB], 2, 0.0) == set()


@pytest.mark.parametrize("length", ["audio", "shortest"])
def test_length_of_the_result(inputs: Path, length: str) -> None:
    job = Job(
        str(inputs / "a.mp4"), str(inputs / "one.flac"), "a.mp4", options=DubOptions(length=length)
    )
    assert result_seconds([job]) == {"a.mp4": pytest.approx(0.4, abs=0.02)}
    unknown = [
        replace(job, audio="memory://one.flac"),
        replace(job, video=str(inputs / "absent.mp4")),
        replace(job, audio=str(inputs / "text.wav")),
    ]
    assert result_seconds(unknown) == {}


def test_pieces() -> None:
    assert (pieces(JOB, 600.0), pieces(JOB, 3.0)) == (60, 1)
