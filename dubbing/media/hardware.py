"""Decoding on an NVIDIA card (NVDEC), by option.

H.264, HEVC, VP9 and AV1 decode to the same samples everywhere; what the card does not take is
decoded by the processor. Frames come back to the processor's memory, where everything else reads
them.
"""

from __future__ import annotations

from typing import Any

import av
from av.codec.hwaccel import HWAccel
from av.video.stream import VideoStream

from dubbing.errors import OptionInvalid
from dubbing.media.limits import Limits

SOFTWARE, NVDEC = "software", "nvdec"
DECODERS = (SOFTWARE, NVDEC)


def check_decoder(name: str) -> None:
    """Make sure that a decoder can be had on this machine.

    Raises:
        OptionInvalid: none of `DECODERS`, or there is no card or driver for it.
    """
    if name not in DECODERS:
        raise OptionInvalid(f"decoder is {name!r}, which is none of {', '.join(DECODERS)}")
    if name == SOFTWARE:
        return
    try:
        HWAccel("cuda").create(av.Codec("h264", "r"))
    except (av.error.FFmpegError, RuntimeError, NotImplementedError) as error:
        raise OptionInvalid(
            f"the decoder {name} does not start on this machine: {error}",
            hint="it needs an NVIDIA card and its driver; software decoding always works",
        ) from error


def card_decoder(stream: VideoStream, limits: Limits | None = None) -> Any:
    """A codec context that decodes `stream` on the card where that takes the codec; pictures over
    `limits` fail to decode."""
    own = stream.codec_context
    context: Any = av.CodecContext.create(
        own.codec.canonical_name, "r", HWAccel("cuda", allow_software_fallback=True)
    )
    context.extradata = own.extradata
    for name in ("width", "height", "pix_fmt", "colorspace", "color_range", "color_primaries",
                 "color_trc"):  # fmt: skip
        setattr(context, name, getattr(own, name))
    if limits is not None:
        context.options = {"max_pixels": str(limits.pixels)}
    return context
