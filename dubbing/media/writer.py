"""Encoding of the result's pictures, once, into an intermediate file for `dubbing.media.mux`.

The intermediate keeps every PTS to the tick of the source's time base: an mp4 (or mov) file whose
track and movie clocks both run at that base, or NUT, which stores any time base, for codecs that
neither takes.
"""

from __future__ import annotations

import logging
from array import array
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import av

from dubbing.errors import MediaFailed, OptionInvalid
from dubbing.media.encoders import (
    choose_pix_fmt,
    profile_options,
    quality_options,
    video_encoder,
)
from dubbing.media.fields import FieldMarker, code_fields
from dubbing.media.hdr import merged_options
from dubbing.media.index import FALLBACK_RATE
from dubbing.media.output import disk_errors
from dubbing.media.pixels import FULL, LIMITED, UNSPECIFIED, has_alpha, is_rgb, matrix_code
from dubbing.media.planes import convert_format
from dubbing.media.probe import VideoStreamInfo

log = logging.getLogger(__name__)

MAX_TIMESCALE = 2**31 - 1
"""Largest clock rate that an mp4 file can hold."""

DEFAULT_CRF = 14.0
"""Visually lossless for x264: the pictures were compressed once before."""


LIMITED_ONLY = ("prores",)
"""Codecs whose pictures are always of limited range."""

FIELD_CODECS = ("h264", "mpeg2video", "mpeg4", "prores", "ffv1")
"""Codecs whose encoders know fields."""


class VideoWriter:
    """Encodes frames of the source's size with the source's time base, colour tags, rotation and
    HDR10 metadata.

    Use as a context manager; leaving it by an exception leaves an unfinished file behind, so
    `path` should lie in a temporary folder. The extension of `path` does not matter.
    """

    def __init__(
        self,
        path: str | Path,
        like: VideoStreamInfo,
        codec: str = "libx264",
        *,
        crf: float | None = DEFAULT_CRF,
        preset: str | None = "medium",
        pix_fmt: str | None = None,
        threads: int = 0,
        options: dict[str, str] | None = None,
    ):
        """
        Args:
            path: the intermediate file to write.
            like: the source's picture stream.
            codec: name of an encoder of PyAV's libraries ("libx264", "libx265", "ffv1",
                "h264_nvenc", ...).
            crf: constant quality on the encoder's own scale; None for its default.
            preset: the encoder's speed preset; None for its default.
            pix_fmt: pixel format to encode; None for the source's, or the nearest the encoder
                takes.
            threads: encoder threads, 0 for the encoder's choice.
            options: further encoder options, as ffmpeg spells them.

        Raises:
            OptionInvalid: unknown encoder, quality outside its scale, no fitting pixel format.
            DiskFull, MediaFailed: the file can't be started.
        """
        self.path = Path(path).absolute()
        self.codec = codec
        self.codec_name = str(video_encoder(codec).canonical_name)
        self.pix_fmt = pix_fmt or choose_pix_fmt(like.pix_fmt, codec, like.width, like.height)
        self._like = like
        self._time_base = like.time_base
        self._durations: dict[int, int] = {}
        self._coded = array("q")  # PTS in the order of the packets
        self._last_pts: int | None = None
        self._opened = False
        self.shift = 0
        """ticks added to every PTS, because no container holds times before 0; mostly 0"""
        self.frames = 0
        self.container_format = container_format(self.codec_name, like, self.pix_fmt)
        self._marker: FieldMarker | None = None
        if self.pix_fmt != like.pix_fmt:
            log.info("encoding %s as %s", like.pix_fmt, self.pix_fmt)
        if like.display_matrix is not None and self.container_format == "nut":
            raise OptionInvalid(f"{codec} can't be written with the source's rotation")
        quality = quality_options(codec, crf, preset) | profile_options(codec, self.pix_fmt)
        if like.hdr is not None:
            quality = merged_options(quality, like.hdr.encoder_options(codec))
        quality = merged_options(quality, options or {})
        with disk_errors(self.path):
            self._container = av.open(
                str(self.path), "w", format=self.container_format,
                options=clock_options(self.container_format, self._time_base),
            )  # fmt: skip
        self._stream = self._new_stream(quality, threads)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is None:
            self.close()
            return
        try:
            self._container.close()
        except av.error.FFmpegError as problem:  # the first exception is the one that matters
            log.debug("closing the unfinished %s: %s", self.path, problem)

    def write(self, frame: av.VideoFrame, pts: int, duration: int | None = None) -> None:
        """Encode one frame.

        Args:
            frame: the picture, stored orientation, the source's size; it is not changed.
            pts: presentation time in ticks of the source's time base, above the last one. If the
                first is negative, all are moved so that it becomes 0 (see `shift`).
            duration: ticks for which it stands; matters for the last frame only.

        Raises:
            ValueError: `pts` does not increase, or the size differs.
            OptionInvalid: the encoder refuses to start with these options or on this machine.
            DiskFull, MediaFailed: encoding or writing failed.
        """
        if self._last_pts is not None and pts <= self._last_pts:
            raise ValueError(f"pts {pts} does not follow {self._last_pts}")
        if (frame.width, frame.height) != (self._like.width, self._like.height):
            raise ValueError(
                f"frame is {frame.width}x{frame.height}, not {self._like.width}x{self._like.height}"
            )
        if self._last_pts is None:
            self.shift = max(0, -pts)
        self._last_pts = pts
        pts += self.shift
        if duration:
            self._durations[pts] = duration
        self.frames += 1
        ready = self._marked(self._converted(frame))
        kept = (ready.pts, ready.time_base, ready.pict_type, ready.duration)
        ready.pts, ready.time_base, ready.pict_type = pts, self._time_base, 0
        ready.duration = duration or 0
        try:
            self._encode(ready, pts)
        finally:
            ready.pts, ready.pict_type, ready.duration = kept[0], kept[2], kept[3]
            if kept[1] is not None:
                ready.time_base = kept[1]

    def close(self) -> None:
        """Write what the encoder still holds and finish the file.

        Raises:
            MediaFailed: no frame was written, or finishing failed.
            DiskFull: no room left.
        """
        if not self.frames:
            self._container.close()
            raise MediaFailed("no frame was written", path=self.path)
        with disk_errors(self.path):
            packets = self._stream.encode(None)
            if self.frames == 1:  # x265 leaves the DTS of a clip of one frame to chance
                for packet in packets:
                    packet.dts = packet.pts
            self._mux(packets)
            self._container.close()

    @property
    def delay(self) -> int:
        """Frames by which decoding runs ahead of showing: 0 without B-frames. Known after `close`.

        With DTS[i] = PTS in order of time [i - delay] no packet is decoded after it is shown.
        """
        rank = {pts: place for place, pts in enumerate(sorted(self._coded))}
        return max((place - rank[pts] for place, pts in enumerate(self._coded)), default=0)

    def _encode(self, frame: av.VideoFrame, pts: int) -> None:
        where = f"frame {self.frames - 1} at {float(pts * self._time_base):.3f} s"
        try:
            with disk_errors(self.path):
                packets = self._stream.encode(frame)
                self._opened = True
                self._mux(packets)
        except MediaFailed as error:
            if not self._opened:
                raise OptionInvalid(
                    f"the encoder {self.codec} does not start: {error.message}"
                ) from error
            raise MediaFailed(f"{where}: {error.message}", path=self.path) from error

    def _mux(self, packets: list[av.Packet[Any]]) -> None:
        for packet in packets:
            if packet.pts is not None and packet.time_base == self._time_base:
                self._coded.append(packet.pts)
                packet.duration = self._durations.pop(packet.pts, packet.duration)
            self._container.mux(packet)

    def _converted(self, frame: av.VideoFrame) -> av.VideoFrame:
        return convert_format(frame, self.pix_fmt, self.codec_name in LIMITED_ONLY)

    def _marked(self, frame: av.VideoFrame) -> av.VideoFrame:
        if not self._like.interlaced or self.codec_name not in FIELD_CODECS:
            return frame
        if self._marker is None:
            self._marker = FieldMarker(frame, self._like.field_order, self._time_base)
        return self._marker.mark(frame)

    def _color(self) -> tuple[int, int]:
        """(range, matrix) tags of the encoded pictures."""
        like = self._like
        if is_rgb(like.pix_fmt) and not is_rgb(self.pix_fmt):
            return LIMITED, matrix_code(UNSPECIFIED, like.height)
        if self.codec_name in LIMITED_ONLY:
            return LIMITED, like.color_space
        full = any("yuvj" in name for name in (like.pix_fmt, self.pix_fmt))
        return FULL if full else like.color_range, like.color_space

    def _new_stream(self, options: dict[str, str], threads: int) -> Any:
        like = self._like
        rate = like.average_rate or FALLBACK_RATE
        stream: Any = self._container.add_stream(
            self.codec, rate=Fraction(rate).limit_denominator(1_000_000), options=options
        )
        stream.width, stream.height, stream.pix_fmt = like.width, like.height, self.pix_fmt
        stream.time_base = self._time_base
        context = stream.codec_context
        context.time_base = self._time_base
        context.thread_count = threads
        context.sample_aspect_ratio = like.sample_aspect_ratio
        context.color_range, context.colorspace = self._color()
        context.color_primaries, context.color_trc = like.color_primaries, like.color_trc
        if like.interlaced and self.codec_name in FIELD_CODECS:
            code_fields(context, like.field_order)
        if like.display_matrix is not None:
            if not hasattr(stream, "set_display_matrix"):
                raise MediaFailed(
                    "this PyAV can't write a rotated picture", hint="install av 18 or newer"
                )
            stream.set_display_matrix(like.display_matrix)
        return stream


def container_format(codec_name: str, like: VideoStreamInfo, pix_fmt: str) -> str:
    """Muxer of the intermediate for that codec: mp4, mov, nut, or matroska.

    Matroska counts milliseconds only, but alone takes VP9's alpha, and colour tags that are not
    complete of a codec that has no place for them itself (in mp4 their range would be lost).
    """
    colours = (like.color_space, like.color_primaries, like.color_trc)
    complete = UNSPECIFIED not in colours
    tagged = like.color_range != 0 or any(tag != UNSPECIFIED for tag in colours)
    if (codec_name == "vp9" and has_alpha(pix_fmt)) or (
        codec_name == "ffv1" and tagged and not complete
    ):
        return "matroska"
    if like.time_base.denominator > MAX_TIMESCALE:
        return "nut"
    if codec_name in ("h264", "hevc", "av1", "vp9", "ffv1", "mpeg4"):
        return "mp4"
    if codec_name in ("prores", "mjpeg", "dnxhd", "png"):
        return "mov"
    return "nut"


def codec_muxer(codec: str, like: VideoStreamInfo) -> str:
    """Muxer of the intermediate for the encoder `codec` and pictures `like` the source's.

    Raises:
        OptionInvalid: there is no such encoder.
    """
    pix_fmt = choose_pix_fmt(like.pix_fmt, codec, like.width, like.height)
    return container_format(str(video_encoder(codec).canonical_name), like, pix_fmt)


def clock_options(muxer: str, time_base: Fraction) -> dict[str, str]:
    """Options with which that muxer keeps times to the tick of `time_base`."""
    if muxer not in ("mp4", "mov"):
        return {}
    clock = str(time_base.denominator)
    return {"video_track_timescale": clock, "movie_timescale": clock}
