"""Damage to the bytes of a file, by a seeded generator."""

from __future__ import annotations

import random
import struct
from collections.abc import Callable

HEADER = 4096
"""Bytes at either end of a file in which fields are looked for."""

EXTREMES = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 0x10000, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)


def flip_bits(data: bytearray, dice: random.Random) -> None:
    """Turn over one to fifty bits."""
    for _ in range(dice.choice((1, 2, 5, 50))):
        data[dice.randrange(len(data))] ^= 1 << dice.randrange(8)


def truncate(data: bytearray, dice: random.Random) -> None:
    """Cut the end off, often only a little of it."""
    keep = len(data) - dice.randrange(1, 200) if dice.random() < 0.4 else dice.randrange(len(data))
    del data[max(keep, 0) :]


def duplicate(data: bytearray, dice: random.Random) -> None:
    """Put a piece in twice."""
    start, stop = _piece(data, dice)
    place = dice.randrange(len(data))
    data[place:place] = data[start:stop]


def remove(data: bytearray, dice: random.Random) -> None:
    """Take a piece out."""
    start, stop = _piece(data, dice)
    del data[start:stop]


def swap(data: bytearray, dice: random.Random) -> None:
    """Let two pieces change places."""
    size = dice.randrange(1, max(2, min(2000, len(data) // 3)))
    a = dice.randrange(max(1, len(data) - 2 * size))
    b = dice.randrange(a + size, max(a + size + 1, len(data) - size))
    data[a : a + size], data[b : b + size] = data[b : b + size], data[a : a + size]


def overwrite(data: bytearray, dice: random.Random) -> None:
    """Put noise in the place of a piece."""
    start, stop = _piece(data, dice)
    data[start:stop] = dice.randbytes(stop - start)


def extreme_field(data: bytearray, dice: random.Random) -> None:
    """Set up to four numbers near the start or the end to extreme values."""
    for _ in range(dice.randrange(1, 5)):
        size, code = dice.choice(((1, "B"), (2, "H"), (4, "I"), (8, "Q")))
        near = min(HEADER, len(data) - size)
        if near <= 0:
            return
        place = dice.randrange(near)
        if dice.random() < 0.5:
            place = len(data) - size - place
        value = dice.choice(EXTREMES) & ((1 << 8 * size) - 1)
        struct.pack_into(dice.choice("<>") + code, data, max(place, 0), value)


def change_number(data: bytearray, dice: random.Random) -> None:
    """Change a decimal digit of a text near the start (the header of safetensors is JSON)."""
    digits = [k for k, byte in enumerate(data[:HEADER]) if 48 <= byte <= 57]
    for _ in range(min(len(digits), dice.randrange(1, 4))):
        data[dice.choice(digits)] = 48 + dice.randrange(10)


MUTATIONS: tuple[Callable[[bytearray, random.Random], None], ...] = (
    flip_bits, truncate, duplicate, remove, swap, overwrite, extreme_field, extreme_field,
    change_number,
)  # fmt: skip


def _piece(data: bytearray, dice: random.Random) -> tuple[int, int]:
    start = dice.randrange(len(data))
    return start, min(len(data), start + dice.choice((1, 4, 16, 188, 1000, 5000)))


def mutated(data: bytes, seed: int) -> tuple[bytes, str]:
    """(`data` with one or two kinds of damage, their names); the same seed, the same damage."""
    dice = random.Random(seed)
    out = bytearray(data)
    names = []
    for _ in range(dice.choice((1, 1, 2))):
        if out:
            damage = dice.choice(MUTATIONS)
            damage(out, dice)
            names.append(damage.__name__)
    return bytes(out), "+".join(names)
