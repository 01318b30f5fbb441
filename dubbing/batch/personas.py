"""Speakers that several jobs share: learned once, by one worker, for all of them."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import astuple

from dubbing.batch import storage
from dubbing.batch.identity import input_identity
from dubbing.batch.jobs import Job
from dubbing.batch.state import BatchState
from dubbing.batch.storage import Stored
from dubbing.batch.tasks import PERSONA, Task


def persona_key(job: Job) -> str:
    """Jobs of one key have one persona; "" where the job brings its own, or dubs several people."""
    if job.persona is not None or job.speeches:
        return ""
    options = job.options
    facts = [job.video, options.speaker, options.adapt, astuple(options.face_limits)]
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:16]


def persona_tasks(
    jobs: Sequence[Job], todo: Sequence[Job], folder: str, state: BatchState
) -> tuple[dict[str, str], list[Task]]:
    """Locations of personas that are there already, by key, and tasks for those that several jobs
    to do need. A persona for one job alone is made by that job.

    Args:
        jobs: the whole batch; todo: what is left of it.
        folder: where personas are kept.
    """
    needed = Counter(persona_key(job) for job in todo)
    ready: dict[str, str] = {}
    tasks: dict[str, Task] = {}
    for job in todo:
        key = persona_key(job)
        if not key or key in ready or key in tasks:
            continue
        place = storage.join(folder, f"{key}.persona")
        facts = state.personas.get(key)
        if facts and _unchanged(job, facts["inputs"], place, facts):
            ready[key] = place
        elif needed[key] > 1:
            tasks[key] = Task(PERSONA, key, job.to_dict(), place, replace=True)
    return ready, list(tasks.values())


def _unchanged(job: Job, inputs: dict[str, str], place: str, facts: dict[str, str]) -> bool:
    stored = Stored(int(facts["bytes"]), facts["sha256"], facts["token"])
    return input_identity(job.video) == inputs.get(job.video) and storage.verify(place, stored)
