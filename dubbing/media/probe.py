"""What a media file holds, without reading it through."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
from av.audio.stream import AudioStream
from av.container import InputContainer
from av.stream import Disposition, Stream
from av.video.stream import VideoStream

from dubbing.errors import MediaFailed, NoAudioStream, NotAVideo
from dubbing.media.decoders import video_decoder
from dubbing.media.fields import field_order, is_interlaced
from dubbing.media.hdr import HdrMetadata, hdr_metadata
from dubbing.media.limits import DEFAULT_LIMITS, Limits
from dubbing.media.opening import damage, open_input
from dubbing.media.rotation import DisplayMatrix, display_matrix, rotation_of, upright_size

log = logging.getLogger(__name__)

PROBE_PACKETS = 600
"""Packets of the picture stream that are tried before it counts as undecodable."""

AV_TIME_BASE = 1_000_000
"""Ticks per second of a container's own duration and start time."""


@dataclass(frozen=True)
class VideoStreamInfo:
    """The picture stream. Sizes in pixels, times in seconds, colour tags as H.273 code points."""

    index: int
    codec: str
    width: int
    """stored width, before rotation"""
    height: int
    """stored height, before rotation"""
    pix_fmt: str
    bit_depth: int
    time_base: Fraction
    start_pts: int
    """PTS of the first frame, in ticks of `time_base`"""
    average_rate: Fraction | None
    """frames per second on average; never used for timing"""
    frames: int | None
    """frames as the container counts them; None where it does not say"""
    duration: Fraction | None = None
    rotation: int = 0
    """degrees to turn the stored picture clockwise: 0, 90, 180, 270"""
    display_matrix: DisplayMatrix | None = None
    sample_aspect_ratio: Fraction = Fraction(1)
    color_range: int = 0
    """0 unknown, 1 limited, 2 full"""
    color_space: int = 2
    color_primaries: int = 2
    color_trc: int = 2
    field_order: int = 0
    """ffmpeg's AVFieldOrder, see `dubbing.media.fields`"""
    hdr: HdrMetadata | None = None

    @property
    def display_size(self) -> tuple[int, int]:
        """(width, height) of the upright picture in stored pixels, before the aspect ratio."""
        return upright_size(self.width, self.height, self.rotation)

    @property
    def interlaced(self) -> bool:
        """Whether a picture consists of two fields."""
        return is_interlaced(self.field_order)

    @property
    def start_time(self) -> Fraction:
        """Time of the first frame in seconds."""
        return self.start_pts * self.time_base


@dataclass(frozen=True)
class AudioStreamInfo:
    """One sound stream. `sample_rate` in Hz, `duration` in seconds as the container says."""

    index: int
    codec: str
    sample_rate: int
    channels: int
    layout: str
    duration: Fraction | None


@dataclass(frozen=True)
class OtherStreamInfo:
    """A stream that is neither the picture nor sound.

    `type` is "subtitle", "data", "attachment", "cover" (attached picture) or "video" (a second
    picture stream).
    """

    index: int
    type: str
    codec: str
    """ffmpeg's codec name; "timecode" for a time code track, "bin_data" for mp4's chapter track"""


@dataclass(frozen=True)
class MediaInfo:
    """What `probe` found."""

    path: Path
    container: str
    """demuxer name, for example "mov,mp4,m4a,3gp,3g2,mj2" """
    duration: Fraction | None
    start: Fraction
    """start of the earliest stream in seconds"""
    video: VideoStreamInfo | None
    audio: tuple[AudioStreamInfo, ...]
    other_streams: tuple[OtherStreamInfo, ...]
    chapters: int
    metadata: dict[str, str] = field(default_factory=dict)


def probe(path: str | Path, limits: Limits | None = DEFAULT_LIMITS) -> MediaInfo:
    """Read headers and decode one picture.

    Args:
        limits: what is accepted; None for a file that was checked before or is our own.

    Raises:
        InputNotFound: no such regular file.
        MediaFailed: the content is not a media file.
        InputTooLarge: the header promises more than `limits` allow.
    """
    with open_input(path, limits=limits) as container:
        pictures = picture_streams(container)
        if limits is not None:
            limits.check_time(_seconds(container.duration) or 0, path)
            for stream in pictures[:1]:
                limits.check_size(stream.codec_context.width, stream.codec_context.height, path)
        video = _video_info(container, pictures[0], limits) if pictures else None
        audio = tuple(_audio_info(s) for s in container.streams.audio if _decodable(s))
        taken = {info.index for info in audio} | ({video.index} if video else set())
        others = tuple(_other_info(s) for s in container.streams if s.index not in taken)
        return MediaInfo(
            path=Path(path),
            container=container.format.name,
            duration=_seconds(container.duration),
            start=_seconds(container.start_time) or Fraction(0),
            video=video,
            audio=audio,
            other_streams=others,
            chapters=len(container.chapters()),
            metadata=dict(container.metadata),
        )


def require_video(path: str | Path, limits: Limits | None = DEFAULT_LIMITS) -> MediaInfo:
    """`probe`, for a file that must hold a picture stream; `.video` is then not None.

    Raises:
        InputNotFound: no such regular file.
        NotAVideo: not a media file, no picture stream, only cover art, or nothing decodes.
        InputTooLarge: it is over `limits`.
    """
    try:
        info = probe(path, limits)
    except MediaFailed as error:
        raise NotAVideo(error.message, path=path) from error
    if info.video is None:
        raise NotAVideo("the file holds no picture stream that can be decoded", path=path)
    return info


def require_audio(path: str | Path, limits: Limits | None = DEFAULT_LIMITS) -> MediaInfo:
    """`probe`, for a file that must hold sound; `.audio` is then not empty.

    Raises:
        InputNotFound: no such regular file.
        NoAudioStream: not a media file, or it holds no sound stream.
        InputTooLarge: it is over `limits`.
    """
    try:
        info = probe(path, limits)
    except MediaFailed as error:
        raise NoAudioStream(error.message, path=path) from error
    if not info.audio:
        raise NoAudioStream("the file holds no sound stream that can be decoded", path=path)
    return info


def picture_streams(container: InputContainer) -> list[VideoStream]:
    """The video streams of `container` that are not cover art."""
    return [
        s
        for s in container.streams.video
        if _decodable(s) and not s.disposition & Disposition.attached_pic
    ]


def first_frame(
    container: InputContainer, stream: VideoStream, decoder: Any
) -> av.VideoFrame | None:
    """Decode up to the first picture of `stream`; None if `PROBE_PACKETS` packets give none."""
    try:
        for number, packet in enumerate(container.demux(stream)):
            try:
                for frame in decoder.decode(packet):
                    return frame  # type: ignore[no-any-return]
            except av.error.FFmpegError as error:
                reason = damage(error, container.name)
                log.debug("packet %d does not decode: %s", number, reason)
            if number >= PROBE_PACKETS:
                return None
    except av.error.FFmpegError as error:
        log.debug("demuxing ended early: %s", damage(error, container.name))
    return None


def _decodable(stream: Stream) -> bool:
    return stream.codec_context is not None


def _seconds(ticks: int | None) -> Fraction | None:
    return None if ticks is None else Fraction(ticks, AV_TIME_BASE)


def codec_name(stream: Stream) -> str:
    """ffmpeg's name of the codec (not of the decoder), "none" where it is unknown."""
    if stream.codec_context is None:
        return "none"
    return str(stream.codec_context.codec.canonical_name)


def _video_info(
    container: InputContainer, stream: VideoStream, limits: Limits | None
) -> VideoStreamInfo | None:
    decoder = video_decoder(stream, limits=limits)
    frame = first_frame(container, stream, decoder)
    if frame is None:
        return None
    if stream.time_base is None:
        raise NotAVideo("the picture stream has no time base", path=container.name)
    matrix = display_matrix(frame)
    pts = frame.pts if frame.pts is not None else frame.dts
    duration = None if stream.duration is None else stream.duration * stream.time_base
    return VideoStreamInfo(
        index=stream.index,
        codec=codec_name(stream),
        width=frame.width,
        height=frame.height,
        pix_fmt=frame.format.name,
        bit_depth=max(c.bits for c in frame.format.components),
        time_base=stream.time_base,
        start_pts=pts or 0,
        average_rate=stream.average_rate or stream.guessed_rate,
        frames=stream.frames or None,
        duration=duration,
        rotation=rotation_of(matrix),
        display_matrix=matrix,
        sample_aspect_ratio=stream.sample_aspect_ratio or Fraction(1),
        color_range=int(frame.color_range),
        color_space=int(frame.colorspace),
        color_primaries=int(frame.color_primaries),
        color_trc=int(frame.color_trc),
        field_order=field_order(decoder, frame),
        hdr=hdr_metadata(frame),
    )


def _audio_info(stream: AudioStream) -> AudioStreamInfo:
    duration = None
    if stream.duration is not None and stream.time_base is not None:
        duration = stream.duration * stream.time_base
    return AudioStreamInfo(
        index=stream.index,
        codec=codec_name(stream),
        sample_rate=stream.sample_rate,
        channels=stream.channels,
        layout=stream.layout.name,
        duration=duration,
    )


def _other_info(stream: Stream) -> OtherStreamInfo:
    kind, codec = str(stream.type), codec_name(stream)
    if kind == "video" and stream.disposition & Disposition.attached_pic:
        kind = "cover"
    if kind == "data":
        codec = "timecode" if "timecode" in stream.metadata else stream.name or "none"
    return OtherStreamInfo(index=stream.index, type=kind, codec=codec)
