"""Copying pixels from references, for the CPU: loops over the pixels that count.

Pictures are float32; places are (x, y) in pixels with centres at +0.5; what lies outside a picture
is its border.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from dubbing.compiled import compiled

Floats = NDArray[np.float32]

ZERO, HALF, ONE = (np.float32(v) for v in (0, 0.5, 1))  # a bare number would be a double
LEAST = 2e-5  # weight of a reference's coarse colour, below which it is left out
KEYS = np.float32(-0.75)  # a of the cubic's weights, as PyTorch has it
CLOSE, STEEP, THREE = np.float32(1.25), np.float32(2.25), np.float32(3)  # a + 2, a + 3
FAINT = np.float32(-15)  # logit behind the strongest, from where on nothing is left
LEAST_DETAIL = 1 / 512  # the same of its detail, which is a few code values


@compiled
def add_coarse(out: Floats, picture: Floats, place: Floats, weight: Floats) -> None:
    """Add to out [h, w, 3] what lies at place [h, w, 2] of picture [3, H, W], times weight
    [h, w]."""
    height, width = picture.shape[1:]
    for y in range(out.shape[0]):
        for x in range(out.shape[1]):
            share = weight[y, x]
            if share < LEAST:
                continue
            column, right = _split(place[y, x, 0], width)
            row, down = _split(place[y, x, 1], height)
            for c in range(3):
                out[y, x, c] += share * _between(picture[c], row, column, down, right)


@compiled
def enlarge(maps: Floats, xs: Floats, ys: Floats) -> Floats:
    """Bilinear maps [h, w, C] at columns xs [W] and rows ys [H]: [H, W, C]."""
    height, width, channels = maps.shape
    out = np.empty((len(ys), len(xs), channels), np.float32)
    for y in range(len(ys)):
        row, down = _split(ys[y], height)
        for x in range(len(xs)):
            column, right = _split(xs[x], width)
            for c in range(channels):
                top = maps[row, column, c] * (ONE - right) + maps[row, column + 1, c] * right
                low = (
                    maps[row + 1, column, c] * (ONE - right) + maps[row + 1, column + 1, c] * right
                )
                out[y, x, c] = top * (ONE - down) + low * down
    return out


@compiled
def shares(logits: Floats, xs: Floats, ys: Floats) -> Floats:
    """Softmax [N, H, W] over N references of their logits [N, h, w], enlarged as by `enlarge`."""
    count, height, width = logits.shape
    out = np.empty((count, len(ys), len(xs)), np.float32)
    for y in range(len(ys)):
        row, down = _split(ys[y], height)
        for x in range(len(xs)):
            column, right = _split(xs[x], width)
            highest = np.float32(-np.inf)
            for k in range(count):
                value = _between(logits[k], row, column, down, right)
                out[k, y, x] = value
                highest = max(highest, value)
            total = ZERO
            for k in range(count):
                away = out[k, y, x] - highest
                share = np.float32(math.exp(away)) if away > FAINT else ZERO
                out[k, y, x] = share
                total += share
            for k in range(count):
                out[k, y, x] /= total
    return out


@compiled
def add_detail(
    out: Floats, seen: Floats, weight: Floats, place: Floats, xs: Floats, ys: Floats,
    picture: Floats, scale: np.float32, left: np.float32, top: np.float32,
) -> None:  # fmt: skip
    """Add to out [H, W, 3] bicubic samples of a reference's detail, times weight [H, W], where
    `seen` [H, W] is above 0.

    Args:
        place: [h, w, 2] in the reference's window, on the window's grid; xs [W], ys [H] of the
            output's pixels on that grid.
        picture: [h', 3 w'], pixels side by side; a window place p lies at scale * p + (left, top)
            in it.
    """
    height, width = picture.shape[0], picture.shape[1] // 3
    horizontal, vertical = place[:, :, 0], place[:, :, 1]
    tall, wide = horizontal.shape
    for y in range(len(ys)):
        row, down = _split(ys[y], tall)
        for x in range(len(xs)):
            share = weight[y, x]
            if share < LEAST_DETAIL or seen[y, x] <= ZERO:
                continue
            column, right = _split(xs[x], wide)
            u = _between(horizontal, row, column, down, right) * scale + left
            v = _between(vertical, row, column, down, right) * scale + top
            first, a0, a1, a2, a3 = _cubic(u, width)
            line, d0, d1, d2, d3 = _cubic(v, height)
            red, green, blue = ZERO, ZERO, ZERO
            if 0 <= first < width - 3 and 0 <= line < height - 3:
                k = 3 * first
                for j, d in enumerate((d0, d1, d2, d3)):
                    p = picture[line + j, k : k + 12]
                    red += d * (a0 * p[0] + a1 * p[3] + a2 * p[6] + a3 * p[9])
                    green += d * (a0 * p[1] + a1 * p[4] + a2 * p[7] + a3 * p[10])
                    blue += d * (a0 * p[2] + a1 * p[5] + a2 * p[8] + a3 * p[11])
            else:
                for j, d in enumerate((d0, d1, d2, d3)):
                    p = picture[min(max(line + j, 0), height - 1)]
                    for i, a in enumerate((a0, a1, a2, a3)):
                        k = 3 * min(max(first + i, 0), width - 1)
                        red += d * a * p[k]
                        green += d * a * p[k + 1]
                        blue += d * a * p[k + 2]
            out[y, x, 0] += share * red
            out[y, x, 1] += share * green
            out[y, x, 2] += share * blue


@compiled
def _split(place: float, size: int) -> tuple[int, np.float32]:
    """Pixel left of (above) a place and how far it is from there, 0..1; held inside."""
    value = np.float32(place) - HALF
    if not value > ZERO:  # also where it is not a number
        return 0, ZERO
    if value >= size - 1:
        return max(size - 2, 0), ONE if size > 1 else ZERO
    whole = int(value)
    return whole, value - np.float32(whole)


@compiled
def _between(
    plane: Floats, row: int, column: int, down: np.float32, right: np.float32
) -> np.float32:
    """Bilinear sample of [h, w]."""
    below, beside = min(row + 1, plane.shape[0] - 1), min(column + 1, plane.shape[1] - 1)
    top = plane[row, column] * (ONE - right) + plane[row, beside] * right
    low = plane[below, column] * (ONE - right) + plane[below, beside] * right
    return np.float32(top * (ONE - down) + low * down)


@compiled
def _cubic(
    place: np.float32, size: int
) -> tuple[int, np.float32, np.float32, np.float32, np.float32]:
    """First of four pixels around a place, and their factors (Keys)."""
    value = place - HALF
    if not value > -THREE:
        value = -THREE
    elif value > size + 2:
        value = np.float32(size + 2)
    whole = math.floor(value)
    near = value - np.float32(whole)
    far = ONE - near
    inner = (CLOSE * near - STEEP) * near * near + ONE
    beyond = (CLOSE * far - STEEP) * far * far + ONE
    # a (x - 1) (x - 2)^2, x the distance
    return whole - 1, KEYS * near * far * far, inner, beyond, KEYS * far * near * near
