"""Landmarks of long tracks: the latest in memory, the others in a file without a name."""

from __future__ import annotations

import os
import tempfile
import weakref
from collections.abc import Iterator
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

Rows = NDArray[np.float32]

FIRST = 16  # rows for which there is room at first
BLOCK = 512  # rows that go to the file at once: 2.9 MB of 478 landmarks


class _Spill:
    """A file that vanishes with its last user; blocks are only ever added."""

    _living: weakref.ReferenceType[_Spill] | None = None

    def __init__(self) -> None:
        self._file = tempfile.TemporaryFile(prefix="dub-")  # noqa: SIM115
        self._end = 0
        self._free: dict[int, list[int]] = {}  # {size: places of that size that nobody needs}

    @classmethod
    def shared(cls) -> _Spill:
        """The one that is in use, or a new one: many tracks share one open file."""
        found = cls._living() if cls._living is not None else None
        if found is None:
            found = cls()
            cls._living = weakref.ref(found)
        return found

    def put(self, data: bytes) -> int:
        """Store data; its place."""
        free = self._free.get(len(data))
        place = free.pop() if free else self._end
        self._end = max(self._end, place + len(data))
        with memoryview(data) as rest:
            done = 0
            while done < len(rest):
                done += os.pwrite(self._file.fileno(), rest[done:], place + done)
        return place

    def get(self, place: int, size: int) -> bytes:
        return os.pread(self._file.fileno(), size, place)

    def drop(self, places: list[int], size: int) -> None:
        """Take back places of data of that size; others will be stored there."""
        self._free.setdefault(size, []).extend(places)


def face_sides(landmarks: Any) -> Rows:
    """Longer side [T] in pixels of the box around landmarks [T, N, >=2], array, tensor or rows."""
    sides = [np.zeros(0, np.float32)]
    for start in range(0, len(landmarks), BLOCK):
        points = np.asarray(landmarks[start : start + BLOCK])[..., :2]
        sides.append((points.max(1) - points.min(1)).max(1))
    return np.concatenate(sides)


class Held:
    """Arrays of one shape and type, side by side in one buffer that grows with them.

    Thousands of small arrays, each made beside a decoded picture and kept longer, would lie between
    the pictures' buffers and keep the heap from using these again: gigabytes of 1080p.
    """

    def __init__(self) -> None:
        self._buffer: NDArray[Any] = np.empty(0)
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def append(self, row: NDArray[Any]) -> None:
        if not self._count:
            self._buffer = np.empty((FIRST, *row.shape), row.dtype)
        elif self._count == len(self._buffer):
            grown = np.empty((2 * self._count, *row.shape), self._buffer.dtype)
            grown[: self._count] = self._buffer
            self._buffer = grown
        self._buffer[self._count] = row
        self._count += 1

    def __getitem__(self, place: int | slice) -> NDArray[Any]:
        """A copy of one of them, or of several [n, ...]."""
        return np.array(self._buffer[: self._count][place])

    def drop(self, count: int) -> None:
        """Forget the first `count`."""
        left = self._count - count
        self._buffer[:left] = self._buffer[count : self._count].copy()
        self._count = left


class LandmarkRows:
    """A growing sequence of float32 arrays of one shape; at most two blocks are in memory.

    Slices are read together: [n, ...]. Slices with a step and assignment are not supported.

    Raises:
        OSError: no room left for the temporary file (`append`).
    """

    def __init__(self) -> None:
        self._shape: tuple[int, ...] = ()
        self._places: list[int] = []  # of whole blocks in the file
        self._spill: _Spill | None = None
        self._latest = Held()
        self._read: tuple[int, Rows] | None = None  # the block that was read last

    def append(self, row: Rows) -> None:
        """Add an array of the same shape as the others."""
        if not len(self):
            self._shape = row.shape
        elif row.shape != self._shape:
            raise ValueError(f"a row of shape {row.shape} among rows of {self._shape}")
        self._latest.append(np.asarray(row, np.float32))
        if len(self._latest) > BLOCK:  # the last row always stays at hand
            if self._spill is None:
                self._spill = _Spill.shared()
            self._places.append(self._spill.put(self._latest[:BLOCK].tobytes()))
            self._latest.drop(BLOCK)

    def forget(self) -> None:
        """Give up all rows and their room in the file."""
        if self._spill is not None:
            self._spill.drop(self._places, self._block_bytes)
        self._places, self._latest, self._read, self._spill = [], Held(), None, None

    @property
    def _block_bytes(self) -> int:
        return BLOCK * int(np.prod(self._shape)) * 4

    def __len__(self) -> int:
        return len(self._places) * BLOCK + len(self._latest)

    @overload
    def __getitem__(self, index: int) -> Rows: ...
    @overload
    def __getitem__(self, index: slice) -> Rows: ...
    def __getitem__(self, index: int | slice) -> Rows:
        if isinstance(index, slice):
            start, stop, step = index.indices(len(self))
            if step != 1:
                raise ValueError("rows are read without a step")
            return self._span(start, max(stop, start))
        place = index + len(self) if index < 0 else index
        if not 0 <= place < len(self):
            raise IndexError(f"row {index} of {len(self)}")
        block, offset = divmod(place, BLOCK)
        if block == len(self._places):
            return self._latest[offset]
        row: Rows = self._block(block)[offset]
        return row

    def __iter__(self) -> Iterator[Rows]:
        return (self[k] for k in range(len(self)))

    def blocks(self) -> Iterator[Rows]:
        """All rows in order, [n, ...] at a time."""
        for start in range(0, len(self), BLOCK):
            yield self[start : start + BLOCK]

    def _span(self, start: int, stop: int) -> Rows:
        out = np.empty((stop - start, *self._shape), np.float32)
        for place in range(start - start % BLOCK, stop, BLOCK):
            block = place // BLOCK
            low, high = max(start, place), min(stop, place + BLOCK)
            if high <= low:
                continue
            held = len(self._places) == block
            rows = self._latest[low - place : high - place] if held else None
            out[low - start : high - start] = (
                rows if rows is not None else self._block(block)[low - place : high - place]
            )
        return out

    def _block(self, number: int) -> Rows:
        if self._read is None or self._read[0] != number:
            if self._spill is None:
                raise IndexError(f"block {number} was never written")
            data = self._spill.get(self._places[number], self._block_bytes)
            self._read = number, np.frombuffer(data, np.float32).reshape(BLOCK, *self._shape)
        return self._read[1]
