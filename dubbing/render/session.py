"""Stage 2 at work: one speaker's frames rendered with new geometry, at the frame's own resolution.

Attention runs in the window's scale; the pixels are copied from the references at the resolution
of the frame, so that a large face is not a small picture enlarged.
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

from dubbing.geometry.morphable import MorphableModel
from dubbing.geometry.pose import apply_pose
from dubbing.models.attention import Attended
from dubbing.models.renderer import (
    Correspondence,
    GuidedHead,
    ReferenceLatents,
    Renderer,
    blurred,
    mix,
    sample_pixels,
)
from dubbing.render.compose import match_colour
from dubbing.render.mesh import RenderMesh, extended_vertices
from dubbing.render.scene import (
    LIP_WINDOW,
    WINDOW,
    FaceStates,
    TargetMaps,
    correspond,
    cut,
    face_states,
    face_windows,
    lip_corner,
    part_of,
    put,
    reference_maps,
    target_maps,
)
from dubbing.render.window import cut_window

MAX_COPIED = 8  # lip references whose pixels are copied; attention itself sees all of them
APART = 0.7  # logit per frame of distance: of face references that fit alike the nearest in time
# is preferred, whose light and pose are the frame's own
MIN_ALPHA = 1 / 512  # below half a code value a blend shows nothing


@dataclass(frozen=True)
class FacePicture:
    """A frame's pixels around the face and its tracked geometry.

    Attributes:
        pixels: [H, W, 3] uint8 RGB region of the frame; origin: its (x, y) there.
        beta: [E] tracked expression; pose: [6] in frame pixels.
    """

    pixels: NDArray[np.uint8]
    origin: tuple[int, int]
    beta: Tensor
    pose: Tensor


@dataclass(frozen=True)
class Patch:
    """A rendered piece of a frame: rgb [h, w, 3] float32 0..255, alpha [h, w] float32 0..1, and
    its top-left corner x, y."""

    rgb: NDArray[np.float32]
    alpha: NDArray[np.float32]
    x: int
    y: int


@dataclass(frozen=True)
class _Reference:
    """A reference on the device.

    Attributes:
        coarse: [3, 144, 192] its window without detail, 0..1.
        detail: [3, H, W] what the coarse band lacks, in the frame's own pixels.
        origin: [2] (x, y) of `detail` in the frame.
    """

    coarse: Tensor
    detail: Tensor
    origin: Tensor
    states: FaceStates
    latents: ReferenceLatents


class RenderSession:
    """Renders frames of one speaker.

    Args:
        renderer, model, mesh: on the same device.
        template: [V, 3] the speaker's neutral face.
        lip_references: the persona's reference bank, fixed for the whole clip.
    """

    def __init__(
        self,
        renderer: Renderer,
        model: MorphableModel,
        mesh: RenderMesh,
        template: Tensor,
        lip_references: list[FacePicture],
    ):
        self.renderer, self.model, self.mesh, self.template = renderer, model, mesh, template
        self.device = model.mean.device
        self._cache: OrderedDict[int, _Reference] = OrderedDict()
        bank = [self._encode(picture, lips_only=True) for picture in lip_references]
        self._lips = bank
        self._lip_states = _join([r.states for r in bank])
        self._lip_latents = _join_latents([r.latents for r in bank])

    @torch.inference_mode()
    def render(
        self,
        key: int,
        frame: FacePicture,
        displacement: Tensor,
        references: list[tuple[int, FacePicture]],
        strength: float = 1.0,
    ) -> Patch:
        """The lower face of `frame` with new geometry.

        Args:
            key: the frame's number.
            displacement: [V, 3] target displacement from the template (canonical).
            references: the face references (paper: the five frames centred on this one) with
                their numbers, under which their encodings are kept while they stay in use.
            strength: 0..1 weight of the result against the source (eases transitions).
        """
        face = [self._reference(number, picture) for number, picture in references]
        while len(self._cache) > 2 * len(references):
            self._cache.popitem(last=False)
        pose = frame.pose[None].to(self.device)
        moved = displacement[None].to(self.device)
        target = self._states(moved, pose)
        maps = target_maps(self.mesh, target)
        corner = lip_corner(self.mesh, target, pose)
        face_states_ = _join([r.states for r in face])
        match = correspond(maps.raster, target, face_states_, len(face))
        lip_match = correspond(
            part_of(maps.raster, corner, LIP_WINDOW), target, self._lip_states, len(self._lips),
            corner,
        )  # fmt: skip
        latents = _join_latents([r.latents for r in face])
        by_face, by_lips = self._attend(maps, corner, latents, match, lip_match)
        apart = torch.tensor([abs(number - key) for number, _ in references], device=self.device)
        nearness = -APART * apart[:, None, None]
        by_face = Attended(by_face.value, by_face.reference_logits + nearness)
        source = self._tracked(frame)
        drift = self._drift(maps, target, source)
        return self._compose(
            frame, target, maps, corner, face, match, lip_match, by_face, by_lips, drift, strength
        )

    def forget(self) -> None:
        """Drop the encoded face references: their keys will be given to other frames."""
        self._cache.clear()

    def _states(self, moved: Tensor, pose: Tensor) -> FaceStates:
        vertices = extended_vertices(self.template + moved, self.template, pose)
        return face_states(vertices, moved, pose, face_windows(self.mesh, pose))

    def _tracked(self, picture: FacePicture) -> FaceStates:
        """The geometry that a picture shows."""
        moved = self.model.expression_vertices(picture.beta[None].to(self.device))
        return self._states(moved, picture.pose[None].to(self.device))

    def _reference(self, key: int, picture: FacePicture) -> _Reference:
        if key not in self._cache:
            self._cache[key] = self._encode(picture, lips_only=False)
        self._cache.move_to_end(key)
        return self._cache[key]

    @torch.inference_mode()
    def _encode(self, picture: FacePicture, lips_only: bool) -> _Reference:
        """Encode one reference; a lip reference keeps only the pixels around the mouth."""
        pose = picture.pose[None].to(self.device)
        states = self._tracked(picture)
        window = states.window[0].cpu().numpy()
        seen = cut_window(picture.pixels, picture.origin, window)
        image = _to_tensor(seen, self.device)
        maps = reference_maps(self.mesh, states)
        latents = self.renderer.encode_references(image[None], maps[None])
        pixels, origin = picture.pixels, picture.origin
        if lips_only:
            mouth = apply_pose(self.mesh.mouth.expand(1, 1, 3), pose)[0, 0, :2].cpu().numpy()
            pixels, origin = _around(picture, mouth, float(window[2]))
        blur = self.renderer.config.blur
        full = pixels.astype(np.float32) / 255
        low = cv2.GaussianBlur(
            full, (0, 0), blur * max(float(window[2]), 0.5), borderType=cv2.BORDER_REPLICATE
        )
        detail = torch.from_numpy(full - low).to(self.device).permute(2, 0, 1).contiguous()
        place = torch.tensor(origin, device=self.device).float()
        return _Reference(blurred(image, blur)[0], detail, place, states, latents)

    def _attend(
        self, maps: TargetMaps, corner: Tensor, latents: ReferenceLatents,
        match: Correspondence, lip_match: Correspondence,
    ) -> tuple[Attended, Attended]:  # fmt: skip
        r = self.renderer
        geometry = r.encode_target(maps.pncc)
        lip_geometry = cut(geometry, corner // 4, (LIP_WINDOW[0] // 4, LIP_WINDOW[1] // 4))
        lip_pncc = cut(maps.pncc, corner, LIP_WINDOW)
        lips = cut(maps.lips, corner, LIP_WINDOW)
        by_face = r.attend(r.face, geometry, maps.pncc, latents, match, maps.mask)
        by_lips = r.attend(r.lip, lip_geometry, lip_pncc, self._lip_latents, lip_match, lips)
        return by_face, by_lips

    def _drift(self, maps: TargetMaps, target: FaceStates, source: FaceStates) -> Tensor:
        """[1, 1, h, w] distance between target and source geometry in window pixels."""
        away = (target.vertices - source.vertices)[..., :2].norm(dim=-1, keepdim=True)
        return maps.raster.interpolate(away / target.window[:, None, 2:])

    def _compose(
        self, frame: FacePicture, target: FaceStates, maps: TargetMaps, corner: Tensor,
        face: list[_Reference], match: Correspondence, lip_match: Correspondence,
        by_face: Attended, by_lips: Attended, drift: Tensor, strength: float,
    ) -> Patch:  # fmt: skip
        """Copy pixels at the frame's resolution, repair, match colours."""
        r = self.renderer
        window = target.window[0]
        lips = put(cut(maps.lips, corner, LIP_WINDOW), corner, WINDOW)
        x0, y0, width, height = _mask_rect(maps.mask[0, 0], window, frame)
        if width == 0 or height == 0:
            return Patch(np.zeros((0, 0, 3), np.float32), np.zeros((0, 0), np.float32), 0, 0)
        grid = _pixel_grid(x0, y0, width, height, window)
        plain = _sample(torch.cat([maps.mask, lips, drift], 1), grid, WINDOW)
        mask, lip_weight, moved = plain[:1], plain[1:2], plain[2:3]
        copied = self._copy(face, match, by_face, grid, WINDOW, r.face)
        rect = _inner_rect(lip_weight[0])
        if rect is not None:
            top, bottom, left, right = rect
            part = grid[top:bottom, left:right] - corner[0].flip(0)
            inside = cut(maps.lips, corner, LIP_WINDOW)
            best = _strongest(by_lips.reference_logits, inside, MAX_COPIED)
            lip_copy = self._copy(
                [self._lips[k] for k in best.tolist()],
                Correspondence(lip_match.place[:, best], lip_match.cost, lip_match.turn),
                Attended(by_lips.value, by_lips.reference_logits[:, best]),
                part, LIP_WINDOW, r.lip,
            )  # fmt: skip
            weight = lip_weight[:, top:bottom, left:right]
            area = copied[:, top:bottom, left:right]
            copied[:, top:bottom, left:right] = area + (lip_copy - area) * weight
        made = copied + self._repair(maps, lips, corner, by_face, by_lips, copied, grid)
        region = frame.pixels[
            y0 - frame.origin[1] : y0 - frame.origin[1] + height,
            x0 - frame.origin[0] : x0 - frame.origin[0] + width,
        ]
        source = _to_tensor(region, self.device)[0]
        made = match_colour(made.clamp(0, 1), source, mask, moved)
        alpha = mask[0] * strength
        alpha = torch.where(alpha < MIN_ALPHA, 0.0, alpha)
        rgb = (made * 255).permute(1, 2, 0).contiguous()
        return Patch(rgb.cpu().numpy(), alpha.cpu().numpy(), x0, y0)

    def _copy(
        self, references: list[_Reference], match: Correspondence, found: Attended, grid: Tensor,
        size: tuple[int, int], head: GuidedHead,
    ) -> Tensor:  # fmt: skip
        """Two-band copy (see `copy_pixels`): the coarse band on the window's grid, enlarged; the
        detail at the frame's own pixels. [3, H, W]."""
        coarse = sample_pixels(torch.stack([r.coarse for r in references])[None], match.place)
        out = _sample(mix(coarse, found.reference_logits), grid, size)
        sharpness = self.renderer.detail_sharpness(head)
        weights = _sample(found.reference_logits, grid, size).mul(sharpness).softmax(0)
        places = _sample(match.place[0].permute(0, 3, 1, 2).flatten(0, 1)[None], grid, size)
        places = places.view(len(references), 2, *places.shape[1:]).permute(0, 2, 3, 1)
        for reference, weight, place in zip(references, weights, places, strict=True):
            # window pixels of the reference -> frame pixels -> pixels of its stored picture
            window = reference.states.window[0]
            there = place * window[2] + (window[:2] - reference.origin)
            detail = sample_pixels(reference.detail[None, None], there[None, None])[0, 0]
            out += detail * weight
        return out

    def _repair(
        self, maps: TargetMaps, lips: Tensor, corner: Tensor, by_face: Attended,
        by_lips: Attended, copied: Tensor, grid: Tensor,
    ) -> Tensor:  # fmt: skip
        """The decoder's correction, computed on the window and enlarged to the native pixels."""
        small = F.avg_pool2d(lips, 4)
        tokens = (WINDOW[0] // 4, WINDOW[1] // 4)
        lip_latent = put(by_lips.value, corner // 4, tokens)
        latent = by_face.value * (1 - small) + lip_latent * small
        window_copy = _to_window(copied, grid)
        correction = self.renderer.decoder(latent, maps.pncc, window_copy)
        return _sample(correction, grid, WINDOW)


def _strongest(logits: Tensor, weight: Tensor, count: int) -> Tensor:
    """Indices of the `count` references with the greatest share of attention where `weight`
    [1, 1, h, w] counts; the others' shares are too small to be seen."""
    share = (logits.softmax(1) * weight).sum((0, 2, 3))
    return share.topk(min(count, len(share))).indices


def _pixel_grid(x0: int, y0: int, width: int, height: int, window: Tensor) -> Tensor:
    """Window places [h, w, 2] (x, y in window pixels, centres at +0.5) of frame pixels."""
    device = window.device
    x = torch.arange(x0, x0 + width, device=device).add(0.5).sub(window[0]).div(window[2])
    y = torch.arange(y0, y0 + height, device=device).add(0.5).sub(window[1]).div(window[2])
    return torch.stack([x.expand(height, width), y[:, None].expand(height, width)], -1)


def _sample(maps: Tensor, grid: Tensor, size: tuple[int, int]) -> Tensor:
    """Bilinear maps [1, C, h, w] at window places [H, W, 2]: [C, H, W]."""
    extent = grid.new_tensor([size[1], size[0]])
    return F.grid_sample(
        maps, (grid * 2 / extent - 1)[None], padding_mode="border", align_corners=False
    )[0]


def _to_window(copied: Tensor, grid: Tensor) -> Tensor:
    """Native pixels [3, H, W] on the window's grid [1, 3, h, w], outside by their border."""
    h, w = WINDOW
    first, last = grid[0, 0], grid[-1, -1]
    step = (last - first) / grid.new_tensor([max(grid.shape[1] - 1, 1), max(grid.shape[0] - 1, 1)])
    picture = copied[None]
    factor = int(1 / float(step.mean())) if float(step.mean()) < 0.67 else 1
    if factor > 1:  # average before taking fewer pixels
        picture = F.avg_pool2d(picture, factor, ceil_mode=True, count_include_pad=False)
    y = torch.arange(h, device=grid.device).add(0.5).sub(first[1]).div(step[1]).add(0.5)
    x = torch.arange(w, device=grid.device).add(0.5).sub(first[0]).div(step[0]).add(0.5)
    place = torch.stack([x.expand(h, w), y[:, None].expand(h, w)], -1) / factor
    return _sample(picture, place, (picture.shape[-2], picture.shape[-1]))[None]


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
    rows, columns = seen.any(1).nonzero()[:, 0], seen.any(0).nonzero()[:, 0]
    if len(rows) == 0:
        return None
    return int(rows[0]), int(rows[-1]) + 1, int(columns[0]), int(columns[-1]) + 1


def _around(
    picture: FacePicture, centre: NDArray[np.float32], scale: float
) -> tuple[NDArray[np.uint8], tuple[int, int]]:
    """The part of a picture around the mouth and its origin in the frame."""
    half_x, half_y = 0.62 * LIP_WINDOW[1] * scale, 0.62 * LIP_WINDOW[0] * scale
    height, width = picture.pixels.shape[:2]
    x, y = float(centre[0]) - picture.origin[0], float(centre[1]) - picture.origin[1]
    x0, x1 = max(int(x - half_x), 0), min(int(x + half_x) + 1, width)
    y0, y1 = max(int(y - half_y), 0), min(int(y + half_y) + 1, height)
    if x1 - x0 < 4 or y1 - y0 < 4:
        return picture.pixels, picture.origin
    return picture.pixels[y0:y1, x0:x1], (picture.origin[0] + x0, picture.origin[1] + y0)


def _to_tensor(pixels: NDArray[np.uint8], device: torch.device) -> Tensor:
    """[H, W, 3] uint8 -> [1, 3, H, W] float 0..1."""
    tensor = torch.from_numpy(np.ascontiguousarray(pixels)).to(device)
    return tensor.permute(2, 0, 1)[None].float() / 255


def _join(states: list[FaceStates]) -> FaceStates:
    names = ("vertices", "displacement", "rotation", "window")
    return FaceStates(*(torch.cat([getattr(s, n) for s in states]) for n in names))


def _join_latents(latents: list[ReferenceLatents]) -> ReferenceLatents:
    names = ("lip_key", "face_key", "texture", "pncc")
    last = (torch.cat([getattr(s, n).permute(0, 1, 3, 4, 2) for s in latents], 1) for n in names)
    return ReferenceLatents(*(m.permute(0, 1, 4, 2, 3) for m in last))  # channels last in memory
