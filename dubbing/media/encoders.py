"""Video encoders: which exist, their quality options, the pixel format they are fed."""

from __future__ import annotations

from fractions import Fraction
from functools import cache
from typing import TYPE_CHECKING, Any

import av
import cv2

from dubbing.errors import OptionInvalid
from dubbing.media.pixels import UNSPECIFIED, has_alpha, is_rgb, layout_of, native_format

if TYPE_CHECKING:
    from dubbing.media.probe import VideoStreamInfo

OFFERED = (
    "libx264",
    "libx265",
    "h264_nvenc",
    "hevc_nvenc",
    "libsvtav1",
    "libvpx-vp9",
    "ffv1",
    "prores_ks",
    "dnxhd",
)
"""Named in the message for an unknown encoder; any other video encoder of the build works too."""

_EVEN_NOT_NEEDED = ("ffv1", "libvpx-vp9", "prores_ks", "mpeg4", "dnxhd")
_ALPHA_FORMATS: dict[str, tuple[str, ...]] = {"libx265": (), "libvpx-vp9": ("yuva420p",)}
"""Formats with alpha that these take; they name others too, and then do not start."""

CPU_AVX2, CPU_AVX512 = 11, 256
"""OpenCV's numbers of processor features."""

_CRF_MAX = {"libx264": 51, "libx265": 51, "libsvtav1": 63, "libvpx-vp9": 63}
_NVENC_PRESETS = {
    "ultrafast": "p1", "superfast": "p1", "veryfast": "p2", "faster": "p3", "fast": "p4",
    "medium": "p5", "slow": "p6", "slower": "p7", "veryslow": "p7",
}  # fmt: skip
"""nvenc's own names for x264's."""


def video_encoder(name: str) -> av.Codec:
    """The encoder of that name.

    Raises:
        OptionInvalid: it is not in this build of the libraries, or not a video encoder.
    """
    try:
        codec = av.Codec(name, "w")
    except ValueError as error:
        raise OptionInvalid(_unknown(name)) from error
    if codec.type != "video":
        raise OptionInvalid(_unknown(name))
    return codec


def _unknown(name: str) -> str:
    existing = ", ".join(codec for codec in OFFERED if codec in av.codecs_available)
    return f"there is no video encoder {name!r} in this build; there are {existing}"


def quality_options(codec: str, crf: float | None, preset: str | None) -> dict[str, str]:
    """Encoder options for a constant quality `crf` and a speed `preset`.

    `crf` is the encoder's own scale (x264 and x265 0 to 51, VP9 and AV1 0 to 63, nvenc's cq 0 to
    51); 0 is lossless for x264, x265 and VP9. Encoders without such a scale (ffv1 is
    lossless anyway) ignore both.

    Raises:
        OptionInvalid: `crf` is outside the scale.
    """
    top = _CRF_MAX.get(codec, 51 if codec.endswith("_nvenc") else None)
    if crf is not None and top is not None and not 0 <= crf <= top:
        raise OptionInvalid(f"crf {crf} is outside 0 to {top} of {codec}")
    quality = {} if crf is None else {"crf": f"{crf:g}"}
    speed = {} if preset is None else {"preset": preset}
    lossless = crf == 0
    if codec == "libx264":  # its crf 0 is lossless in 8 bit only, its qp 0 in any depth
        return ({"qp": "0"} if lossless else quality) | speed | _repeatable_x264()
    if codec == "libx265":
        params = "log-level=error" + (":lossless=1" if lossless else "")
        return ({} if lossless else quality) | speed | {"x265-params": params}
    if codec == "libsvtav1":
        return quality | (speed if (preset or "").isdigit() else {})
    if codec == "libvpx-vp9":
        return quality | {"b": "0", "row-mt": "1"} | ({"lossless": "1"} if lossless else {})
    if codec == "ffv1":
        return {"level": "3", "slicecrc": "1"}
    if codec.endswith("_nvenc"):
        rate = {} if crf is None else {"rc": "vbr", "cq": f"{crf:g}", "b": "0"}
        return rate | ({} if preset is None else {"preset": _NVENC_PRESETS.get(preset, preset)})
    return {}


@cache
def _repeatable_x264() -> dict[str, str]:
    """What makes x264 write the same bytes every time.

    Its AVX-512 code for macroblock trees reads memory that nobody has written where the width in
    macroblocks is not a multiple of 8, so that bytes depend on what the process did before. With
    AVX2 it does not, and is as fast (measured: 5.0 against 5.1 s of one core).
    """
    wide = all(cv2.checkHardwareSupport(feature) for feature in (CPU_AVX2, CPU_AVX512))
    return {"x264-params": "asm=AVX2"} if wide else {}


def check_encoder(codec: str) -> None:
    """Make sure that an encoder of a graphics card starts on this machine; others always do.

    Raises:
        OptionInvalid: unknown encoder, or no card, driver or free session for it.
    """
    video_encoder(codec)
    if not codec.endswith("_nvenc"):
        return
    context: Any = av.CodecContext.create(codec, "w")
    context.width = context.height = 256
    context.pix_fmt, context.time_base = "yuv420p", Fraction(1, 25)
    try:
        context.open()
    except av.error.FFmpegError as error:
        raise OptionInvalid(
            f"the encoder {codec} does not start on this machine: {error.strerror}",
            hint="it needs an NVIDIA card with an encoder (data-centre cards such as H100 have "
            "none) and its driver; libx264 always works",
        ) from error


def profile_options(codec: str, pix_fmt: str) -> dict[str, str]:
    """Encoder options that follow from the pixel format: the profile of ProRes and DNxHR."""
    layout = layout_of(pix_fmt)
    if layout is None:
        return {}
    full_chroma = layout.sub_x == 0
    if codec == "prores_ks":
        return {"profile": "4444" if full_chroma else "hq", "vendor": "apl0"}
    if codec == "dnxhd":
        deep = "dnxhr_444" if full_chroma else "dnxhr_hqx"
        return {"profile": deep if layout.depth > 8 or full_chroma else "dnxhr_hq"}
    return {}


def encoding_losses(source: str, codec: str, width: int, height: int, suffix: str) -> list[str]:
    """What of the source's pixel format an encode does not keep, in words for the user.

    Args:
        source: pixel format of the source.
        suffix: extension of the output file.
    """
    target = choose_pix_fmt(source, codec, width, height)
    old, new = layout_of(native_format(source)), layout_of(target)
    losses = []
    vp9_elsewhere = codec == "libvpx-vp9" and suffix not in (".webm", ".mkv")
    if has_alpha(native_format(source)) and (not has_alpha(target) or vp9_elsewhere):
        losses.append(
            "the picture's alpha is not kept; --codec ffv1 or prores_ks keeps it, or libvpx-vp9 in "
            ".webm and .mkv"
        )
    if old is None or new is None:
        return losses
    if new.depth < old.depth:
        losses.append(f"{codec} keeps {new.depth} of {old.depth} bits per sample")
    if new.sub_x > old.sub_x or new.sub_y > old.sub_y:
        losses.append(f"{codec} keeps less chroma resolution: {source} becomes {target}")
    if is_rgb(source) and not is_rgb(target):
        losses.append(f"{codec} stores RGB as {target}")
    return losses


def tag_losses(source: VideoStreamInfo, result: VideoStreamInfo) -> list[str]:
    """What the result does not say of its colours although the source does, in words."""
    if is_rgb(source.pix_fmt) or is_rgb(result.pix_fmt):
        return []
    names = {
        "color_space": "matrix", "color_primaries": "primaries", "color_trc": "transfer"
    }  # fmt: skip
    lost = [
        f"{word} {getattr(source, name)} is read as {getattr(result, name)}"
        for name, word in names.items()
        if getattr(source, name) not in (UNSPECIFIED, getattr(result, name))
    ]
    if not lost:
        return []
    return [f"{result.codec} in this container does not keep the colour tags: {', '.join(lost)}"]


def choose_pix_fmt(source: str, codec: str, width: int, height: int) -> str:
    """The pixel format to encode: the source's where the encoder takes it, else the nearest.

    Nearest loses least: first alpha, then the colour family, chroma resolution, bit depth; of
    equal ones the smallest wins. Pictures of odd width or height, which H.264, HEVC and AV1 can't
    hold with subsampled chroma, get full chroma, never another size.

    Raises:
        OptionInvalid: the encoder takes no format of that size.
    """
    alpha = _ALPHA_FORMATS.get(codec)
    takes = [
        fmt.name
        for fmt in video_encoder(codec).video_formats or ()
        if alpha is None or not has_alpha(fmt.name) or fmt.name in alpha
    ]
    strict = codec not in _EVEN_NOT_NEEDED
    fitting = [name for name in takes if not strict or _divisible(name, width, height)]
    if source in fitting or not takes:
        return source
    known = [name for name in fitting if layout_of(name) is not None]
    if not known:
        raise OptionInvalid(f"{codec} takes no pixel format for {width}x{height} pictures")
    return min(known, key=lambda name: _loss(native_format(source), name))


def _divisible(name: str, width: int, height: int) -> bool:
    layout = layout_of(name)
    if layout is None:
        return False
    return width % (1 << layout.sub_x) == 0 and height % (1 << layout.sub_y) == 0


def _loss(source: str, target: str) -> tuple[int, ...]:
    a, b = layout_of(source), layout_of(target)
    if a is None or b is None:
        raise ValueError(f"{source} or {target} has no known layout")
    gray_a, gray_b = a.kind == "gray", b.kind == "gray"
    alpha_a, alpha_b = has_alpha(source), has_alpha(target)
    return (
        int(alpha_a and not alpha_b),
        int(gray_b and not gray_a),
        int(is_rgb(source) != is_rgb(target)),
        max(0, b.sub_x - a.sub_x) + max(0, b.sub_y - a.sub_y),
        max(0, a.depth - b.depth),
        int(a.always_full != b.always_full),
        max(0, a.sub_x - b.sub_x) + max(0, a.sub_y - b.sub_y),
        max(0, b.depth - a.depth),
        int(a.kind != b.kind),
        int(alpha_b and not alpha_a),
    )
