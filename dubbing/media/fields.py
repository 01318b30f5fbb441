"""Interlaced pictures: which field comes first, and telling the encoder so."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import av
from av.filter import Graph

UNKNOWN, PROGRESSIVE, TOP_TOP, BOTTOM_BOTTOM, TOP_BOTTOM, BOTTOM_TOP = range(6)
"""ffmpeg's AVFieldOrder: the field coded first, then the field shown first."""

_INTERLACED_DCT = 1 << 18
_INTERLACED_MOTION = 1 << 29


def field_order(context: Any, frame: av.VideoFrame) -> int:
    """Field order of a stream: the decoder's, else top field first where `frame` is interlaced."""
    told = int(getattr(context, "field_order", UNKNOWN))
    if told < TOP_TOP and frame.interlaced_frame:
        return TOP_TOP
    return told


def is_interlaced(order: int) -> bool:
    """Whether a field order is one of two fields."""
    return order >= TOP_TOP


def code_fields(context: Any, order: int) -> None:
    """Set an encoder to interlaced coding with that field order."""
    context.flags |= _INTERLACED_DCT | _INTERLACED_MOTION
    if hasattr(context, "field_order"):
        context.field_order = order


class FieldMarker:
    """Marks frames as interlaced, which a pasted frame does not say of itself."""

    def __init__(self, frame: av.VideoFrame, order: int, time_base: Fraction):
        self._graph = Graph()
        first = "tff" if order in (TOP_TOP, BOTTOM_TOP) else "bff"
        source = self._graph.add(
            "buffer",
            video_size=f"{frame.width}x{frame.height}",
            pix_fmt=frame.format.name,
            time_base=str(time_base),
            pixel_aspect="1/1",
            colorspace=str(int(frame.colorspace)),
            range=str(int(frame.color_range)),
        )
        marked, sink = self._graph.add("setfield", f"mode={first}"), self._graph.add("buffersink")
        source.link_to(marked)
        marked.link_to(sink)
        self._graph.configure()

    def mark(self, frame: av.VideoFrame) -> av.VideoFrame:
        """The same picture, marked; `frame` itself stays as it is."""
        self._graph.push(frame)
        out = self._graph.pull()
        assert isinstance(out, av.VideoFrame)
        return out
