"""Frames of one video, one at a time, each exactly once, forwards, by index, or backwards."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import av
import numpy as np
import numpy.typing as npt

from dubbing.closing import Closing
from dubbing.errors import MediaFailed, NotAVideo
from dubbing.media import planes
from dubbing.media.decoding import DecodeSession, LostPlaceError
from dubbing.media.hardware import SOFTWARE
from dubbing.media.index import FrameIndex, IndexBuilder
from dubbing.media.limits import DEFAULT_LIMITS, Limits
from dubbing.media.probe import MediaInfo, VideoStreamInfo, require_video

log = logging.getLogger(__name__)

REVERSE_CHUNK = 32
"""Frames held at once while reading backwards."""

SKIP_FRAMES = 12
"""A gap of up to this many frames is decoded through rather than sought over."""


@dataclass(frozen=True)
class DecodedFrame:
    """One decoded picture.

    Attributes:
        index: place in presentation order, from 0.
        pts: presentation time in ticks of `time_base`.
        frame: the decoded picture in its stored orientation. Do not write to it.
        rotation: degrees by which it is turned clockwise to stand upright.
        first_pts: PTS of the stream's first frame.
    """

    index: int
    pts: int
    time_base: Fraction
    frame: av.VideoFrame
    rotation: int = 0
    first_pts: int = 0

    @property
    def time(self) -> Fraction:
        """Presentation time in seconds, as the container has it."""
        return self.pts * self.time_base

    @property
    def offset(self) -> Fraction:
        """Seconds since the first frame of the stream."""
        return (self.pts - self.first_pts) * self.time_base

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) upright."""
        return planes.upright_size(self.frame.width, self.frame.height, self.rotation)

    def rgb(self, size: tuple[int, int] | None = None) -> npt.NDArray[np.uint8]:
        """The picture as uint8 [H,W,3] RGB, upright; scaled to `size` (width, height) if given."""
        return planes.frame_rgb(self.frame, self.rotation, size)

    def rgb_region(self, x: int, y: int, width: int, height: int) -> npt.NDArray[np.uint8]:
        """A rectangle of the upright picture as uint8 [height,width,3] RGB."""
        return planes.rgb_region_upright(self.frame, x, y, width, height, self.rotation)

    def paste(
        self,
        rgb: npt.NDArray[np.float32] | npt.NDArray[np.uint8],
        alpha: npt.NDArray[np.float32],
        x: int,
        y: int,
    ) -> av.VideoFrame:
        """`planes.paste_region` in upright coordinates; returns a new frame, stored orientation."""
        return planes.paste_upright(self.frame, rgb, alpha, x, y, self.rotation)


class VideoReader(Closing):
    """Reads one video file. Every iteration opens the file anew, so several may run at once.

    The frame numbering is that of a decode from the first packet to the last; the first complete
    iteration fixes it in `index`. Reading by index before any complete iteration decodes the
    clip once to find out. What does not decode (a truncated last packet, a damaged one) is left
    out with a warning; what decodes is kept.

    Raises:
        InputNotFound, NotAVideo, InputTooLarge: see `require_video`.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        threads: int = 0,
        limits: Limits | None = DEFAULT_LIMITS,
        decoder: str = SOFTWARE,
    ):
        """
        Args:
            threads: decoder threads, 0 for as many as the machine has.
            limits: what is accepted; None for a file of our own.
            decoder: one of `hardware.DECODERS`.
        """
        self.path = Path(path)
        self.info: MediaInfo = require_video(path, limits)
        self._limits = limits
        if self.info.video is None:
            raise NotAVideo("the file holds no picture stream", path=path)
        self.video: VideoStreamInfo = self.info.video
        self.time_base: Fraction = self.video.time_base
        self._threads = threads
        self._decoder = decoder
        self._index: FrameIndex | None = None

    def close(self) -> None:
        """Forget the frame index; no file is held between reads."""
        self._index = None

    @property
    def indexed(self) -> bool:
        """Whether the frame index is known already."""
        return self._index is not None

    @property
    def index(self) -> FrameIndex:
        """Times of all frames. Costs one decode of the clip unless an iteration has completed."""
        if self._index is None:
            for _ in self:
                pass
        if self._index is None:
            raise NotAVideo("no frame of the picture stream decodes", path=self.path)
        return self._index

    def use_index(self, index: FrameIndex) -> None:
        """Take the numbering that an earlier complete iteration over the same file has found."""
        self._index = index

    @property
    def estimated_frames(self) -> int | None:
        """Frames for a progress bar: exact once indexed, else as the container suggests."""
        if self._index is not None:
            return self._index.count
        if self.video.frames:
            return self.video.frames
        duration = self.video.duration or self.info.duration
        if duration is None or self.video.average_rate is None:
            return None
        return max(1, round(duration * self.video.average_rate))

    def __iter__(self) -> Iterator[DecodedFrame]:
        """All frames in presentation order, one at a time.

        Raises:
            NotAVideo: not one frame decodes.
            InputTooLarge: the frames go on beyond the limit of time.
        """
        builder = IndexBuilder(self.time_base, self.video.average_rate)
        with self._session() as session:
            for number, frame in enumerate(session.frames()):
                pts = builder.add(frame)
                if self._index is not None and number < self._index.count:
                    pts = self._index.pts[number]
                if self._limits is not None:
                    self._limits.check_time((pts - builder.pts[0]) * self.time_base, self.path)
                yield self._decoded(number, pts, frame, builder.pts[0])
        if not builder.pts:
            raise NotAVideo("no frame of the picture stream decodes", path=self.path)
        if self._index is None:
            self._index = builder.build()

    def read_range(self, start: int, stop: int) -> Iterator[DecodedFrame]:
        """Frames `start` ... `stop - 1` in order.

        Raises:
            IndexError: the range reaches out of the clip.
            MediaFailed: the file decodes differently from the pass that numbered it.
        """
        self._check_range(start, stop)
        with self._session() as session:
            yield from self._run(session, start, stop)

    def read_indices(self, indices: Sequence[int]) -> Iterator[DecodedFrame]:
        """Exactly the frames of these indices, which must be sorted (repeats allowed)."""
        if not indices:
            return
        if any(b < a for a, b in pairwise(indices)):
            raise ValueError("indices must be sorted")
        self._check_range(indices[0], indices[-1] + 1)
        with self._session() as session:
            groups = _grouped(sorted(set(indices)))
            wanted = iter(indices)
            target = next(wanted)
            for start, stop in groups:
                for frame in self._run(session, start, stop):
                    while frame.index == target:
                        yield frame
                        target = next(wanted, -1)

    def iter_reverse(
        self, start: int, stop: int, chunk: int = REVERSE_CHUNK
    ) -> Iterator[DecodedFrame]:
        """Frames `stop - 1` down to `start`; at most `chunk` decoded frames are held at once."""
        if chunk < 1:
            raise ValueError(f"chunk must be at least 1, got {chunk}")
        self._check_range(start, stop)
        with self._session() as session:
            for high in range(stop, start, -chunk):
                held = list(self._run(session, max(start, high - chunk), high))
                while held:
                    yield held.pop()

    def _session(self) -> DecodeSession:
        return DecodeSession(self.path, self.video, self._threads, self._limits, self._decoder)

    def _decoded(self, number: int, pts: int, frame: av.VideoFrame, first: int) -> DecodedFrame:
        return DecodedFrame(number, pts, self.time_base, frame, self.video.rotation, first)

    def _check_range(self, start: int, stop: int) -> None:
        count = self.index.count
        if not 0 <= start <= stop <= count:
            raise IndexError(f"frames {start} to {stop} reach out of 0 to {count}")

    def _run(self, session: DecodeSession, start: int, stop: int) -> Iterator[DecodedFrame]:
        """Frames start ... stop-1, from the nearest key frame from which they come out right.

        Each attempt starts at an earlier key frame, the last one at the beginning of the file.
        """
        index, position = self.index, start
        while position < stop:
            before = position
            for origin in self._origins(position):
                try:
                    for number, frame in session.frames_from(index, origin, position):
                        position = number + 1
                        yield self._decoded(number, index.pts[number], frame, index.pts[0])
                        if position >= stop:
                            return
                except LostPlaceError as lost:
                    log.debug("%s: from frame %s: %s", self.path, origin, lost)
                    if position > before:
                        break
            if position == before:
                raise MediaFailed(
                    f"frame {position} can't be found again",
                    path=self.path,
                    hint="the file may have been changed while it was read",
                )

    def _origins(self, target: int) -> list[int | None]:
        """Key frames to start from for frame `target`; None is the beginning of the file."""
        index = self.index
        if not index.seekable or target <= SKIP_FRAMES:
            return [None]
        origins: list[int | None] = []
        for key in index.keys_until(target):
            if key == 0 or len(origins) == 2:
                break
            origins.append(key)
        return [*origins, None]


def _grouped(indices: list[int]) -> Iterator[tuple[int, int]]:
    """Runs (start, stop) that cover `indices`, joined where the gap is short."""
    start = previous = indices[0]
    for value in indices[1:]:
        if value - previous > SKIP_FRAMES:
            yield start, previous + 1
            start = value
        previous = value
    yield start, previous + 1
