"""Kept conversion tables give what a frame's own conversion gives."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from media_samples import noise_frame

from dubbing.media import converter
from dubbing.media.converter import MAX_KEPT, reformat

CASES: list[tuple[str, tuple[int, int], dict[str, Any]]] = [
    ("yuv420p", (64, 48), {"format": "rgb24"}),
    ("yuv420p", (64, 48), {"format": "rgb24", "src_colorspace": 1}),
    ("yuv420p", (64, 48), {"format": "rgb24", "width": 32, "height": 24, "interpolation": "AREA"}),
    ("yuv420p", (50, 38), {"format": "rgb24"}),
    ("yuv444p10le", (64, 48), {"format": "yuv420p", "src_color_range": 2, "dst_color_range": 1}),
]


@pytest.mark.parametrize("turn", range(2))  # the second finds tables of others, and its own
def test_samples_are_those_of_the_frames_own_conversion(turn: int) -> None:
    for fmt, (width, height), options in CASES:
        frame = noise_frame(fmt, width, height, seed=turn)
        wanted = frame.reformat(**options).to_ndarray()
        assert np.array_equal(reformat(frame, **options).to_ndarray(), wanted)


def test_threads_don_t_share_tables() -> None:
    frames = [noise_frame("yuv420p", seed=k) for k in range(40)]
    wanted = [f.reformat(format="rgb24").to_ndarray() for f in frames]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda f: reformat(f, format="rgb24").to_ndarray(), frames))
    assert all(np.array_equal(a, b) for a, b in zip(found, wanted, strict=True))


def test_few_tables_are_kept() -> None:
    for width in range(16, 16 + 4 * MAX_KEPT, 2):
        reformat(noise_frame("yuv420p", width, 16), format="rgb24")
    assert len(converter._kept.converters) == MAX_KEPT
