"""A batch shown to a person: a line per job while it runs, tables at its end."""

from __future__ import annotations

from typing import TextIO

from rich.console import Console
from rich.table import Table

from dubbing.batch.summary import Summary
from dubbing.batch.tasks import Result

MOST_FAILURES = 50  # rows of the table; summary.json has all


class JobLines:
    """One line per finished job on `stream`."""

    def __init__(self, stream: TextIO):
        self._stream = stream

    def __call__(self, result: Result, finished: int, total: int) -> None:
        if result.error is not None:
            what = f"FAILED, {result.error['kind']}: {result.error['message']}"
        else:
            frames = result.facts["frames"]
            pace = frames / result.seconds if result.seconds > 0 else 0.0
            what = f"{frames} frames, {pace:.1f} fps"
        self._stream.write(f"{finished}/{total} {result.key}: {what}\n")
        self._stream.flush()


def print_summary(summary: Summary, stream: TextIO) -> None:
    """Tables of counts, pace and failures."""
    console = Console(file=stream, highlight=False)
    facts = Table(title="batch", show_header=False)
    rows = {
        "jobs": summary.jobs,
        "done": f"{summary.done} ({summary.kept} by an earlier run)",
        "failed": summary.failed,
        "waiting": summary.waiting,
        "engine": f"{summary.engine}, {summary.workers} workers",
        "time": f"{summary.seconds:.1f} s",
        "jobs per hour": f"{summary.jobs_per_hour:.1f}",
        "frames per second": f"{summary.frames_per_second:.1f}",
        **{f"failed: {kind}": count for kind, count in summary.reasons.items()},
    }
    for name, value in rows.items():
        facts.add_row(name, str(value))
    console.print(facts)
    if not summary.failures:
        return
    failures = Table("job", "tries", "reason", title="failures")
    for failure in summary.failures[:MOST_FAILURES]:
        failures.add_row(
            failure["job"], str(failure["attempts"]), f"{failure['kind']}: {failure['message']}"
        )
    console.print(failures)
    more = len(summary.failures) - MOST_FAILURES
    if more > 0:
        console.print(f"and {more} more, see summary.json")
