"""The simplest way to move a mouth: paste another frame's lower face, warped by the mesh.

Nothing is learned. It is a baseline: whoever does worse than this need not have trained.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt
from torch import Tensor

from dubbing.geometry.morphable import MorphableModel
from dubbing.geometry.raster import rasterize
from dubbing.geometry.topology import LIPS

FEATHER = 0.015  # of the face's height: standard deviation of the border's blur


Rect = tuple[int, int, int, int]
"""x, y, width, height in pixels of the frame"""


@dataclass(frozen=True)
class Warped:
    """A face on another's geometry: rgb [h, w, 3] uint8, alpha [h, w] 0..1 that blends its lower
    part in, and its corner x, y in the frame."""

    rgb: NDArray[np.uint8]
    alpha: NDArray[np.float32]
    x: int
    y: int


def nearest_by_lips(target: Tensor, others: Tensor) -> int:
    """Which of the expressions [N, V, 3] has the lips nearest to those of `target` [V, 3]."""
    lips = list(LIPS)
    return int((others[:, lips] - target[lips]).square().sum((1, 2)).argmin())


def lower_rect(model: MorphableModel, target: Tensor, size: tuple[int, int]) -> Rect:
    """The lower face of vertices [V, 3] as whole pixels of a frame of `size` (width, height)."""
    part = target[model.lower > 0][:, :2]
    x0, y0 = (max(int(v) - 2, 0) for v in part.amin(0).tolist())
    x1, y1 = (min(int(v) + 3, limit) for v, limit in zip(part.amax(0).tolist(), size, strict=True))
    return x0, y0, max(x1 - x0, 0), max(y1 - y0, 0)


def warp_face(
    model: MorphableModel,
    target: Tensor,
    reference: Tensor,
    pixels: NDArray[np.uint8],
    origin: tuple[int, int],
    rect: Rect,
) -> Warped:
    """A reference's face on the mesh of a target.

    Outside of the mesh the correspondence is that of the nearest point of the mesh; alpha is zero
    there.

    Args:
        model: on the CPU.
        target, reference: [V, 3] vertices in the pixels of their frames.
        pixels: [H, W, 3] part of the reference's frame that starts at `origin` (x, y).
        rect: part of the target's frame to make, e.g. `lower_rect`.
    """
    x0, y0, width, height = rect
    triangles = torch.cat([model.triangles, model.mouth])
    moved = target - target.new_tensor([x0, y0, 0.0])
    if width < 4 or height < 4:
        return Warped(np.zeros((0, 0, 3), np.uint8), np.zeros((0, 0), np.float32), x0, y0)
    raster = rasterize(moved[None], triangles, (height, width))
    attributes = torch.cat([reference[:, :2] - moved[:, :2], model.lower[:, None]], 1)
    maps = raster.interpolate(attributes)[0].numpy()
    covered = raster.covered[0].numpy()
    if not covered.any():
        return Warped(np.zeros((0, 0, 3), np.uint8), np.zeros((0, 0), np.float32), x0, y0)
    nearest = distance_transform_edt(~covered, return_distances=False, return_indices=True)
    shift = maps[:2, nearest[0], nearest[1]]
    rows, columns = np.mgrid[0:height, 0:width].astype(np.float32)
    place_x, place_y = columns + shift[0] - origin[0], rows + shift[1] - origin[1]
    rgb = cv2.remap(
        pixels, place_x.astype(np.float32), place_y.astype(np.float32), cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_REPLICATE,
    )  # fmt: skip
    tall = float(target[:, 1].amax() - target[:, 1].amin())
    soft = cv2.GaussianBlur(
        maps[2], (0, 0), max(FEATHER * tall, 0.8), borderType=cv2.BORDER_CONSTANT
    )
    alpha = (np.clip(2 * soft - 1, 0, 1) * covered).astype(np.float32)
    return Warped(rgb.astype(np.uint8), alpha, x0, y0)


def paste(picture: NDArray[np.uint8], part: Warped) -> NDArray[np.uint8]:
    """A new picture [H, W, 3] with the warped face blended in, as far as it lies inside."""
    out = picture.copy()
    height, width = part.alpha.shape
    top, left = max(-part.y, 0), max(-part.x, 0)
    bottom, right = min(height, len(out) - part.y), min(width, out.shape[1] - part.x)
    if top >= bottom or left >= right:
        return out
    area = out[part.y + top : part.y + bottom, part.x + left : part.x + right]
    share = part.alpha[top:bottom, left:right, None]
    rgb = part.rgb[top:bottom, left:right].astype(np.float32)
    area[...] = np.rint(area + (rgb - area) * share).astype(np.uint8)
    return out
