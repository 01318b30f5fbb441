"""What the moments around a frame show: the head's poses there, and the chain that reads them."""

from __future__ import annotations

from collections import deque
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from dubbing.chain import posterior
from dubbing.stream import DubbedFrames, StreamFrame


def poses_at(current: int, indices: list[int], times: list[float], cut: int = 10**6) -> list[float]:
    """Which frames' poses are taken for five moments around the frame at place `current`."""
    position = {k: k for k in range(100)}
    speaker: Any = SimpleNamespace(
        position=position,
        part={k: int(k >= cut) for k in position},
        fit=SimpleNamespace(pose=torch.arange(100.0)[:, None].expand(100, 6)),
    )
    nothing: Any = None
    frames = DubbedFrames(nothing, nothing, nothing, speaker, np.ones(100, np.float32))
    waiting = deque(
        (StreamFrame(k, SimpleNamespace(index=i), t), None)
        for k, (i, t) in enumerate(zip(indices, times, strict=True))
    )
    found: list[float] = frames._poses(waiting, current, 5)[:, 0].tolist()
    return found


def test_poses_are_taken_where_the_moments_lie_in_the_film() -> None:
    assert poses_at(2, [48, 49, 50, 51, 52], [0.04 * k for k in range(5)]) == [48, 49, 50, 51, 52]
    assert poses_at(2, [48, 49, 50, 51, 52], [0.02 * k for k in range(5)]) == [46, 48, 50, 52, 54]
    assert poses_at(2, [52, 51, 50, 49, 48], [0.04 * k for k in range(5)]) == [52, 51, 50, 49, 48]


def test_poses_of_another_shot_or_beyond_the_film_are_not_asked_for() -> None:
    times = [0.04 * k for k in range(5)]
    assert poses_at(2, [48, 49, 50, 51, 52], times, cut=51) == [48, 49, 50, 50, 50]
    assert poses_at(0, [0, 1, 2], times[:3]) == [0, 0, 0, 1, 2]
    assert poses_at(0, [7], [0.3]) == [7] * 5


def test_what_is_likely_is_told_by_the_moments_around() -> None:
    seen = torch.tensor([[0.9, 0.1], [0.4, 0.6], [0.9, 0.1]])
    stays = torch.tensor([[1.0, 0.1], [0.1, 1.0]])
    found = posterior(seen, stays)
    assert found.sum(1).tolist() == pytest.approx([1, 1, 1])
    # by hand: sums over the eight ways, of which those through state 0 in the middle are
    through = [
        sum(
            seen[0, a] * stays[a, b] * seen[1, b] * stays[b, c] * seen[2, c]
            for a in (0, 1)
            for c in (0, 1)
        )
        for b in (0, 1)
    ]
    assert float(found[1, 0]) == pytest.approx(float(through[0] / (through[0] + through[1])))
    assert found[1, 0] > 0.9
    free = posterior(seen, torch.ones(2, 2))
    assert torch.allclose(free, seen)
