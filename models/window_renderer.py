"""Stage 2 as one graph: references, maps and correspondence of a window in, its picture out.

The renderer's training and its ONNX file run this. The engine itself computes the same in parts
(`dubbing.render.session`), because it encodes references once and copies pixels at the resolution
of the frame.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .attention import Attended
from .renderer import STRIDE, Correspondence, Priors, Renderer, blurred, copy_pixels, sample_pixels


class WindowRenderer(nn.Module):
    """The whole renderer on B windows with N references each.

    Face-Attention reads all of the references, Lip-Attention the last L. The sizes of the window
    (h, w) and of the lip window in it (p, q) are multiples of 4.
    """

    def __init__(self, renderer: Renderer):
        super().__init__()
        self.renderer = renderer

    def forward(
        self, pictures: Tensor, lip_pncc: Tensor, pncc: Tensor, lips: Tensor, corner: Tensor,
        face_match: Correspondence, lip_match: Correspondence,
    ) -> tuple[Tensor, Tensor]:  # fmt: skip
        """The rendered windows and, before the decoder's repair, the copied ones: [B, 3, h, w].

        Args:
            pictures: [B, N, 3, h, w] references, RGB in 0..1; lip_pncc: [B, L, 3, h, w] maps of
                the last L.
            pncc: [B, 3, h, w] target maps; lips: [B, 1, h, w] in 0..1, where Lip-Attention counts.
            corner: [B, 2] int64 (y, x) of the lip window in the window, multiples of 4.
            face_match: of [h, w] pixels in N references; lip_match: of [p, q] pixels in L.
        """
        r = self.renderer
        count, size, part = lip_pncc.shape[1], pncc.shape[-2:], lip_match.place.shape[2:4]
        # by index and not as a slice, which would tie N to L in an exported graph
        last = torch.arange(count, device=pncc.device) + (pictures.shape[1] - count)
        texture = r.encode_textures(pictures)
        known = r.lip_references(texture.index_select(1, last), lip_pncc)
        lip_tokens = (part[0] // STRIDE, part[1] // STRIDE)
        geometry = cut_part(r.encode_target(pncc), corner // STRIDE, lip_tokens)
        mouth_pncc, weight = cut_part(pncc, corner, part), cut_part(lips, corner, part)
        by_face = r.face(texture, face_match)
        by_lips = r.lip(geometry, mouth_pncc, known, lip_match)
        low = blurred(pictures.flatten(0, 1), r.config.blur).view_as(pictures)
        detail = pictures - low
        face_copy = _copy(low, detail, face_match, by_face, r.face)
        low, detail = low.index_select(1, last), detail.index_select(1, last)
        mouth = cut_part(face_copy, corner, part)
        mouth = mouth + (_copy(low, detail, lip_match, by_lips, r.lip) - mouth) * weight
        around = cut_part(by_face.value, corner // STRIDE, lip_tokens)
        latent = around + (by_lips.value - around) * F.avg_pool2d(weight, STRIDE)
        correction = r.decoder(latent, mouth_pncc, mouth) * weight
        inside = put_part(torch.ones_like(weight), corner, size)
        copied = face_copy * (1 - inside) + put_part(mouth, corner, size)
        return copied + put_part(correction, corner, size), copied


def _copy(
    low: Tensor, detail: Tensor, match: Correspondence, found: Attended, head: Priors
) -> Tensor:
    return copy_pixels(
        sample_pixels(low, match.place),
        sample_pixels(detail, match.place, "bicubic"),
        found.reference_logits,
        head.detail_sharpness,
    )


def cut_part(maps: Tensor, corner: Tensor, size: Sequence[int]) -> Tensor:
    """Parts [B, C, p, q] of maps [B, C, h, w] at corners [B, 2] (y, x), which are never read on
    the host: the result can be exported, and a GPU does not wait."""
    y = corner[:, :1] + torch.arange(size[0], device=maps.device)
    x = corner[:, 1:] + torch.arange(size[1], device=maps.device)
    index = (y[:, :, None] * maps.shape[-1] + x[:, None]).flatten(1)[:, None]
    found = maps.flatten(2).gather(2, index.expand(-1, maps.shape[1], -1))
    return torch.unflatten(found, 2, (size[0], size[1]))


def put_part(part: Tensor, corner: Tensor, size: Sequence[int]) -> Tensor:
    """The inverse of `cut_part` on a canvas of zeros [B, C, h, w]."""
    height, width = part.shape[-2:]
    y = torch.arange(size[0], device=part.device) - corner[:, :1]
    x = torch.arange(size[1], device=part.device) - corner[:, 1:]
    there = ((y >= 0) & (y < height))[:, :, None] & ((x >= 0) & (x < width))[:, None]
    index = y.clamp(0, height - 1)[:, :, None] * width + x.clamp(0, width - 1)[:, None]
    found = part.flatten(2).gather(2, index.flatten(1)[:, None].expand(-1, part.shape[1], -1))
    return torch.unflatten(found, 2, (size[0], size[1])) * there[:, None]
