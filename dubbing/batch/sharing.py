"""Which jobs are so long that several workers should render them."""

from __future__ import annotations

from collections.abc import Sequence

from dubbing.batch import storage
from dubbing.batch.jobs import Job
from dubbing.errors import DubbingError
from dubbing.media.probe import probe


def result_seconds(job: Job) -> float | None:
    """Length of the result as the headers of the inputs tell it; None where they don't, are not
    on a local disk, or can't be read (the job itself will say so)."""
    lengths: dict[str, float] = {}
    for name, location in (("video", job.video), ("audio", job.audio)):
        if storage.is_url(location):
            return None
        try:
            seconds = probe(location).duration
        except DubbingError:
            return None
        if seconds is None:
            return None
        lengths[name] = float(seconds)
    choose = {"audio": lengths["audio"], "video": lengths["video"],
              "shortest": min(lengths.values()), "longest": max(lengths.values())}  # fmt: skip
    return choose[job.options.length]


def shared_jobs(
    seconds: dict[str, float], jobs: Sequence[Job], workers: int, minutes: float | None
) -> set[str]:
    """Names of the jobs to render segment by segment: of more than one segment, and longer than
    `minutes`, or where that is None, than the mean share of a worker.

    Args:
        seconds: length of the result by name, where it is known.
    """
    if workers < 2:
        return set()
    limit = sum(seconds.values()) / workers if minutes is None else 60 * minutes
    return {
        job.output
        for job in jobs
        if seconds.get(job.output, 0.0) > max(limit, job.options.segment_seconds)
    }


def pieces(job: Job, seconds: float) -> int:
    """About how many workers could be busy with a job."""
    return max(round(seconds / job.options.segment_seconds), 1)
