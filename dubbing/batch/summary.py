"""What a batch came to, as data; the command line's exit status says it too."""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from dataclasses import dataclass
from typing import Any

from dubbing.batch.state import BEGUN, DONE, FAILED, WAITING, BatchState

FAILED_BASE = 30  # above every exit code of one error
FAILED_MOST = 90


@dataclass(frozen=True)
class Summary:
    """Counts are of jobs. `kept` were done by an earlier run; pace is that of the last run alone,
    start-up apart."""

    jobs: int
    done: int
    kept: int
    failed: int
    waiting: int
    frames: int
    seconds: float
    jobs_per_hour: float
    frames_per_second: float
    reasons: dict[str, int]
    failures: list[dict[str, Any]]
    engine: str
    workers: int
    ended: bool

    @property
    def exit_code(self) -> int:
        """0 where no job failed, else 30 + the number of failures, at most 120."""
        return FAILED_BASE + min(self.failed, FAILED_MOST) if self.failed else 0

    def to_json(self) -> str:
        return json.dumps(dataclasses.asdict(self), indent=2, ensure_ascii=False) + "\n"


def summarise(state: BatchState) -> Summary:
    """The summary of a batch's state."""
    counts = Counter(job.status for job in state.jobs.values())
    failures = [
        {
            "job": name,
            "kind": job.error["kind"],
            "message": job.error["message"],
            "attempts": job.attempts,
        }
        for name, job in state.jobs.items()
        if job.status == FAILED
    ]
    run = state.run
    seconds = run.last - run.began if run and run.began is not None else 0.0
    pace = 1 / seconds if run and seconds > 0 else 0.0
    return Summary(
        jobs=len(state.jobs),
        done=counts[DONE],
        kept=run.kept if run else 0,
        failed=counts[FAILED],
        waiting=counts[WAITING] + counts[BEGUN],
        frames=run.frames if run else 0,
        seconds=round(seconds, 3),
        jobs_per_hour=round(3600 * pace * run.done, 2) if run else 0.0,
        frames_per_second=round(pace * run.frames, 3) if run else 0.0,
        reasons=dict(Counter(f["kind"] for f in failures).most_common()),
        failures=failures,
        engine=run.engine if run else "",
        workers=run.workers if run else 0,
        ended=run.ended if run else False,
    )
