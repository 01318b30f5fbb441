"""Landmarks of long tracks come back as they were given, from memory or from the file."""

from __future__ import annotations

import numpy as np
import pytest

from dubbing.face.rows import BLOCK, Held, LandmarkRows


def rows(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).random((count, 7, 3), np.float32)


@pytest.mark.parametrize("count", [1, BLOCK, BLOCK + 1, 2 * BLOCK, 2 * BLOCK + 37])
def test_every_row_and_slice_comes_back(count: int) -> None:
    given, other = rows(count), rows(count, seed=1)
    held, neighbour = LandmarkRows(), LandmarkRows()
    for row, beside in zip(given, other, strict=True):  # both tracks share the file
        held.append(row)
        neighbour.append(beside)
        assert np.array_equal(held[-1], row)
    assert len(held) == count
    assert np.array_equal(held[:], given)
    assert np.array_equal(neighbour[:], other)
    assert np.array_equal(np.concatenate(list(held.blocks())), given)
    assert all(np.array_equal(a, b) for a, b in zip(held, given, strict=True))
    for start, stop in ((0, 1), (count // 2, count), (BLOCK - 2, BLOCK + 3), (count, count + 9)):
        assert np.array_equal(held[start:stop], given[start:stop])


def test_misuse_is_refused() -> None:
    held = LandmarkRows()
    held.append(np.zeros((2, 3), np.float32))
    with pytest.raises(ValueError, match="shape"):
        held.append(np.zeros((3, 3), np.float32))
    with pytest.raises(ValueError, match="step"):
        held[::2]
    with pytest.raises(IndexError):
        held[1]


def test_room_that_is_given_up_is_used_again() -> None:
    first, second, last = (LandmarkRows() for _ in range(3))
    for row in rows(2 * BLOCK + 1):
        first.append(row)
    for row in rows(2 * BLOCK + 1, seed=1):
        second.append(row)
    assert first._spill is not None
    size = first._spill._end
    first.forget()
    assert len(first) == 0
    for row in rows(2 * BLOCK + 1, seed=2):
        last.append(row)
    assert last._spill is not None and last._spill._end == size
    assert np.array_equal(last[:], rows(2 * BLOCK + 1, seed=2))
    assert np.array_equal(second[:], rows(2 * BLOCK + 1, seed=1))


def test_what_was_read_does_not_change_with_what_comes() -> None:
    held = LandmarkRows()
    given = rows(2 * BLOCK + 5)
    read = []
    for row in given:
        held.append(row)
        read.append(held[-1])
    assert np.array_equal(np.stack(read), given)


def test_held_arrays_lie_side_by_side() -> None:
    given = np.random.default_rng(3).integers(0, 255, (70, 6, 3)).astype(np.uint8)
    held = Held()
    for row in given:
        held.append(row)
    assert len(held) == 70
    assert held[:].dtype == np.uint8
    assert np.array_equal(held[:], given)
    held.drop(50)
    assert np.array_equal(held[:], given[50:])
    assert np.array_equal(held[3], given[53])
    held.append(given[0])
    assert np.array_equal(held[-1], given[0])
    held.drop(len(held))
    held.append(given[7])
    assert np.array_equal(held[:], given[7:8])
