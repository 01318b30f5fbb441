"""What is kept of a speaker's motion: evenly taken pieces at 25 Hz."""

from __future__ import annotations

import torch
from torch import Tensor

from dubbing.style_reference import MAX_FRAMES, StyleReference


def track(*spans: tuple[float, float], rate: float = 25.0) -> tuple[Tensor, Tensor]:
    """Times and expressions [T, 2] whose first is the time itself."""
    parts = [torch.arange(round((b - a) * rate), dtype=torch.float64) / rate + a for a, b in spans]
    times = torch.cat(parts)
    return times, torch.stack([times, -times], 1).float()


def test_other_rates_come_to_25_hz() -> None:
    for rate in (24.0, 29.97, 50.0, 120.0):
        found = StyleReference.of(*track((1.0, 5.0), rate=rate))
        assert found.starts == [0]
        steps = found.expressions[:, 0].diff()
        assert torch.allclose(steps, torch.full_like(steps, 0.04), atol=1e-4)
        assert abs(len(found.expressions) - 100) <= 1


def test_a_hole_starts_a_piece() -> None:
    found = StyleReference.of(*track((0.0, 2.0), (3.0, 4.0)))
    assert found.starts == [0, 50]
    follows = found.follows
    assert not follows[49] and int(follows.sum()) == 73
    assert float(found.expressions[50, 0]) == 3.0


def test_a_frame_that_is_missing_is_no_hole() -> None:
    times, beta = track((0.0, 2.0))
    kept = torch.arange(50) != 20
    found = StyleReference.of(times[kept], beta[kept])
    assert found.starts == [0]
    assert torch.allclose(found.expressions, beta, atol=1e-5)


def test_a_long_video_gives_pieces_from_everywhere() -> None:
    times, beta = track((0.0, 600.0))
    found = StyleReference.of(times, beta)
    assert 400 <= len(found.expressions) <= MAX_FRAMES
    seconds = found.expressions[:, 0]
    assert seconds[0] < 2 and seconds[-1] > 598
    assert torch.allclose(seconds.diff()[found.follows], torch.tensor(0.04), atol=1e-4)
    assert (seconds.diff()[~found.follows] > 10).all()


def test_one_frame_is_a_reference() -> None:
    found = StyleReference.of(*track((2.0, 2.04)))
    assert found.expressions.shape == (1, 2) and found.starts == [0]
    assert len(found.follows) == 0
