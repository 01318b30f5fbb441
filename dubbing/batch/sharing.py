"""Which jobs are so long that several workers should render them."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

from dubbing.batch import storage
from dubbing.batch.jobs import Job
from dubbing.errors import DubbingError
from dubbing.media.probe import probe


def result_seconds(jobs: Sequence[Job]) -> dict[str, float]:
    """Lengths of the results, by name, as the headers of the inputs tell them.

    Left out are jobs whose inputs don't tell, are not on a local disk, or can't be read (the job
    itself will say so).
    """

    @cache  # many jobs share one video
    def length(location: str) -> float | None:
        try:
            seconds = None if storage.is_url(location) else probe(location).duration
        except DubbingError:
            return None
        return None if seconds is None else float(seconds)

    found = {}
    for job in jobs:
        video = length(job.video)
        one = job.audio or job.mix
        heard = [length(sound) for sound in ([one] if one else job.speeches.values())]
        if video is not None and None not in heard:
            audio = max(seconds for seconds in heard if seconds is not None)
            choose = {"audio": audio, "video": video, "shortest": min(video, audio),
                      "longest": max(video, audio)}  # fmt: skip
            found[job.output] = choose[job.options.length]
    return found


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
