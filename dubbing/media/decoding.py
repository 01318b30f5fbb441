"""One open container with its decoder: frames in presentation order from a given place."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

import av

from dubbing.errors import NotAVideo
from dubbing.media import planes
from dubbing.media.converter import reformat
from dubbing.media.decoders import video_decoder
from dubbing.media.hardware import NVDEC, SOFTWARE, card_decoder
from dubbing.media.index import FrameIndex
from dubbing.media.limits import DEFAULT_LIMITS, Limits
from dubbing.media.opening import damage, open_input
from dubbing.media.probe import VideoStreamInfo

log = logging.getLogger(__name__)


class LostPlaceError(Exception):
    """After a seek the frames do not come as the index says."""


class DecodeSession:
    """One open container with its decoder."""

    def __init__(
        self,
        path: Path,
        video: VideoStreamInfo,
        threads: int = 0,
        limits: Limits | None = DEFAULT_LIMITS,
        decoder: str = SOFTWARE,
    ):
        self._path = path
        self._limits = limits
        self._on_card = decoder == NVDEC
        self._video = video
        self._threads = threads
        self._container = self._stream = self._decoder = None  # type: Any
        self._fresh = False
        self._open()

    def _open(self) -> None:
        self._container = open_input(self._path, NotAVideo, self._limits)
        self._stream = self._container.streams[self._video.index]
        if self._on_card:
            self._decoder = card_decoder(self._stream, self._limits)
        else:
            self._decoder = video_decoder(self._stream, self._threads, self._limits)
        self._fresh = True

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._container.close()

    def frames(self) -> Iterator[av.VideoFrame]:
        """All frames from the current place on, of the first frame's size and format."""
        self._fresh = False
        damaged = 0
        for packet in self._packets():
            try:
                decoded = self._decoder.decode(packet)
            except av.error.FFmpegError as error:
                damaged += 1
                log.debug("%s: a packet does not decode: %s", self._path, damage(error, self._path))
                continue
            for frame in decoded:
                yield self._uniform(frame)
        if damaged:
            log.warning("%s: %d damaged packet(s) left out", self._path, damaged)

    def _packets(self) -> Iterator[av.Packet[Any] | None]:
        """Packets of the stream, then None to flush the decoder."""
        try:
            for packet in self._container.demux(self._stream):
                if packet.size:
                    yield packet
        except av.error.FFmpegError as error:
            log.warning("%s: the file breaks off: %s", self._path, damage(error, self._path))
        yield None

    def _uniform(self, frame: av.VideoFrame) -> av.VideoFrame:
        video = self._video
        same_size = (frame.width, frame.height) == (video.width, video.height)
        if same_size and frame.format.name == video.pix_fmt:
            frame.time_base = video.time_base
            return frame
        if not self._on_card:  # a card gives the same samples in a layout of its own
            log.debug("%s: size or format changes inside the clip", self._path)
        sized = frame
        if not same_size:
            sized = reformat(frame, video.width, video.height)
        changed = planes.convert_format(sized, video.pix_fmt)
        changed.pts, changed.duration = frame.pts, frame.duration
        changed.time_base = video.time_base
        return changed

    def frames_from(
        self, index: FrameIndex, origin: int | None, position: int
    ) -> Iterator[tuple[int, av.VideoFrame]]:
        """(number, frame) from frame `position` on, decoding from key frame `origin`.

        Raises:
            LostPlaceError: the frames that come are not the ones in the index.
        """
        if origin is None:
            yield from self._counted(index, position)
            return
        try:
            self._container.seek(index.pts[origin], stream=self._stream, backward=True)
        except av.error.FFmpegError as error:
            raise LostPlaceError(f"the container does not seek: {error}") from error
        expected: int | None = None
        for frame in self.frames():
            if expected is None:
                # what comes before the key frame may lack its references
                if not frame.key_frame or frame.pts is None:
                    continue
                expected = index.find(frame.pts)
                if expected is None or expected > position:
                    raise LostPlaceError(f"landed at {frame.pts}")
            if expected >= index.count or frame.pts != index.pts[expected]:
                raise LostPlaceError(f"{frame.pts} came in place of frame {expected}")
            if expected >= position:
                yield expected, frame
            expected += 1
        raise LostPlaceError("the file ended")

    def _counted(self, index: FrameIndex, position: int) -> Iterator[tuple[int, av.VideoFrame]]:
        """From the beginning of the file, by counting."""
        if not self._fresh:
            self._container.close()
            self._open()
        for number, frame in enumerate(self.frames()):
            if number >= index.count:
                raise LostPlaceError("more frames than before")
            if number >= position:
                yield number, frame
        raise LostPlaceError("the file ended")
