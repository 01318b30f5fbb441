"""Copying texture from references at the frame's own pixels (ours; see `copy_pixels`).

Attention is computed on the window's grid; the pixels are read from the references at the
resolution of the frame, so that a large face is not a small picture enlarged.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from dubbing.models.attention import Attended
from dubbing.models.renderer import Correspondence, Priors, mix, sample_pixels
from dubbing.render.copying_cpu import add_coarse, add_detail, enlarge, shares
from dubbing.render.scene import FaceStates

MAX_COARSE = 8  # references whose coarse band is mixed, and
MAX_DETAIL = 4  # references whose detail is copied; the weights of the others are next to nothing
MIN_SHARE = 1e-3  # of the attention: a reference with less is left out
MAX_KEPT = 12  # details kept at a time: they are four times the size of their pictures


@dataclass(frozen=True)
class Reference:
    """A reference: its picture on the device, where it lies on the CPU.

    Attributes:
        coarse: [3, 144, 192] its window without detail, 0..1.
        pixels: [H, W, 3] uint8; origin: [2] (x, y) of them in the frame, on the CPU.
        offset: [V + R, 2] registration of the geometry, in window pixels, on the CPU.
        states: registered geometry, on the CPU.
        texture: [1, 1, D, h/4, w/4] latents; D = 0 where nobody reads them.
    """

    coarse: Tensor
    pixels: NDArray[np.uint8]
    origin: Tensor
    offset: Tensor
    states: FaceStates
    texture: Tensor


@dataclass(frozen=True)
class Sources:
    """References, where the target lies in them, and how much attention each gets from a head."""

    references: list[Reference]
    match: Correspondence
    found: Attended
    head: Priors


@dataclass(frozen=True)
class PixelGrid:
    """A rectangle of frame pixels on the window's grid: columns x [W] and rows y [H], in window
    pixels with centres at +0.5."""

    x: Tensor
    y: Tensor

    @classmethod
    def of(
        cls, x0: int, y0: int, width: int, height: int, window: Tensor,
        device: torch.device | str = "cpu",
    ) -> PixelGrid:  # fmt: skip
        """Frame pixels from (x0, y0) on, for a window [3] (left, top, scale) on the CPU."""
        x = torch.arange(x0, x0 + width, device=device).add(0.5).sub(window[0]).div(window[2])
        y = torch.arange(y0, y0 + height, device=device).add(0.5).sub(window[1]).div(window[2])
        return cls(x, y)

    def part(self, top: int, bottom: int, left: int, right: int, corner: Tensor) -> PixelGrid:
        """Some rows and columns, on the grid of a part of the window at corner [2] (y, x)."""
        return PixelGrid(self.x[left:right] - corner[1], self.y[top:bottom] - corner[0])

    def places(self) -> Tensor:
        """[H, W, 2] (x, y)."""
        shape = (len(self.y), len(self.x))
        return torch.stack([self.x.expand(shape), self.y[:, None].expand(shape)], -1)


def sample(maps: Tensor, grid: PixelGrid) -> Tensor:
    """Bilinear maps [1, C, h, w] at the pixels of a grid: [C, H, W]."""
    height, width = maps.shape[-2:]
    places = PixelGrid(grid.x * 2 / width - 1, grid.y * 2 / height - 1).places()
    return F.grid_sample(maps, places[None], padding_mode="border", align_corners=False)[0]


class PixelCopier:
    """Copies in two bands: of the coarse one the attention-weighted mean of the references, of the
    detail about one reference.

    Args:
        blur: window pixels; what is finer is detail.
    """

    def __init__(self, blur: float):
        self.blur = blur
        self._details: OrderedDict[int, tuple[Reference, Tensor]] = OrderedDict()

    def copy(self, sources: Sources, seen: Tensor, grid: PixelGrid, shown: Tensor) -> Tensor:
        """What the references show at the pixels of a grid.

        Args:
            seen: [1, 1, h, w] above 0 on the window's grid where the result will count.
            shown: [H, W] the same at the pixels; elsewhere detail may be missing.

        Returns:
            [3, H, W] in about 0..1.
        """
        logits, place = sources.found.reference_logits, sources.match.place
        best, index = _strongest(logits, seen, MAX_COARSE)
        references = [sources.references[k] for k in best]
        logits, place = logits[:, index], place[:, index]
        sharp = logits * sources.head.detail_sharpness
        finest, index = _strongest(sharp, seen, MAX_DETAIL)
        copied = self._copy_arrays if logits.device.type == "cpu" else self._copy_tensors
        return copied(references, logits, place, sharp[:, index], finest, grid, shown)

    def _copy_tensors(
        self, references: list[Reference], logits: Tensor, place: Tensor, sharp: Tensor,
        finest: list[int], grid: PixelGrid, shown: Tensor,
    ) -> Tensor:  # fmt: skip
        """On any device; `sharp` are logits of the references `finest`, whose detail is copied."""
        coarse = sample_pixels(torch.stack([r.coarse for r in references])[None], place)
        out = sample(mix(coarse, logits), grid)
        weights = sample(sharp, grid).softmax(0)
        read = torch.stack([place[0, k] for k in finest])
        places = sample(read.permute(0, 3, 1, 2).flatten(0, 1)[None], grid)
        places = places.view(len(finest), 2, *places.shape[1:]).permute(0, 2, 3, 1)
        for k, weight, found in zip(finest, weights, places, strict=True):
            scale, shift = _into_pixels(references[k])
            detail = self._detail(references[k]).permute(2, 0, 1)
            there = torch.stack([found[..., i] * scale + shift[i] for i in (0, 1)], -1)
            out += sample_pixels(detail[None, None], there[None, None], "bicubic")[0, 0] * weight
        return out

    def _copy_arrays(
        self, references: list[Reference], logits: Tensor, place: Tensor, sharp: Tensor,
        finest: list[int], grid: PixelGrid, shown: Tensor,
    ) -> Tensor:  # fmt: skip
        """The same on the CPU, without what does not count."""
        places, xs, ys = place[0].contiguous().numpy(), grid.x.numpy(), grid.y.numpy()
        mixed = np.zeros((*places.shape[1:3], 3), np.float32)
        for reference, there, weight in zip(
            references, places, logits[0].softmax(0).numpy(), strict=True
        ):
            add_coarse(mixed, reference.coarse.numpy(), there, weight)
        out = enlarge(mixed, xs, ys)
        weights = shares(sharp[0].contiguous().numpy(), xs, ys)
        counts = shown.contiguous().numpy()
        for k, weight in zip(finest, weights, strict=True):
            scale, shift = _into_pixels(references[k])
            detail = self._detail(references[k]).flatten(1).numpy()
            add_detail(
                out, counts, weight, places[k], xs, ys, detail, np.float32(scale), *shift.numpy()
            )  # fmt: skip
        return torch.from_numpy(out).permute(2, 0, 1).contiguous()

    def _detail(self, reference: Reference) -> Tensor:
        """What a reference's coarse band lacks: [H, W, 3] in the frame's own pixels, on the
        device."""
        key = id(reference)
        if key not in self._details:
            full = reference.pixels.astype(np.float32) / np.float32(255)
            sigma = self.blur * max(float(reference.states.window[0, 2]), 0.5)
            low = cv2.GaussianBlur(full, (0, 0), sigma, borderType=cv2.BORDER_REPLICATE)
            fine = torch.from_numpy(full - low).to(reference.coarse)
            self._details[key] = (reference, fine)
            while len(self._details) > MAX_KEPT:
                self._details.popitem(last=False)
        self._details.move_to_end(key)
        return self._details[key][1]


def _into_pixels(reference: Reference) -> tuple[Tensor, Tensor]:
    """Scale and shift [2], on the CPU, from places in a reference's window to pixels of its stored
    picture."""
    window = reference.states.window[0]
    return window[2], window[:2] - reference.origin


def _strongest(logits: Tensor, weight: Tensor, count: int) -> tuple[list[int], Tensor]:
    """Indices of at most `count` references with the greatest share of attention where `weight`
    [1, 1, h, w] counts, as numbers and on the device; the others' shares are too small to be
    seen."""
    share = (logits.softmax(1) * weight).sum((0, 2, 3))
    most = share.topk(min(count, len(share)))
    counts = most.values > MIN_SHARE * share.sum()
    indices, seen = torch.stack([most.indices, counts.long()]).tolist()  # one copy tells both
    kept = max(sum(seen), 1)
    return indices[:kept], most.indices[:kept]
