"""Opening an input file through PyAV with the engine's own exceptions.

A media file can name other files: playlists, concatenation scripts, picture sequences, remote
segments. Only formats that hold their content themselves are opened, by local file access only, so
that nothing is read but the file that the caller named.
"""

from __future__ import annotations

import re
from pathlib import Path

import av
from av.container import InputContainer

from dubbing.errors import DubbingError, InputNotFound, MediaFailed
from dubbing.media.limits import DEFAULT_LIMITS, Limits

FORMATS = (
    # containers
    "mov,matroska,webm,avi,mpegts,mpeg,ogg,asf,flv,mxf,nut,gxf,dv,rm,wtv,ivf,"
    # pictures without a container
    "h264,hevc,vvc,av1,obu,m4v,mpegvideo,vc1,dirac,dnxhd,mjpeg,yuv4mpegpipe,gif,apng,"
    "png_pipe,jpeg_pipe,webp_pipe,bmp_pipe,tiff_pipe,"
    # sound
    "wav,w64,aiff,au,caf,mp3,aac,flac,ac3,eac3,dts,dtshd,truehd,mlp,tta,wv,ape,tak,amr,loas,latm,"
    "mpc,mpc8,dsf,voc"
)
"""Names of the demuxers that may be used, for ffmpeg's `format_whitelist`."""

PROTOCOLS = "file"
"""The only way in, for ffmpeg's `protocol_whitelist`."""

_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/")
_NAMES_OTHERS = {b"#EXTM3U": "an m3u playlist", b"ffconcat": "a concatenation script"}
_NAMES_OTHERS |= {b"<MPD": "a DASH manifest", b"v=0\r\n": "a session description"}


def existing_file(path: str | Path) -> Path:
    """`path` as an absolute path of a regular file (or a link to one).

    Absolute, because ffmpeg would read "name:rest" as a protocol.

    Raises:
        InputNotFound: nothing is there, or it is a folder, a device, or a URL.
    """
    absolute = Path(path).absolute()
    try:
        if absolute.is_file():
            return absolute
        exists = absolute.exists()
    except (OSError, ValueError) as error:  # a name too long, or with a null in it
        raise InputNotFound(f"not a file name: {error}", path=path) from error
    if exists:
        raise InputNotFound("not a regular file", path=path)
    hint = "only local files are read: fetch it first" if _URL.match(str(path)) else None
    raise InputNotFound("no such file", path=path, hint=hint)


def open_input(
    path: str | Path,
    unreadable: type[DubbingError] = MediaFailed,
    limits: Limits | None = DEFAULT_LIMITS,
) -> InputContainer:
    """Open `path` for demuxing. The caller closes it.

    Args:
        path: a local file.
        unreadable: the exception for a file that no demuxer understands.
        limits: pictures over its size are not decoded while the streams are looked through.

    Raises:
        InputNotFound: the file is missing, not regular, or may not be read.
        unreadable: the content is not a media file, or of a kind that names other files.
    """
    absolute = existing_file(path)
    options = {"protocol_whitelist": PROTOCOLS, "format_whitelist": FORMATS}
    if limits is not None:
        options["max_pixels"] = str(limits.pixels)
    try:
        return av.open(str(absolute), mode="r", options=options, metadata_errors="replace")
    except PermissionError as error:
        raise InputNotFound("the file may not be read", path=path) from error
    except av.error.ArgumentError as error:
        raise unreadable(f"not a media file that is taken: {_kind(absolute)}", path=path) from error
    except (av.error.FFmpegError, MemoryError) as error:
        reason = getattr(error, "strerror", "") or "its header asks for too much memory"
        raise unreadable(f"not a media file that can be read: {reason}", path=path) from error


def damage(error: av.error.FFmpegError, path: str | Path) -> str:
    """What is wrong with data that does not decode; such packets are left out.

    Raises:
        MediaFailed: it is not the data, but the disk that failed.
    """
    if isinstance(error, OSError):
        raise MediaFailed(f"can't be read: {error.strerror}", path=path) from error
    return str(error.strerror)


def _kind(path: Path) -> str:
    """What a refused file looks like."""
    with path.open("rb") as file:
        start = file.read(512).lstrip(b"\xef\xbb\xbf \r\n\t")
    for mark, name in _NAMES_OTHERS.items():
        if start.startswith(mark) or (mark == b"<MPD" and mark in start):
            return f"{name} names other files, which are never opened"
    return "this format may name other files, or holds neither pictures nor sound"
