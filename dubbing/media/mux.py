"""The final multiplexing: encoded picture + the user's sound + everything else of the source.

Pictures are copied, sound is copied packet by packet where the container takes its codec, and
nothing is encoded twice. Times: the pictures' PTS in seconds are the source's to the tick in the
mp4 family and rounded to 1 ms in Matroska and WebM (their clock). Broadcast formats, whose clock
starts anywhere (MPEG-TS, MPEG-PS), are counted from the start of the file.
"""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import ffmpeg

from dubbing.errors import MediaFailed
from dubbing.media.audio import audio_start
from dubbing.media.containers import (
    AUDIO_ENCODERS,
    TEXT_SUBTITLES,
    ContainerRules,
    check_video_codec,
    choose_audio,
    rules_for,
)
from dubbing.media.ffmpeg import run_ffmpeg, writes_hdr
from dubbing.media.opening import FORMATS, PROTOCOLS, existing_file
from dubbing.media.output import atomic_output, check_output, disk_errors, require_free_space
from dubbing.media.pixels import has_alpha
from dubbing.media.probe import AudioStreamInfo, MediaInfo, OtherStreamInfo, probe, require_audio

__all__ = [
    "MuxResult",
    "atomic_output",
    "check_output",
    "disk_errors",
    "mux",
    "require_free_space",
]

log = logging.getLogger(__name__)

AAC_BITS_PER_CHANNEL = 96_000
"""192 kbit/s for two channels."""

OPUS_BITS_PER_CHANNEL = 64_000

_FREE_RUNNING = ("mpegts", "mpeg", "mpegtsraw")
"""Demuxers whose clock starts at an arbitrary time."""

_BRAND_KEYS = ("major_brand", "minor_version", "compatible_brands", "encoder")
"""Describe the source's file, not its content; the output has its own."""

_OWN_CONTENT = {"protocol_whitelist": PROTOCOLS, "format_whitelist": FORMATS}
"""Options of every input: no file, playlist or network is opened but the file itself."""

_PLAIN_MP4_KEYS = {"title", "artist", "album", "album_artist", "date", "comment", "genre"}
_PLAIN_MP4_KEYS |= {"copyright", "creation_time", "timecode"}
"""Keys that mp4 holds in the places where all players look."""


@dataclass(frozen=True)
class MuxResult:
    """What `mux` did. `kept` and `dropped` name the source's other streams."""

    path: Path
    container: str
    audio_action: str
    """"copied" or "encoded" """
    audio_codec: str
    video_start: Fraction
    """time of the first picture in the result, seconds"""
    kept: tuple[str, ...] = ()
    dropped: tuple[str, ...] = ()


def mux(
    video_path: str | Path,
    audio_path: str | Path,
    source_path: str | Path,
    output_path: str | Path,
    *,
    duration: Fraction | None = None,
    audio_codec: str = "auto",
    extra_metadata: dict[str, str] | None = None,
    overwrite: bool = False,
) -> MuxResult:
    """Put the result together.

    Args:
        video_path: the intermediate of `VideoWriter`; its one picture stream is copied.
        audio_path: the user's speech; its first sound stream starts with the first picture.
        source_path: the original clip, for metadata, chapters, subtitles, attachments, cover. Its
            own sound is left out.
        output_path: the result; its extension chooses the container.
        duration: the picture's length in seconds, after which sound and subtitles are cut; None
            keeps all of them. Encoded sound is cut at the sample, copied sound after the packet
            that reaches the cut. Sound is never padded.
        audio_codec: "auto" copies where the container takes the codec, else encodes once at the
            sound's own rate and channels (AAC in mp4 and mov, Opus, always 48 kHz, in webm, FLAC
            in mkv); "copy" insists; a codec name asks for that codec.
        extra_metadata: further global tags; they win over the source's.
        overwrite: whether an existing `output_path` is replaced.

    Raises:
        InputNotFound, NoAudioStream: an input is missing, or holds no sound.
        OutputUnwritable: see `check_output`.
        OptionInvalid: the container does not take the codec.
        DiskFull, MediaFailed: ffmpeg failed; nothing is left at the output.
    """
    target = check_output(output_path, (video_path, audio_path, source_path), overwrite)
    rules = rules_for(target)
    # all three were checked, or made, before this
    picture, source = probe(video_path, None), probe(source_path, None)
    sound = require_audio(audio_path, None)
    if picture.video is None:
        raise MediaFailed("the intermediate holds no picture", path=video_path)
    check_video_codec(target, picture.video.codec)
    stream = sound.audio[0]
    copied, codec = choose_audio(rules, stream.codec, stream.sample_rate, audio_codec)
    shift = source.start if source.container in _FREE_RUNNING else Fraction(0)
    start = picture.video.start_time - shift
    plan = _plan_others(source, rules)
    job = _Job(picture, sound, source, rules, shift, start, duration, codec, copied, plan)
    with atomic_output(target) as temporary:
        run_ffmpeg(_command(job, temporary, extra_metadata or {}), path=target)
        if target.exists() and not overwrite:
            check_output(output_path, (), overwrite)
    dropped = _dropped(source, plan)
    for name in dropped:
        log.warning("%s: not taken over into %s: %s", source_path, rules.muxer, name)
    return MuxResult(
        path=target,
        container=rules.muxer,
        audio_action="copied" if copied else "encoded",
        audio_codec=codec,
        video_start=start,
        kept=tuple(_name(item) for item, _ in plan),
        dropped=dropped,
    )


@dataclass(frozen=True)
class _Job:
    picture: MediaInfo
    sound: MediaInfo
    source: MediaInfo
    rules: ContainerRules
    shift: Fraction
    start: Fraction
    duration: Fraction | None
    codec: str
    copied: bool
    others: list[tuple[OtherStreamInfo, str]]


def _plan_others(source: MediaInfo, rules: ContainerRules) -> list[tuple[OtherStreamInfo, str]]:
    """The source's further streams that are kept, each with the codec it gets.

    Data streams are not taken: a time code is written anew from the source's metadata, and the
    chapter track from its chapters.
    """
    kept: list[tuple[OtherStreamInfo, str]] = []
    for stream in source.other_streams:
        if stream.type == "subtitle" and stream.codec in rules.subtitles:
            kept.append((stream, "copy"))
        elif stream.type == "subtitle" and stream.codec in TEXT_SUBTITLES:
            kept.append((stream, rules.text_subtitle))
        elif (stream.type == "attachment" and rules.attachments) or (
            stream.type == "cover" and stream.codec in rules.cover
        ):
            kept.append((stream, "copy"))
    return kept


def _dropped(source: MediaInfo, kept: list[tuple[OtherStreamInfo, str]]) -> tuple[str, ...]:
    gone = set(source.other_streams) - {stream for stream, _ in kept}
    if source.chapters:
        gone -= {stream for stream in gone if stream.codec == "bin_data"}
    # a time code is written from the tags: as a track in mp4 and mov, as a tag elsewhere
    gone -= {stream for stream in gone if stream.codec == "timecode"}
    return tuple(_name(stream) for stream in sorted(gone, key=lambda stream: stream.index))


def _name(stream: OtherStreamInfo) -> str:
    return f"{stream.type} {stream.index} ({stream.codec})"


def _command(job: _Job, temporary: Path, extra: dict[str, str]) -> list[str]:
    """ffmpeg's arguments. Inputs: 0 the picture, 1 the sound, 2 the source."""
    speech = job.sound.audio[0]
    sound_offset = job.start - audio_start(job.sound.path)
    light = job.source.video.hdr if job.source.video else None
    boxed = light.muxer_options() if light is not None and writes_hdr() else {}
    picture = ffmpeg.input(
        _file(job.picture), itsoffset=_seconds(-job.shift), **_OWN_CONTENT, **boxed
    )
    sound = ffmpeg.input(_file(job.sound), itsoffset=_seconds(sound_offset), **_OWN_CONTENT)
    options: dict[str, Any] = {
        "c": "copy",
        "map_chapters": "2",
        "map_metadata": "2",
        "avoid_negative_ts": "disabled",
        "disposition:a:0": "default",
        "f": job.rules.muxer,
    }
    if job.duration is not None:
        # with -copyts this is an absolute time; packets that start before it are kept whole
        options["t"] = _seconds_up(job.start + job.duration)
    if job.rules.muxer in ("matroska", "webm"):
        options["metadata:s:v:0"] = f"alpha_mode={_alpha_mode(job.picture)}"
    options |= _stream_metadata(job) | _audio_options(job, speech) | _container_options(job, extra)
    for position, (_, codec) in enumerate(job.others, start=2):
        options[f"c:{position}"] = codec
    if not job.rules.is_mov:
        options["fflags"] = "+bitexact"  # else a random number makes every Matroska file another
    output = ffmpeg.output(picture["v:0"], sound[str(speech.index)], str(temporary), **options)
    return _completed([str(part) for part in ffmpeg.get_args(output)], job, extra)


def _completed(args: list[str], job: _Job, extra: dict[str, str]) -> list[str]:
    """Add what ffmpeg-python can't express: the source as third input, repeated -metadata.

    The source may give nothing but metadata, and ffmpeg-python leaves out inputs without a mapped
    stream; so it goes between the other inputs and the output by hand, its streams after theirs.
    """
    inputs = args.index("-map")
    maps = max(place for place, part in enumerate(args) if part == "-map") + 2
    guard = [part for key, value in _OWN_CONTENT.items() for part in (f"-{key}", value)]
    source = ["-itsoffset", _seconds(-job.shift), *guard, "-i", _file(job.source)]
    others = [part for stream, _ in job.others for part in ("-map", f"2:{stream.index}")]
    tags = [part for tag in _global_metadata(job.source, extra) for part in ("-metadata", tag)]
    return ["-copyts", *args[:inputs], *source, *args[inputs:maps], *others, *tags, *args[maps:]]


def _file(info: MediaInfo) -> str:
    return str(existing_file(info.path))


def _seconds(value: Fraction) -> str:
    """Decimal seconds, rounded to ffmpeg's microsecond."""
    micro = round(value * 1_000_000)
    sign = "-" if micro < 0 else ""
    return f"{sign}{abs(micro) // 1_000_000}.{abs(micro) % 1_000_000:06d}"


def _seconds_up(value: Fraction) -> str:
    return _seconds(Fraction(math.ceil(value * 1_000_000), 1_000_000))


def _global_metadata(source: MediaInfo, extra: dict[str, str]) -> list[str]:
    emptied = [f"{key}=" for key in source.metadata if key.lower() in _BRAND_KEYS]
    return emptied + [f"{key}={value}" for key, value in extra.items()]


def _stream_metadata(job: _Job) -> dict[str, str]:
    """Names, languages and handlers of each stream: picture and others from the source."""
    video = job.source.video
    maps = {"map_metadata:s:1": f"1:s:{job.sound.audio[0].index}"}
    if video is not None:
        maps["map_metadata:s:0"] = f"2:s:{video.index}"
    for position, (stream, _) in enumerate(job.others, start=2):
        maps[f"map_metadata:s:{position}"] = f"2:s:{stream.index}"
    return maps


def _audio_options(job: _Job, speech: AudioStreamInfo) -> dict[str, Any]:
    if job.copied:
        return {}
    options: dict[str, Any] = {"c:a:0": AUDIO_ENCODERS[job.codec]}
    if job.duration is not None:
        options["filter:a:0"] = f"atrim=end_sample={math.ceil(job.duration * speech.sample_rate)}"
    if job.codec == "aac":
        options["b:a:0"] = AAC_BITS_PER_CHANNEL * max(1, speech.channels)
    elif job.codec == "opus":
        options["b:a:0"] = OPUS_BITS_PER_CHANNEL * max(1, speech.channels)
    return options


def _alpha_mode(picture: MediaInfo) -> str:
    """Matroska's tag for VP8 and VP9 with an alpha plane: without it players show none."""
    video = picture.video
    coded = video is not None and video.codec in ("vp8", "vp9") and has_alpha(video.pix_fmt)
    return "1" if coded else ""


def _container_options(job: _Job, extra: dict[str, str]) -> dict[str, Any]:
    if not job.rules.is_mov:
        return {}
    video = job.picture.video
    if video is None:
        raise MediaFailed("the intermediate holds no picture", path=job.picture.path)
    flags = "+faststart"
    keys = {key.lower() for key in (*job.source.metadata, *extra)}
    if not keys <= _PLAIN_MP4_KEYS | set(_BRAND_KEYS):
        flags += "+use_metadata_tags"
    clock = video.time_base.denominator
    options: dict[str, Any] = {
        "movflags": flags,
        "video_track_timescale": clock,
        "movie_timescale": clock,
    }
    if video.codec == "hevc":
        options["tag:v:0"] = "hvc1"
    return options
