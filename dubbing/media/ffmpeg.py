"""The one place that starts the ffmpeg program.

ffmpeg is used for the final multiplexing only (`dubbing.media.mux`); decoding and encoding go
through PyAV. The command is always an argument list, never a shell string.
"""

from __future__ import annotations

import logging
import re
import shutil
import subprocess
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import ffmpeg
import imageio_ffmpeg

from dubbing.errors import DiskFull, MediaFailed

log = logging.getLogger(__name__)

STDERR_TAIL_CHARS = 2000
"""How much of ffmpeg's own words goes into an exception."""

_DISK_FULL_WORDS = ("no space left on device", "disk quota exceeded")


@lru_cache(maxsize=1)
def ffmpeg_binary() -> str:
    """Path of the ffmpeg program: the one on PATH, else the one in the imageio-ffmpeg wheel.

    Raises:
        MediaFailed: neither exists.
    """
    found = shutil.which("ffmpeg")
    if found:
        return found
    try:
        return str(imageio_ffmpeg.get_ffmpeg_exe())
    except RuntimeError as error:
        raise MediaFailed(
            f"no ffmpeg program was found: {error}",
            hint="install ffmpeg, or reinstall the imageio-ffmpeg package",
        ) from error


@lru_cache(maxsize=8)
def knows_option(name: str) -> bool:
    """Whether the ffmpeg program has a command-line option of that name."""
    done = subprocess.run(
        [ffmpeg_binary(), "-hide_banner", "-h", "long"],
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
    )  # fmt: skip
    return re.search(rf"^-{re.escape(name)}\b", done.stdout, re.MULTILINE) is not None


def writes_hdr() -> bool:
    """Whether the ffmpeg program can write HDR10 metadata into containers."""
    return knows_option("mastering_display") and knows_option("content_light")


def run_ffmpeg(stream_or_args: Any | Sequence[str], *, path: str | Path | None = None) -> str:
    """Run ffmpeg to its end and return what it wrote to stderr (warnings excluded).

    Args:
        stream_or_args: an ffmpeg-python output node, or the list of arguments after the program.
        path: the file that the command writes; named in exceptions.

    Raises:
        DiskFull: ffmpeg reported a full disk or an exceeded quota.
        MediaFailed: ffmpeg ended with another error; the message holds the tail of its stderr.
    """
    if isinstance(stream_or_args, (list, tuple)):
        args = [str(part) for part in stream_or_args]
    else:
        args = [str(part) for part in ffmpeg.get_args(stream_or_args)]
    command = [ffmpeg_binary(), "-hide_banner", "-nostdin", "-loglevel", "error", "-y", *args]
    log.debug("running %s", command)
    done = subprocess.run(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
    stderr = done.stderr.decode("utf-8", errors="replace").strip()
    if done.returncode == 0:
        return stderr
    tail = stderr[-STDERR_TAIL_CHARS:]
    if any(words in stderr.lower() for words in _DISK_FULL_WORDS):
        log.debug("ffmpeg: %s", tail)
        raise DiskFull("no room left while writing", path=path, hint="free some space")
    raise MediaFailed(f"ffmpeg ended with status {done.returncode}: {tail}", path=path)
