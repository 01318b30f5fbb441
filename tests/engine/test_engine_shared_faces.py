"""Faces that several processes look for: the plan is the one that a single process makes."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from engine_samples import FRAMES
from safetensors.numpy import load_file

from dubbing.batch.tasks import FACES, INDEX, PLAN, Task, WorkerSetup
from dubbing.batch.worker import Worker
from dubbing.dubber import Dubber
from dubbing.errors import InputChanged
from dubbing.face import stretches as stretching
from dubbing.job import SharedFaces, state_path
from dubbing.options import DubOptions
from dubbing.persona import Persona

OPTIONS = DubOptions(preset="ultrafast", resume=True)


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stretching, "STRETCH", 10)
    monkeypatch.setattr(stretching, "REACH", 6)


class Kept(Exception):
    pass


def planned(
    dubber: Dubber, clip: Path, speech: Path, output: Path, faces: Path | None = None
) -> dict[str, np.ndarray]:
    """Everything numeric that planning leaves."""
    with (
        pytest.raises(Kept),
        dubber.plan(clip, speech, output, OPTIONS, faces=faces) as job,
    ):
        raise Kept
    folder = job.folder
    names = (folder.persona, folder.findings, folder.motion)
    return {f"{place.name}:{k}": v for place in names for k, v in load_file(place).items()}


def assert_same(one: dict[str, np.ndarray], other: dict[str, np.ndarray]) -> None:
    assert one.keys() == other.keys()
    for name, value in one.items():
        assert np.array_equal(value, other[name]), name


def test_any_order_and_any_share_of_the_work_gives_the_same_plan(
    dubber: Dubber, clip: Path, speech: Path, tmp_path: Path
) -> None:
    wanted = planned(dubber, clip, speech, tmp_path / "alone.mp4")
    seen = tmp_path / "seen"
    shared = dubber.share_faces(clip, seen, OPTIONS)
    assert shared.missing() == list(range(-(-FRAMES // 10)))
    model = dubber.weights.morphable
    last = shared.missing()[-1]
    for number in (last, 0):
        other = SharedFaces.load(seen)
        assert other is not None
        other.find(number, model)
    assert shared.missing() == list(range(1, last))
    part = planned(dubber, clip, speech, tmp_path / "part.mp4", seen)
    assert_same(part, wanted)
    for number in shared.missing():
        shared.find(number, model)
    assert shared.missing() == []
    (seen / "stretch-00001.safetensors").write_bytes(b"torn")
    assert_same(planned(dubber, clip, speech, tmp_path / "whole.mp4", seen), wanted)


def test_what_was_found_is_really_used(
    dubber: Dubber, clip: Path, speech: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = tmp_path / "seen"
    shared = dubber.share_faces(clip, seen, OPTIONS)
    for number in shared.missing():
        shared.find(number, dubber.weights.morphable)

    def never(*_: object) -> None:
        raise AssertionError("looked again")

    monkeypatch.setattr("dubbing.analysis.find_stretch", never)
    planned(dubber, clip, speech, tmp_path / "out.mp4", seen)


def test_faces_of_another_video_are_not_used(
    dubber: Dubber, clip: Path, speech: Path, tmp_path: Path
) -> None:
    video = tmp_path / "clip.mp4"
    shutil.copy(clip, video)
    seen = tmp_path / "seen"
    shared = dubber.share_faces(video, seen, OPTIONS)
    shared.find(0, dubber.weights.morphable)
    assert dubber.share_faces(video, seen, OPTIONS).missing() == shared.missing()
    video.write_bytes(clip.read_bytes() + b"more")
    with pytest.raises(InputChanged):
        shared.find(1, dubber.weights.morphable)
    again = dubber.share_faces(video, seen, OPTIONS)
    assert 0 in again.missing()
    described = dubber.share_faces(clip, tmp_path / "other", OPTIONS).description
    assert SharedFaces.load(seen, described) is None
    assert SharedFaces.load(tmp_path / "absent") is None


def test_a_batch_worker_plans_from_shared_faces(
    dubber: Dubber, clip: Path, speech: Path, tmp_path: Path
) -> None:
    worker = Worker(WorkerSetup("default", "cpu", 1, str(tmp_path / "work")))
    job = {"video": str(clip), "audio": str(speech), "output": "out.mp4",
           "options": {"preset": "ultrafast"}}  # fmt: skip
    task = Task(INDEX, "out.mp4", job, str(tmp_path / "out.mp4"))
    begun = worker.run(task)
    assert begun.error is None
    numbers = begun.facts["missing"]
    assert len(numbers) > 1
    for number in reversed(numbers):
        found = worker.run(replace(task, kind=FACES, key=f"out.mp4#{number}", number=number))
        assert found.error is None
        assert 0 < found.facts["frames"] <= 10
    assert worker.run(task).facts["missing"] == []
    plan = worker.run(replace(task, kind=PLAN))
    assert plan.error is None
    home = next((tmp_path / "work").iterdir())
    assert not (home / "faces").exists()
    state = state_path(home / "out.mp4")
    wanted = planned(dubber, clip, speech, tmp_path / "alone.mp4")
    got = load_file(state / "findings.safetensors")
    assert all(np.array_equal(v, wanted[f"findings.safetensors:{k}"]) for k, v in got.items())
    assert json.loads((state / "job.json").read_text())["inputs"][0]["path"] == str(clip)
    assert worker.run(task).facts == {"missing": []}  # it is planned: nothing to look for


def test_a_persona_of_the_same_video_needs_no_faces(
    clip: Path, speech: Path, persona: Persona, tmp_path: Path
) -> None:
    known = tmp_path / "known.persona"
    persona.save(known)
    worker = Worker(WorkerSetup("default", "cpu", 1, str(tmp_path / "work")))
    job = {"video": str(clip), "audio": str(speech), "output": "out.mp4",
           "persona": str(known), "options": {}}  # fmt: skip
    result = worker.run(Task(INDEX, "out.mp4", job, str(tmp_path / "out.mp4")))
    assert result.facts == {"missing": []}
