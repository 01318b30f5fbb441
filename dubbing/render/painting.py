"""Drawing a frame's lower face at its own resolution: pixels copied, repaired, lit and blended."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from dubbing.models.renderer import Renderer, sample_pixels
from dubbing.render.compose import match_colour
from dubbing.render.copying import PixelCopier, PixelGrid, Sources, sample
from dubbing.render.pictures import FacePicture, to_tensor
from dubbing.render.precision import fast_convolutions
from dubbing.render.scene import (
    LIP_WINDOW,
    WINDOW,
    TargetMaps,
    cut,
    mouth_latent,
    put,
)

MIN_ALPHA = 1 / 512  # below half a code value a blend shows nothing


@dataclass(frozen=True)
class Patch:
    """A rendered piece of a frame: rgb [h, w, 3] float32 0..255, alpha [h, w] float32 0..1, and
    its top-left corner x, y."""

    rgb: NDArray[np.float32]
    alpha: NDArray[np.float32]
    x: int
    y: int


@dataclass(frozen=True)
class Sketch:
    """What is known of a lower face before a pixel is copied.

    Attributes:
        window: [3] of the target, on the CPU.
        maps: of the target, with the mask of what is to be replaced.
        corner: [1, 2] (y, x) of the lip window in the window.
        face, mouth: where the texture comes from, outside the mouth and inside.
        moved: [1, 1, 144, 192] window pixels between source and target geometry.
    """

    window: Tensor
    maps: TargetMaps
    corner: Tensor
    face: Sources
    mouth: Sources
    moved: Tensor


class Painter:
    """Draws sketches with the pixels of their references.

    Args:
        renderer: on the device that draws; of it the decoder is used.

    Attributes:
        repairs: whether the decoder changes something; else it is left out.
    """

    def __init__(self, renderer: Renderer):
        self.repairs = renderer.decoder.changes_something()
        self._decoder = renderer.decoder
        self._device = next(renderer.parameters()).device
        self._copier = PixelCopier(renderer.config.blur)

    def paint(self, frame: FacePicture, sketch: Sketch, strength: float) -> Patch:
        """The lower face of `frame`, its weight against the source times `strength`."""
        maps, corner = sketch.maps, sketch.corner
        x0, y0, width, height = _mask_rect(maps.mask[0, 0], sketch.window, frame)
        if width == 0 or height == 0:
            return Patch(np.zeros((0, 0, 3), np.float32), np.zeros((0, 0), np.float32), 0, 0)
        grid = PixelGrid.of(x0, y0, width, height, sketch.window, self._device)
        lips = put(cut(maps.lips, corner, LIP_WINDOW), corner, WINDOW)
        plain = sample(torch.cat([maps.mask, lips, sketch.moved], 1), grid)
        mask, lip_weight, moved = plain[:1], plain[1:2], plain[2:3]
        made = self._copier.copy(sketch.face, maps.mask, grid, mask[0])
        self._add_mouth(made, sketch, grid, lip_weight)
        left, top = x0 - frame.origin[0], y0 - frame.origin[1]
        source = to_tensor(frame.pixels[top : top + height, left : left + width], self._device)[0]
        made = match_colour(made.clamp(0, 1), source, mask, moved)
        alpha = mask[0] * strength
        alpha = torch.where(alpha < MIN_ALPHA, 0.0, alpha)
        drawn = torch.cat([made * 255, alpha[None]]).cpu()  # in one copy
        rgb = drawn[:3].permute(1, 2, 0).contiguous()
        return Patch(rgb.numpy(), drawn[3].numpy(), x0, y0)

    def _add_mouth(self, made: Tensor, sketch: Sketch, grid: PixelGrid, lip_weight: Tensor) -> None:
        """Draw the mouth into `made` [3, H, W] where `lip_weight` [1, H, W] counts."""
        rect = _inner_rect(lip_weight[0])
        if rect is None:
            return
        top, bottom, left, right = rect
        part = grid.part(top, bottom, left, right, sketch.corner[0])
        inside = cut(sketch.maps.lips, sketch.corner, LIP_WINDOW)
        weight = lip_weight[:, top:bottom, left:right]
        area = made[:, top:bottom, left:right]
        area += (self._copier.copy(sketch.mouth, inside, part, weight[0]) - area) * weight
        if self.repairs:
            area += self._repair(sketch, inside, made, grid, part) * weight

    def _repair(
        self, sketch: Sketch, inside: Tensor, copied: Tensor, grid: PixelGrid, part: PixelGrid
    ) -> Tensor:
        """The decoder's correction of the mouth, computed on the lip window, whose lip mask is
        `inside`, and enlarged to the native pixels `part` of it; `copied` [3, H, W] lies on `grid`
        of the window."""
        corner = sketch.corner
        found = sketch.face.found.value, sketch.mouth.found.value
        latent = mouth_latent(*found, inside, corner)
        pncc = cut(sketch.maps.pncc, corner, LIP_WINDOW)
        seen = _to_window(copied, grid.places() - corner[0].flip(0), LIP_WINDOW)
        with fast_convolutions(self._device):
            correction = self._decoder(latent, pncc, seen).float()
        return sample(correction, part)


def _to_window(copied: Tensor, grid: Tensor, size: tuple[int, int]) -> Tensor:
    """Native pixels [3, H, W] at window places `grid` on the window's own pixels [1, 3, h, w],
    outside by their border."""
    h, w = size
    first, last = grid[0, 0], grid[-1, -1]
    step = (last - first) / grid.new_tensor([max(grid.shape[1] - 1, 1), max(grid.shape[0] - 1, 1)])
    picture = copied[None]
    factor = int(1 / float(step.mean())) if float(step.mean()) < 0.67 else 1
    if factor > 1:  # average before taking fewer pixels
        picture = F.avg_pool2d(picture, factor, ceil_mode=True, count_include_pad=False)
    y = torch.arange(h, device=grid.device).add(0.5).sub(first[1]).div(step[1]).add(0.5)
    x = torch.arange(w, device=grid.device).add(0.5).sub(first[0]).div(step[0]).add(0.5)
    place = torch.stack([x.expand(h, w), y[:, None].expand(h, w)], -1) / factor
    return sample_pixels(picture[None], place[None, None])[0]


def _mask_rect(mask: Tensor, window: Tensor, frame: FacePicture) -> tuple[int, int, int, int]:
    """Rectangle (x, y, width, height) of frame pixels where the mask counts."""
    rect = _inner_rect(mask)
    if rect is None:
        return 0, 0, 0, 0
    top, bottom, left, right = rect
    x, y, scale = (float(v) for v in window)
    height, width = frame.pixels.shape[:2]
    x0 = max(int(np.floor(x + (left - 1) * scale)), frame.origin[0])
    y0 = max(int(np.floor(y + (top - 1) * scale)), frame.origin[1])
    x1 = min(int(np.ceil(x + (right + 1) * scale)), frame.origin[0] + width)
    y1 = min(int(np.ceil(y + (bottom + 1) * scale)), frame.origin[1] + height)
    return x0, y0, max(x1 - x0, 0), max(y1 - y0, 0)


def _inner_rect(weight: Tensor) -> tuple[int, int, int, int] | None:
    """(top, bottom, left, right) of the part of [h, w] above zero, None where there is none."""
    seen = weight > MIN_ALPHA
    both = torch.cat([seen.any(1), seen.any(0)]).cpu()
    rows, columns = (b.nonzero()[:, 0] for b in both.split_with_sizes(list(seen.shape)))
    if len(rows) == 0:
        return None
    return int(rows[0]), int(rows[-1]) + 1, int(columns[0]), int(columns[-1]) + 1
