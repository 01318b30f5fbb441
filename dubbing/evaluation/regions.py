"""Parts of a face crop in which pictures are compared, from the tracked mesh of the truth."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from dubbing.geometry.morphable import MorphableModel
from dubbing.geometry.raster import Raster, rasterize
from dubbing.geometry.topology import CHIN, LIPS, SUBNASALE

CROP = 256  # px, side of the face crop; the face is about 170 high
UNDER_CHIN = 8  # px of the crop by which the lower face is widened: jaw line and shadow below it
INSIDE = 9  # px from the border of the lower face to what no compositing needs of the source
CHEEKS = (214, 434)  # vertices beside the mouth
CHEEK_SIDE = 0.34  # of the distance from nose to chin
MOUTH_ROOM = 0.12  # of the lips' width, around their box

Mask = NDArray[np.bool_]
Points = NDArray[np.float32]


@dataclass(frozen=True)
class Regions:
    """Parts of one crop [256, 256].

    Attributes:
        lower: the lower face with a strip under the chin; hidden: what of it lies so far inside
            that its pixels of the source must not be needed; lips: lips and mouth;
        mouth: (top, bottom, left, right) of the box around the lips; cheeks: two squares beside
            the mouth, as far as they lie in the lower face.
    """

    lower: Mask
    hidden: Mask
    lips: Mask
    mouth: tuple[int, int, int, int]
    cheeks: Mask


def regions_of(model: MorphableModel, points: Points) -> Regions:
    """Regions of a face.

    Args:
        model: on the CPU.
        points: [V, >=3] vertices in pixels of the crop.
    """
    raster = face_raster(model, points)
    weight = raster.interpolate(model.lower[:, None])[0, 0].numpy()
    low = weight > 0.5
    lower = _widened(low, UNDER_CHIN)
    lower[: round(float(points[SUBNASALE, 1]))] &= low[: round(float(points[SUBNASALE, 1]))]
    sure = (weight > 0.98).astype(np.uint8)
    hidden = cv2.erode(sure, _disc(INSIDE), borderValue=0).astype(bool)
    hull = cv2.convexHull(np.rint(points[list(LIPS), :2]).astype(np.int32))
    lips = np.zeros((CROP, CROP), np.uint8)
    cv2.fillConvexPoly(lips, hull, 1)
    cheeks = np.zeros((CROP, CROP), bool)
    half = CHEEK_SIDE / 2 * float(np.linalg.norm(points[CHIN, :2] - points[SUBNASALE, :2]))
    for vertex in CHEEKS:
        x, y = points[vertex, :2]
        top, bottom, left, right = _cut(y - half, y + half, x - half, x + half)
        cheeks[top:bottom, left:right] = True
    return Regions(lower, hidden, lips.astype(bool), _mouth_box(points), cheeks & low)


def face_raster(model: MorphableModel, points: Points) -> Raster:
    """A face and the inside of its mouth, drawn from vertices [V, >=3] in pixels of the crop."""
    triangles = torch.cat([model.triangles, model.mouth])
    return rasterize(torch.from_numpy(points[None, :, :3].copy()), triangles, (CROP, CROP))


def _mouth_box(points: Points) -> tuple[int, int, int, int]:
    lips = points[list(LIPS), :2]
    low, high = lips.min(0), lips.max(0)
    room = MOUTH_ROOM * float(high[0] - low[0])
    return _cut(low[1] - room, high[1] + room, low[0] - room, high[0] + room)


def _cut(top: float, bottom: float, left: float, right: float) -> tuple[int, int, int, int]:
    values = np.rint([top, bottom, left, right]).clip(0, CROP).astype(int)
    return int(values[0]), int(values[1]), int(values[2]), int(values[3])


def _widened(mask: Mask, reach: int) -> Mask:
    return cv2.dilate(mask.astype(np.uint8), _disc(reach)).astype(bool)


def _disc(reach: int) -> NDArray[np.uint8]:
    side = 2 * reach + 1
    return cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (side, side)).astype(np.uint8)
