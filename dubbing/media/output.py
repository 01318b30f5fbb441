"""Where results go: checks before the work, the atomic appearance after it, full disks."""

from __future__ import annotations

import errno
import os
import secrets
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import av

from dubbing.errors import DiskFull, MediaFailed, OutputUnwritable
from dubbing.media.containers import CONTAINERS

_FULL = {errno.ENOSPC, errno.EDQUOT}


def check_output(path: str | Path, inputs: Iterable[str | Path], overwrite: bool = False) -> Path:
    """`path` as an absolute path to which a result may be written.

    Raises:
        OutputUnwritable: unknown extension, folder missing or not writable, the path is a folder,
            it exists and `overwrite` is False, or it is one of `inputs` (links followed).
    """
    target = Path(path).absolute()
    if target.suffix.lower() not in CONTAINERS:
        known = ", ".join(sorted(CONTAINERS))
        raise OutputUnwritable(
            f"unknown extension {target.suffix!r}", path=path, hint=f"use one of {known}"
        )
    if not target.parent.is_dir():
        raise OutputUnwritable(f"the folder {target.parent} does not exist", path=path)
    if target.is_dir():
        raise OutputUnwritable("a folder has that name", path=path)
    for given in inputs:
        if _same_file(target, Path(given)):
            raise OutputUnwritable(
                f"the output is the input {given}", path=path, hint="choose another name"
            )
    if not os.access(target.parent, os.W_OK | os.X_OK):
        raise OutputUnwritable(f"the folder {target.parent} is not writable", path=path)
    if not overwrite and (target.exists() or target.is_symlink()):
        raise OutputUnwritable(
            "the file exists",
            path=path,
            hint="use --overwrite (overwrite=True) or another name",
        )
    return target


def require_free_space(folder: str | Path, needed_bytes: int) -> None:
    """Make sure that `folder`'s disk has `needed_bytes` free.

    Raises:
        DiskFull: it has less.
    """
    free = shutil.disk_usage(folder).free
    if free < needed_bytes:
        raise DiskFull(
            f"{needed_bytes / 1e6:.0f} MB are needed, {free / 1e6:.0f} MB are free",
            path=folder,
            hint="free some space or choose another folder",
        )


@contextmanager
def disk_errors(path: str | Path) -> Iterator[None]:
    """Turn a full disk into `DiskFull` and other PyAV errors into `MediaFailed`, naming `path`."""
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            raise DiskFull(
                "no room left while writing", path=path, hint="free some space"
            ) from error
        if isinstance(error, av.error.FFmpegError):
            raise MediaFailed(str(error), path=path) from error
        raise
    except av.error.FFmpegError as error:
        raise MediaFailed(str(error), path=path) from error


@contextmanager
def atomic_output(path: str | Path) -> Iterator[Path]:
    """A temporary path in the same folder that becomes `path` when the block ends well.

    The temporary keeps the extension. On any exception it is removed and `path` is untouched.
    """
    target = Path(path).absolute()
    temporary = target.with_name(f".{target.stem}.{secrets.token_hex(4)}.part{target.suffix}")
    try:
        yield temporary
        with disk_errors(target):
            os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)


def _same_file(target: Path, given: Path) -> bool:
    if target.exists() and given.exists():
        return os.path.samefile(target, given)
    return os.path.realpath(target) == os.path.realpath(given)
