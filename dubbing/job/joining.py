"""Segments joined to one picture stream, packet by packet: nothing is encoded again."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av

from dubbing.errors import MediaFailed
from dubbing.media.output import disk_errors
from dubbing.media.writer import clock_options

MILLISECOND = Fraction(1, 1000)
"""Matroska's clock: times of its pieces are rounded to it."""


@dataclass(frozen=True)
class Piece:
    """An encoded segment.

    Attributes:
        path: its file, whose PTS count from its own first frame.
        first, count: the output frames that it holds.
        delay: of its decoding (see `VideoWriter.delay`).
    """

    path: Path
    first: int
    count: int
    delay: int


@dataclass(frozen=True)
class Times:
    """Times of all frames of a result in ticks.

    Attributes:
        pts: in order of time, increasing.
        last_duration: for which the last frame stands.
        delay: of the whole stream's decoding, the greatest of its pieces'.
    """

    pts: Sequence[int]
    last_duration: int
    delay: int

    def dts(self, packet: int) -> int:
        """Decoding time of packet number `packet`: increasing, and never after its PTS."""
        if packet >= self.delay:
            return self.pts[packet - self.delay]
        return self.pts[packet] - (self.pts[self.delay] - self.pts[0])

    def duration(self, frame: int) -> int:
        """Ticks for which frame number `frame` stands."""
        if frame + 1 == len(self.pts):
            return self.last_duration
        return self.pts[frame + 1] - self.pts[frame]


def join_segments(
    pieces: Sequence[Piece],
    output: Path,
    muxer: str,
    time_base: Fraction,
    pts: Sequence[int],
    last_duration: int,
) -> None:
    """Write the packets of all pieces into one file.

    Every frame keeps the PTS that the plan gives it. DTS are made anew for the whole stream: with
    B-frames those of a piece start before its first picture, and would overlap the piece before.

    Args:
        pieces: in order, without gaps, made by encoders with equal settings.
        output: a temporary file; left unfinished on an exception.
        muxer: format of `output`, that of the pieces.
        pts: of all frames in ticks of `time_base`, in order of time.
        last_duration: ticks for which the last frame stands.

    Raises:
        MediaFailed: a piece does not hold exactly its frames, or has other stream parameters.
        DiskFull: no room left.
    """
    times = Times(pts, last_duration, max(piece.delay for piece in pieces))
    shift = max(0, -pts[0])  # no container holds times before 0
    options = clock_options(muxer, time_base)
    with disk_errors(output), av.open(str(output), "w", format=muxer, options=options) as sink:
        stream: Any = None
        header: bytes | None = None
        for piece in pieces:
            with av.open(str(piece.path)) as source:
                given = source.streams.video[0]
                if stream is None:
                    stream = sink.add_stream_from_template(given)
                    stream.time_base = time_base
                    if given.metadata.get("alpha_mode"):
                        stream.metadata["alpha_mode"] = given.metadata["alpha_mode"]
                    header = given.codec_context.extradata
                elif given.codec_context.extradata != header:
                    raise MediaFailed("it was encoded with other parameters", path=piece.path)
                for number, frame, packet in _packets(source, piece, times, time_base):
                    packet.stream = stream
                    packet.time_base = time_base
                    packet.pts = pts[frame] + shift
                    packet.dts = times.dts(number) + shift
                    packet.duration = times.duration(frame)
                    sink.mux(packet)


def _packets(
    source: Any, piece: Piece, times: Times, time_base: Fraction
) -> Iterator[tuple[int, int, av.Packet[Any]]]:
    """(number in order of decoding, output frame, packet) of a piece.

    Raises:
        MediaFailed: a frame is missing, doubled or at another time.
    """
    stop = piece.first + piece.count
    slack = MILLISECOND / time_base / 2 if source.format.name.startswith("matroska") else 0
    seen = set()
    for packet in source.demux(source.streams.video[0]):
        if packet.pts is None:  # the empty packet at the end
            continue
        shown = round(packet.pts * packet.time_base / time_base) + times.pts[piece.first]
        frame = bisect_left(times.pts, shown - slack, piece.first, stop)
        if frame == stop or abs(times.pts[frame] - shown) > slack or frame in seen:
            raise MediaFailed(f"a frame at tick {shown} does not belong there", path=piece.path)
        seen.add(frame)
        yield piece.first + len(seen) - 1, frame, packet
    if len(seen) != piece.count:
        raise MediaFailed(f"it holds {len(seen)} frames, not {piece.count}", path=piece.path)
