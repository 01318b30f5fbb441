"""Contact sheets: source and dub side by side, faces and mouth close-ups."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from dubbing.face.detector import FaceDetector
from dubbing.face.landmarks import FaceMesher, landmark_box
from dubbing.geometry.topology import FACE_OVAL, LIPS
from dubbing.media.reader import VideoReader
from dubbing.report import save_bytes

FACE_TILE = (176, 176)  # height, width in px
MOUTH_TILE = (118, 176)
FACE_ROOM = 1.45  # tile / longer side of the face
MOUTH_ROOM = 1.75  # tile width / width of the lips
LABEL_WIDTH = 112  # px
GAP = 2  # px between tiles
GREY = 24

Picture = NDArray[np.uint8]
Square = tuple[float, float, float]
"""x and y of the middle, and width, in pixels of the frame"""


def contact_sheet(
    source: str | Path, output: str | Path, truth: str | Path | None = None, frames: int = 8
) -> Picture:
    """Rows of `frames` moments, evenly over the clip: faces of source, output and truth, then
    their mouths.

    The source's face places the tiles of source and output, so that a shift in the output would
    be seen; the truth is placed by its own face. Moments are frame numbers within the first pass
    of the source. Where the source shows no face, the tiles show the whole frame.

    Returns:
        [H, W, 3] uint8 RGB.

    Raises:
        InputNotFound, NotAVideo: a file is missing or can't be decoded.
        ValueError: `frames` is below 1.
    """
    videos = [source, output] + ([] if truth is None else [truth])
    names = ["source", "output", "truth"][: len(videos)]
    shown = _moments(videos, frames)
    strips = [_pictures(video, shown) for video in videos]
    with FaceDetector() as detector, FaceMesher() as mesher:
        placed = [_places(picture, detector, mesher) for picture in strips[0]]
        places = [placed, placed]
        if truth is not None:
            places.append([_places(picture, detector, mesher) for picture in strips[2]])
    rows = [
        _row(f"{name} {kind}", strip, [p[k] for p in place], tile)
        for k, (kind, tile) in enumerate((("face", FACE_TILE), ("mouth", MOUTH_TILE)))
        for name, strip, place in zip(names, strips, places, strict=True)
    ]
    return np.vstack([_header([f"frame {k}" for k in shown]), *rows])


def overview(sheets: Iterable[tuple[str, Picture]], columns: Sequence[int] = (2, 5)) -> Picture:
    """One line per clip: some columns of its contact sheet (without truth), side by side.

    Args:
        sheets: (name, sheet of `contact_sheet`); columns: which of its moments.
    """
    face, mouth = FACE_TILE[0] + GAP, MOUTH_TILE[0] + GAP
    top = _HEADER
    bands = (
        (top, face),
        (top + face, face),
        (top + 2 * face, mouth),
        (top + 2 * face + mouth, mouth),
    )
    lines = []
    for name, sheet in sheets:
        tiles = []
        for column in columns:
            left = LABEL_WIDTH + column * (FACE_TILE[1] + GAP)
            if left + FACE_TILE[1] > sheet.shape[1]:
                continue
            for start, height in bands:
                tile = sheet[start : start + height, left : left + FACE_TILE[1] + GAP]
                tiles.append(
                    np.pad(tile, ((0, face - height), (0, 0), (0, 0)), constant_values=GREY)
                )
        lines.append(np.hstack([_label(name, face), *tiles]))
    width = max(line.shape[1] for line in lines)
    return np.vstack(
        [np.pad(v, ((0, 0), (0, width - v.shape[1]), (0, 0)), constant_values=GREY) for v in lines]
    )


def picture_rows(rows: Sequence[tuple[str, Sequence[Picture]]], titles: Sequence[str]) -> Picture:
    """A sheet of finished tiles: rows (label, pictures), of one size within a row, and one title
    per column.

    Returns:
        [H, W, 3] uint8 RGB.
    """
    width = max(tile.shape[1] for _, tiles in rows for tile in tiles) + GAP
    lines = [
        np.hstack([_text("", _HEADER, LABEL_WIDTH, 0)]
                  + [_text(title, _HEADER, width, _HEADER - 6) for title in titles])
    ]  # fmt: skip
    for label, tiles in rows:
        height = tiles[0].shape[0] + GAP
        padded = [
            np.pad(t, ((0, GAP), (0, width - t.shape[1]), (0, 0)), constant_values=GREY)
            for t in tiles
        ]
        lines.append(np.hstack([_label(label, height), *padded]))
    return np.vstack(lines)


def save_png(path: str | Path, picture: Picture) -> None:
    """Write [H, W, 3] uint8 RGB as PNG by atomic rename.

    Raises:
        OutputUnwritable, DiskFull: see `save_bytes`.
    """
    _, png = cv2.imencode(".png", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))
    save_bytes(path, png.tobytes())


_HEADER = 20  # px


def _moments(videos: Sequence[str | Path], frames: int) -> list[int]:
    if frames < 1:
        raise ValueError(f"frames has to be at least 1, not {frames}")
    counts = []
    for video in videos:
        with VideoReader(video) as reader:
            counts.append(reader.index.count)
    last = min(counts) - 1
    return sorted({round(k) for k in np.linspace(0, last, frames + 2)[1:-1]})


def _pictures(video: str | Path, shown: list[int]) -> list[Picture]:
    with VideoReader(video) as reader:
        return [frame.rgb() for frame in reader.read_indices(shown)]


def _places(picture: Picture, detector: FaceDetector, mesher: FaceMesher) -> tuple[Square, Square]:
    """Where the largest face and its mouth lie; the whole frame without one."""
    height, width = picture.shape[:2]
    whole = (width / 2, height / 2, float(max(width, height)))
    boxes = sorted(detector.detect(picture), key=lambda b: -b.side)
    points = mesher.landmarks(picture, boxes[0]) if boxes else None
    if points is None:
        return whole, whole
    oval, lips = landmark_box(points[list(FACE_OVAL)]), landmark_box(points[list(LIPS)])
    face = ((oval.x0 + oval.x1) / 2, (oval.y0 + oval.y1) / 2, oval.side * FACE_ROOM)
    # a mouth tile is as wide for a closed mouth as for an open one
    mouth_width = max(lips.x1 - lips.x0, 0.32 * oval.side) * MOUTH_ROOM
    return face, ((lips.x0 + lips.x1) / 2, (lips.y0 + lips.y1) / 2, mouth_width)


def _tile(picture: Picture, place: Square, size: tuple[int, int]) -> Picture:
    x, y, wide = place
    height, width = size
    scale = width / wide
    if scale < 0.5:  # average first: bilinear taps alone would alias
        shrink = 2 * scale
        target = (
            max(round(picture.shape[1] * shrink), 1),
            max(round(picture.shape[0] * shrink), 1),
        )
        picture = cv2.resize(picture, target, interpolation=cv2.INTER_AREA).astype(np.uint8)
        x, y, scale = x * shrink, y * shrink, 0.5
    matrix = np.array(
        [[scale, 0, width / 2 - scale * x], [0, scale, height / 2 - scale * y]], np.float64
    )
    out = cv2.warpAffine(
        picture, matrix, (width, height), flags=cv2.INTER_LINEAR, borderValue=(GREY,) * 3
    )
    return out.astype(np.uint8)


def _row(
    name: str, pictures: list[Picture], places: list[Square], size: tuple[int, int]
) -> Picture:
    tiles = [
        np.pad(_tile(p, at, size), ((0, GAP), (0, GAP), (0, 0)), constant_values=GREY)
        for p, at in zip(pictures, places, strict=True)
    ]
    return np.hstack([_label(name, size[0] + GAP), *tiles])


def _header(names: list[str]) -> Picture:
    cells = [_text(name, _HEADER, FACE_TILE[1] + GAP, _HEADER - 6) for name in names]
    return np.hstack([_text("", _HEADER, LABEL_WIDTH, 0), *cells])


def _label(name: str, height: int) -> Picture:
    return _text(name, height, LABEL_WIDTH, height // 2)


def _text(text: str, height: int, width: int, baseline: int) -> Picture:
    cell = np.full((height, width, 3), GREY, np.uint8)
    if text:
        cv2.putText(cell, text, (4, baseline), cv2.FONT_HERSHEY_SIMPLEX, 0.4, (235,) * 3, 1,
                    cv2.LINE_AA)  # fmt: skip
    return cell
