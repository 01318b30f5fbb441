"""Files by path or URL (s3://, gs://, ... through fsspec), read and published through local files.

A location is a string: with "://" it is a URL, else a local path. Networks of the world fail in
their own ways; here all of them become `StorageFailed`, except "not there".
"""

from __future__ import annotations

import errno
import hashlib
import os
import posixpath
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import fsspec
from fsspec.core import url_to_fs

from dubbing.checksums import file_sha256
from dubbing.errors import (
    DiskFull,
    DubbingError,
    InputNotFound,
    OptionInvalid,
    OutputUnwritable,
    StorageFailed,
)

WHOLE_OR_NOTHING = {"s3", "s3a", "gs", "gcs", "abfs", "abfss", "az", "memory"}
"""Stores in which an object appears only when its upload is complete."""
CHUNK = 2**20  # bytes


@dataclass(frozen=True)
class Stored:
    """What is known of a published file: size, SHA-256 of its content, and the store's own token
    ("" for local files), which changes whenever the object does."""

    bytes: int
    sha256: str
    token: str = ""


def is_url(location: str) -> bool:
    return "://" in location


def protocol(location: str) -> str:
    return location.partition("://")[0].lower()


def join(folder: str, name: str) -> str:
    """`name` below the folder `folder`, both local or both of one store."""
    return f"{folder.rstrip('/')}/{name}" if is_url(folder) else str(Path(folder) / name)


def base_name(location: str) -> str:
    return posixpath.basename(location.rstrip("/")) if is_url(location) else Path(location).name


def parent(location: str) -> str:
    return location.rpartition("/")[0] if is_url(location) else str(Path(location).parent)


def resolve(location: str, base: str) -> str:
    """`location` as it stands if it is a URL, else an absolute path or URL below `base`."""
    if is_url(location) or (is_url(base) and Path(location).is_absolute()):
        return location
    return join(base, location) if is_url(base) else str((Path(base) / location).absolute())


def check_protocol(location: str) -> None:
    """Make sure that a store's library is installed.

    Raises:
        OptionInvalid: an unknown protocol, or one whose library is missing.
    """
    if not is_url(location):
        return
    name = protocol(location)
    try:
        fsspec.get_filesystem_class(name)
    except ValueError as error:
        raise OptionInvalid(f"{location}: unknown kind of storage {name!r}") from error
    except ImportError as error:
        raise OptionInvalid(f"{location}: {error}") from error


def exists(location: str) -> bool:
    if not is_url(location):
        return os.path.lexists(location)
    with _storage_errors(location):
        store, path = url_to_fs(location)
        return bool(store.exists(path))


def list_files(folder: str) -> list[str]:
    """Locations of the files directly in a folder, sorted; hidden ones are left out.

    Raises:
        InputNotFound: no such folder.
    """
    if not is_url(folder):
        place = Path(folder)
        if not place.is_dir():
            raise InputNotFound("no such folder", path=folder)
        return sorted(str(p) for p in place.iterdir() if p.is_file() and p.name[0] != ".")
    with _storage_errors(folder):
        store, path = url_to_fs(folder)
        found = store.ls(path, detail=True)
        names = sorted(base_name(f["name"]) for f in found if f["type"] == "file")
    return [join(folder, name) for name in names if name[0] != "."]


def read_bytes(location: str) -> bytes:
    """Content of a small file.

    Raises:
        InputNotFound, StorageFailed: it is not there, or can't be read.
    """
    try:
        with _storage_errors(location), fsspec.open(location, "rb") as file:
            return bytes(file.read())
    except IsADirectoryError as error:
        raise InputNotFound("not a regular file", path=location) from error


def fetch(location: str, folder: Path) -> Path:
    """A local path with the content of `location`: itself, or a copy below `folder`. A copy that
    is there already and still the same is not made again.

    Raises:
        InputNotFound, StorageFailed: a URL's object is not there, or does not arrive.
    """
    if not is_url(location):
        return Path(location)
    with _storage_errors(location):
        store, path = url_to_fs(location)
        if not store.isfile(path):
            raise InputNotFound("no such file", path=location)
        version = hashlib.sha256(str(store.checksum(path)).encode()).hexdigest()[:16]
        target = folder / version / base_name(location)
        if not target.is_file():
            target.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=target.parent) as part:
                store.get_file(path, f"{part}/whole")
                os.replace(f"{part}/whole", target)
    return target


def publish(made: Path, location: str, replace: bool) -> Stored:
    """Move a finished local file to its place, where it appears whole or not at all.

    Raises:
        OutputUnwritable: something is there and `replace` is False, or the folder can't be
            written.
        DiskFull, StorageFailed: no room, or the upload failed.
    """
    size, digest = made.stat().st_size, file_sha256(made)
    if not replace and exists(location):
        raise OutputUnwritable("the file exists", path=location, hint="use another name")
    if not is_url(location):
        _publish_locally(made, Path(location))
        return Stored(size, digest)
    with _storage_errors(location):
        store, path = url_to_fs(location)
        folder, _, name = path.rpartition("/")
        if protocol(location) in WHOLE_OR_NOTHING:
            store.put_file(str(made), path)
        else:
            part = f"{folder}/.{name}.part"
            store.makedirs(folder, exist_ok=True)
            store.put_file(str(made), part)
            store.mv(part, path)
        token = str(store.checksum(path))
    made.unlink()
    return Stored(size, digest, token)


def verify(location: str, stored: Stored) -> bool:
    """Whether the file is still what was published.

    Local files are hashed. An object whose store vouches by its token for being unchanged is
    believed; else it is read and hashed.
    """
    if not is_url(location):
        path = Path(location)
        if not path.is_file() or path.stat().st_size != stored.bytes:
            return False
        return file_sha256(path) == stored.sha256
    with _storage_errors(location):
        store, path_there = url_to_fs(location)
        if not store.exists(path_there) or store.size(path_there) != stored.bytes:
            return False
        if str(store.checksum(path_there)) == stored.token:
            return True
        digest = hashlib.sha256()
        with store.open(path_there, "rb") as file:
            while block := file.read(CHUNK):
                digest.update(block)
        return digest.hexdigest() == stored.sha256


def token(location: str) -> str:
    """The store's own token of a URL's object, which changes when the object does; "" where there
    is none."""
    with _storage_errors(location):
        store, path = url_to_fs(location)
        return str(store.checksum(path)) if store.exists(path) else ""


def _publish_locally(made: Path, target: Path) -> None:
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            os.replace(made, target)
        except OSError as error:
            if error.errno != errno.EXDEV:
                raise
            part = target.with_name(f".{target.name}.part")
            shutil.copyfile(made, part)
            os.replace(part, target)
            made.unlink()
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise DiskFull("no room left on the disk", path=target) from error
        reason = error.strerror or str(error)
        raise OutputUnwritable(f"can't be written: {reason}", path=target) from error


@contextmanager
def _storage_errors(location: str) -> Iterator[None]:
    """One exception for what the many storage libraries raise, each its own."""
    try:
        yield
    except DubbingError:
        raise
    except FileNotFoundError as error:
        raise InputNotFound("no such file", path=location) from error
    except (ImportError, ValueError) as error:
        raise OptionInvalid(f"{location}: {error}") from error
    except Exception as error:  # their trees have no common root but this one
        what: Any = error.args[0] if error.args else type(error).__name__
        raise StorageFailed(f"{type(error).__name__}: {what}", path=location) from error
