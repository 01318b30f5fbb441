"""Landmarks of long tracks come back as they were given, from memory or from the file."""

from __future__ import annotations

import numpy as np
import pytest

from dubbing.face.rows import BLOCK, LandmarkRows


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
