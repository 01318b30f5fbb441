"""swscale with its tables kept: a frame's own `reformat` builds them anew for every frame, and
starts threads for it, which for small pictures costs ten times the conversion."""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import Any

import av
from av.video.reformatter import VideoReformatter

MAX_KEPT = 8  # conversions of which a thread keeps the tables


class _Kept(threading.local):
    """One set per thread: a converter must not be used by two at a time."""

    def __init__(self) -> None:
        self.converters: OrderedDict[tuple[Any, ...], VideoReformatter] = OrderedDict()


_kept = _Kept()


def reformat(
    frame: av.VideoFrame,
    width: int | None = None,
    height: int | None = None,
    format: str | None = None,
    **options: Any,
) -> av.VideoFrame:
    """What `frame.reformat` gives."""
    key = (
        frame.width, frame.height, frame.format.name, width, height, format,
        *sorted(options.items()),
    )  # fmt: skip
    converters = _kept.converters
    if key not in converters:
        converters[key] = VideoReformatter()
        while len(converters) > MAX_KEPT:
            converters.popitem(last=False)
    converters.move_to_end(key)
    return converters[key].reformat(frame, width, height, format, threads=1, **options)
