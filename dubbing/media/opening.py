"""Opening an input file through PyAV with the engine's own exceptions."""

from __future__ import annotations

from pathlib import Path

import av
from av.container import InputContainer

from dubbing.errors import DubbingError, InputNotFound, MediaFailed


def existing_file(path: str | Path) -> Path:
    """`path` as an absolute path of a regular file (or a link to one).

    Absolute, because ffmpeg would read "name:rest" as a protocol.

    Raises:
        InputNotFound: nothing is there, or it is a folder or a device.
    """
    absolute = Path(path).absolute()
    if not absolute.exists():
        raise InputNotFound("no such file", path=path)
    if not absolute.is_file():
        raise InputNotFound("not a regular file", path=path)
    return absolute


def open_input(path: str | Path, unreadable: type[DubbingError] = MediaFailed) -> InputContainer:
    """Open `path` for demuxing. The caller closes it.

    Args:
        path: a local file.
        unreadable: the exception for a file that no demuxer understands.

    Raises:
        InputNotFound: the file is missing, not regular, or may not be read.
        unreadable: the content is not a media file.
    """
    absolute = existing_file(path)
    try:
        return av.open(str(absolute), mode="r", metadata_errors="replace")
    except PermissionError as error:
        raise InputNotFound("the file may not be read", path=path) from error
    except av.error.FFmpegError as error:
        raise unreadable(f"not a media file that can be read: {error.strerror}", path=path) from (
            error
        )
