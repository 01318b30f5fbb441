"""What each kind of output file takes.

"Takes" means: ffmpeg writes it and common players play it. PCM and MP2 in mp4 are legal on paper
and silent in browsers and phones, so they count as not taken there.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from dubbing.errors import OptionInvalid, OutputUnwritable

_PCM_MOV = {"pcm_s16le", "pcm_s16be", "pcm_s24le", "pcm_s24be", "pcm_s32le", "pcm_s32be"}
_PCM_MOV |= {"pcm_f32le", "pcm_f32be", "pcm_f64le", "pcm_f64be", "pcm_u8", "pcm_alaw", "pcm_mulaw"}
_PCM_MKV = {"pcm_u8", "pcm_s16le", "pcm_s24le", "pcm_s32le", "pcm_f32le", "pcm_f64le"}
_PCM_MKV |= {"pcm_s16be", "pcm_s24be", "pcm_s32be"}
_MP4_AUDIO = {"aac", "mp3", "alac", "ac3", "eac3", "opus", "flac"}
_MOV_AUDIO = {"aac", "mp3", "alac", "ac3", "eac3"} | _PCM_MOV
_MKV_AUDIO = {"aac", "mp3", "mp2", "alac", "ac3", "eac3", "opus", "flac", "vorbis", "dts"}
_MKV_AUDIO |= {"truehd", "tta", "wavpack"} | _PCM_MKV
_MOV_VIDEO = {"h264", "hevc", "mpeg4", "mjpeg", "prores", "dnxhd", "av1", "ffv1"}

TEXT_SUBTITLES = frozenset({"subrip", "ass", "ssa", "webvtt", "mov_text", "text"})

AUDIO_ENCODERS = {
    "aac": "aac",
    "mp3": "libmp3lame",
    "opus": "libopus",
    "vorbis": "libvorbis",
    "flac": "flac",
    "alac": "alac",
    "ac3": "ac3",
    "pcm_s16le": "pcm_s16le",
    "pcm_s24le": "pcm_s24le",
    "pcm_f32le": "pcm_f32le",
}
"""ffmpeg's encoder for each codec that can be asked for."""


@dataclass(frozen=True)
class ContainerRules:
    """What one kind of file takes. Codec names are ffmpeg's."""

    muxer: str
    audio: frozenset[str]
    default_audio: str
    video: frozenset[str] | None
    """None: any"""
    subtitles: frozenset[str]
    """subtitle codecs that are copied"""
    text_subtitle: str
    """what other text subtitles become"""
    attachments: bool = False
    cover: frozenset[str] = field(default_factory=frozenset)
    """picture codecs taken as cover art"""
    exact_times: bool = True
    """False: time stamps are rounded to 1 ms (Matroska)"""

    @property
    def is_mov(self) -> bool:
        return self.muxer in ("mp4", "mov")


_MP4 = ContainerRules(
    muxer="mp4",
    audio=frozenset(_MP4_AUDIO),
    default_audio="aac",
    video=frozenset({"h264", "hevc", "mpeg4", "av1", "vp9", "mjpeg", "ffv1"}),
    subtitles=frozenset({"mov_text"}),
    text_subtitle="mov_text",
    cover=frozenset({"mjpeg", "png"}),
)

CONTAINERS: dict[str, ContainerRules] = {
    ".mp4": _MP4,
    ".m4v": _MP4,
    ".mov": ContainerRules(
        muxer="mov",
        audio=frozenset(_MOV_AUDIO),
        default_audio="aac",
        video=frozenset(_MOV_VIDEO),
        subtitles=frozenset({"mov_text"}),
        text_subtitle="mov_text",
    ),
    ".mkv": ContainerRules(
        muxer="matroska",
        audio=frozenset(_MKV_AUDIO),
        default_audio="flac",
        video=None,
        subtitles=frozenset(
            {"subrip", "ass", "ssa", "webvtt", "dvd_subtitle", "hdmv_pgs_subtitle", "dvb_subtitle"}
        ),
        text_subtitle="subrip",
        attachments=True,
        cover=frozenset({"mjpeg", "png"}),
        exact_times=False,
    ),
    ".webm": ContainerRules(
        muxer="webm",
        audio=frozenset({"opus", "vorbis"}),
        default_audio="opus",
        video=frozenset({"vp8", "vp9", "av1"}),
        subtitles=frozenset({"webvtt"}),
        text_subtitle="webvtt",
        exact_times=False,
    ),
}
"""By file extension, lower case with the dot."""


def rules_for(path: str | Path) -> ContainerRules:
    """The rules of the output file `path`, by its extension.

    Raises:
        OutputUnwritable: unknown extension.
    """
    suffix = Path(path).suffix.lower()
    if suffix not in CONTAINERS:
        known = ", ".join(sorted(CONTAINERS))
        raise OutputUnwritable(
            f"unknown extension {suffix!r}", path=path, hint=f"use one of {known}"
        )
    return CONTAINERS[suffix]


def choose_audio(
    rules: ContainerRules, source_codec: str, sample_rate: int, asked: str = "auto"
) -> tuple[bool, str]:
    """(copy, codec): whether the sound is copied, and the codec it has in the result.

    Args:
        source_codec: codec of the user's sound.
        sample_rate: in Hz.
        asked: "auto", "copy", or a codec name of `AUDIO_ENCODERS`.

    Raises:
        OptionInvalid: the container does not take the codec, or it is unknown.
    """
    # the mp4 family does not carry MPEG-2.5 rates of mp3
    low_mp3 = source_codec == "mp3" and sample_rate < 16000 and rules.is_mov
    taken = source_codec in rules.audio and not low_mp3
    if asked == "copy" and not taken:
        raise OptionInvalid(f"{rules.muxer} files do not take {source_codec} sound")
    if asked in ("auto", "copy"):
        return (True, source_codec) if taken else (False, rules.default_audio)
    if asked not in AUDIO_ENCODERS:
        raise OptionInvalid(
            f"unknown sound codec {asked!r}", hint=f"known: {', '.join(sorted(AUDIO_ENCODERS))}"
        )
    if asked not in rules.audio:
        raise OptionInvalid(f"{rules.muxer} files do not take {asked} sound")
    return (taken and asked == source_codec), asked


def check_video_codec(path: str | Path, codec: str) -> None:
    """Make sure that the output file takes a picture stream of `codec` (ffmpeg's codec name).

    Raises:
        OutputUnwritable: unknown extension.
        OptionInvalid: it does not take it.
    """
    rules = rules_for(path)
    if rules.video is not None and codec not in rules.video:
        raise OptionInvalid(
            f"{Path(path).suffix} files do not take {codec} pictures",
            hint=f"they take {', '.join(sorted(rules.video))}; or write .mkv",
        )
