"""Which decoder reads a picture stream."""

from __future__ import annotations

from typing import Any

import av
from av.video.stream import VideoStream

from dubbing.media.limits import Limits

_ALPHA_DECODERS = {"vp8": "libvpx", "vp9": "libvpx-vp9"}
"""ffmpeg's own decoders of these leave the alpha plane out."""


def video_decoder(stream: VideoStream, threads: int = 0, limits: Limits | None = None) -> Any:
    """The codec context that decodes `stream`; pictures over `limits` fail to decode."""
    context = _alpha_decoder(stream) or stream.codec_context
    context.thread_type = "AUTO"
    context.thread_count = threads
    if limits is not None:
        context.options = {"max_pixels": str(limits.pixels)}
    return context


def _alpha_decoder(stream: VideoStream) -> Any:
    """A decoder that gives the alpha plane too, where the container says that there is one."""
    own = stream.codec_context
    name = _ALPHA_DECODERS.get(own.codec.canonical_name)
    tags = {key.lower(): value for key, value in stream.metadata.items()}
    if name is None or tags.get("alpha_mode") != "1" or name not in av.codecs_available:
        return None
    context = av.CodecContext.create(name, "r")
    context.extradata = own.extradata
    for tag in ("colorspace", "color_range", "color_primaries", "color_trc"):
        setattr(context, tag, getattr(own, tag))
    return context
