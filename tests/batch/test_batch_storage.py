"""URLs through fsspec: fetched to local files, published whole, verified."""

from __future__ import annotations

from pathlib import Path

import fsspec
import pytest

from dubbing.batch import storage
from dubbing.errors import InputNotFound, OptionInvalid, OutputUnwritable


@pytest.fixture(params=["local", "file", "memory"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A folder of each kind."""
    if request.param == "local":
        return str(tmp_path / "store")
    return f"file://{tmp_path}/store" if request.param == "file" else f"memory://{tmp_path}/store"


def made(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "made.bin"
    path.write_text(text)
    return path


def test_published_files_come_back_and_are_verified(tmp_path: Path, place: str) -> None:
    target = storage.join(place, "deep/result.mp4")
    stored = storage.publish(made(tmp_path, "frames"), target, replace=False)
    assert not (tmp_path / "made.bin").exists()
    assert storage.fetch(target, tmp_path / "copy").read_text() == "frames"
    assert (storage.read_bytes(target), stored.bytes) == (b"frames", 6)
    assert storage.verify(target, stored)
    assert storage.list_files(storage.parent(target)) == [target]


def test_what_is_there_is_not_replaced_unless_allowed(tmp_path: Path, place: str) -> None:
    target = storage.join(place, "result.mp4")
    first = storage.publish(made(tmp_path, "first"), target, replace=False)
    with pytest.raises(OutputUnwritable, match="exists"):
        storage.publish(made(tmp_path, "other"), target, replace=False)
    assert storage.verify(target, first)
    storage.publish(made(tmp_path, "other"), target, replace=True)
    assert storage.read_bytes(target) == b"other"
    assert not storage.verify(target, first)


def test_a_store_that_touched_the_file_is_asked_for_its_content(tmp_path: Path, place: str) -> None:
    target = storage.join(place, "result.mp4")
    stored = storage.publish(made(tmp_path, "frames"), target, replace=False)
    storage.publish(made(tmp_path, "frames"), target, replace=True)  # new time, same content
    assert storage.verify(target, stored)
    storage.publish(made(tmp_path, "flames"), target, replace=True)
    assert not storage.verify(target, stored)


def test_what_is_not_there(tmp_path: Path, place: str) -> None:
    target = storage.join(place, "absent.mp4")
    assert not storage.exists(target)
    with pytest.raises(InputNotFound, match="absent"):
        storage.read_bytes(target)
    if storage.is_url(target):
        with pytest.raises(InputNotFound, match="absent"):
            storage.fetch(target, tmp_path)
    stored = storage.Stored(1, "00")
    assert not storage.verify(target, stored)


def test_unknown_kinds_of_storage_are_options_that_are_wrong() -> None:
    with pytest.raises(OptionInvalid, match="nowhere"):
        storage.check_protocol("nowhere://bucket/a.mp4")
    storage.check_protocol("memory://a.mp4")
    storage.check_protocol("a.mp4")


def test_a_file_that_fails_on_its_way_up_leaves_the_old_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = f"memory://{tmp_path}/result.mp4"
    storage.publish(made(tmp_path, "first"), target, replace=False)

    def broken(*arguments: object, **values: object) -> None:
        raise ConnectionResetError("reset by peer")

    monkeypatch.setattr(type(fsspec.filesystem("memory")), "put_file", broken)
    with pytest.raises(storage.StorageFailed, match="reset by peer"):
        storage.publish(made(tmp_path, "other"), target, replace=True)
    assert storage.read_bytes(target) == b"first"


def test_relative_places_are_below_the_jobs_file(tmp_path: Path) -> None:
    assert storage.resolve("a.mp4", str(tmp_path)) == str(tmp_path / "a.mp4")
    assert storage.resolve("/x/a.mp4", str(tmp_path)) == "/x/a.mp4"
    assert storage.resolve("a.mp4", "s3://b/jobs") == "s3://b/jobs/a.mp4"
    assert storage.resolve("gs://b/a.mp4", str(tmp_path)) == "gs://b/a.mp4"
