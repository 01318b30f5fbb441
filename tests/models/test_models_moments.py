"""What a track shows between its pictures."""

from __future__ import annotations

import pytest
import torch

from dubbing.moments import MAX_HOLE, interpolated


def test_a_track_is_linear_between_its_pictures() -> None:
    times = torch.tensor([1.0, 1.04, 1.1], dtype=torch.float64)
    values = torch.tensor([[0.0, 5.0], [4.0, 5.0], [10.0, 5.0]])
    at = torch.tensor([1.0, 1.01, 1.07, 1.1], dtype=torch.float64)
    found, known = interpolated(times, values, at)
    torch.testing.assert_close(found[:, 0], torch.tensor([0.0, 1.0, 7.0, 10.0]))
    assert found[:, 1].eq(5).all()
    assert known.all()


def test_nothing_is_known_outside_and_in_a_hole() -> None:
    times = torch.tensor([1.0, 1.04, 1.04 + 2 * MAX_HOLE, 2.0], dtype=torch.float64)
    at = torch.tensor([0.9, 1.02, 1.04, 1.04 + MAX_HOLE, 1.04 + 2 * MAX_HOLE, 2.1]).double()
    at[2], at[4] = times[1], times[2]  # the hole's own edges are pictures
    found, known = interpolated(times, torch.arange(4.0)[:, None], at)
    assert known.tolist() == [False, True, True, False, True, False]
    assert found[0, 0] == 0 and found[-1, 0] == 3  # held, for who wants it


@pytest.mark.parametrize(("moment", "seen"), [(0.5, True), (0.54, False)])
def test_one_picture_is_known_at_its_moment(moment: float, seen: bool) -> None:
    at = torch.tensor([moment], dtype=torch.float64)
    found, known = interpolated(torch.tensor([0.5]).double(), torch.tensor([[7.0]]), at)
    assert found.tolist() == [[7.0]]
    assert known.tolist() == [seen]
