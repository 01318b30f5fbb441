"""Stage 2 at work on a clip's own frames, with references that do not hold the answer."""

from __future__ import annotations

from dataclasses import dataclass, replace

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt
from torch import Tensor

from dubbing.dubber import Dubber
from dubbing.evaluation.footage import Footage, Picture, Region
from dubbing.evaluation.held_out import HeldOut
from dubbing.evaluation.mesh_warp import (
    Rect,
    Warped,
    lower_rect,
    nearest_by_lips,
    paste,
    warp_face,
)
from dubbing.evaluation.regions import CROP, Points, Regions, face_raster, regions_of
from dubbing.geometry.morphable import MorphableModel
from dubbing.motion import RATE, REACH
from dubbing.persona import Persona
from dubbing.render.mouths import Moments
from dubbing.render.painting import Patch
from dubbing.render.pictures import FacePicture
from dubbing.render.scene import face_windows
from dubbing.render.session import RenderSession
from dubbing.render.window import window_rect


@dataclass(frozen=True)
class Made:
    """A made frame as a crop.

    Attributes:
        picture: [256, 256, 3]; alpha: [256, 256] share of what was made against the source.
        native: the share in pixels of the frame's region [h, w].
    """

    picture: Picture
    alpha: NDArray[np.float32]
    native: NDArray[np.float32]


class HeldOutRenderer:
    """Renders the targets of one `HeldOut` group.

    The picture of the target that the engine gets is the real one only outside of the lower face
    and along its border: what lies further in is replaced by the nearest face reference, warped.
    """

    def __init__(self, dubber: Dubber, persona: Persona, footage: Footage, held: HeldOut):
        self.footage, self.held = footage, held
        self._mesh = dubber.mesh
        bank = [self._picture(f, footage.regions[f]) for f in held.bank]
        known = replace(persona, bank=bank, bank_frames=held.bank)
        self._session: RenderSession = dubber.session(known)

    def make(self, frame: int, displacements: Tensor, hidden: Region) -> Made:
        """The frame with another lower face.

        Args:
            displacements: [J, V, 3] at the moments around it (`moments_around`), as the engine
                gets them; hidden: from `hidden_source`.
        """
        footage = self.footage
        poses = torch.stack([footage.pose(f) for f in moments_around(footage, frame)])
        moments = Moments(displacements, poses)
        near = [(f, self._picture(f, footage.regions[f])) for f in self.held.faces[frame]]
        # tracking ends with registration, which needs the frame as it is; what is hidden is the
        # picture that the result could be copied from
        offset = self._session.register(self._picture(frame, footage.regions[frame]))
        source = replace(self._picture(frame, hidden), offset=offset)
        middle = displacements[len(displacements) // 2]
        patch = self._session.render(frame, source, middle, near, around=moments)
        return composed(footage, frame, patch)

    def _picture(self, frame: int, region: Region) -> FacePicture:
        """What the renderer gets of a frame, cut as the engine cuts it."""
        footage = self.footage
        window = face_windows(self._mesh, footage.pose(frame)[None])[0]
        rect = window_rect(window.numpy(), (footage.size[0], footage.size[1]))
        part = region.part(*rect)
        return FacePicture(part.pixels, part.origin, footage.beta(frame), footage.pose(frame))

    def hidden_source(self, frame: int, regions: Regions, grey: bool = False) -> Region:
        """The frame's region without its own lower face.

        Args:
            grey: fill with mid grey instead of the warped reference, to see whether the renderer
                looks at it.
        """
        footage = self.footage
        region = footage.regions[frame]
        mask = region.mask(regions.hidden, footage.boxes[frame])
        if grey:
            fill = np.full_like(region.pixels, 128)
        else:
            nearest = self.held.faces[frame][0]
            part = self._warped(frame, footage.displacement(frame), nearest, None)
            fill = paste(region.pixels, _inside(part, region))
        pixels = np.where(mask[..., None], fill, region.pixels)
        return Region(pixels, region.origin)

    def nearest_lips(self, displacement: Tensor) -> int:
        """The lip reference with the nearest lips."""
        others = self.footage.displacements(self.held.bank)
        return self.held.bank[nearest_by_lips(displacement, others)]

    def mesh_warp(self, frame: int, displacement: Tensor, like: Made) -> Made:
        """The baseline: the frame with the nearest lip reference pasted by a mesh warp, over the
        same pixels and with the same border as `like`."""
        footage = self.footage
        region = footage.regions[frame]
        rows, columns = np.nonzero(like.native)
        if len(rows) == 0:
            return replace(like, picture=footage.crop(frame))
        x, y = int(columns.min()), int(rows.min())
        width, height = int(columns.max()) + 1 - x, int(rows.max()) + 1 - y
        rect = (x + region.origin[0], y + region.origin[1], width, height)
        part = self._warped(frame, displacement, self.nearest_lips(displacement), rect)
        part = replace(part, alpha=like.native[y : y + height, x : x + width])
        pasted = Region(paste(region.pixels, _inside(part, region)), region.origin)
        return replace(like, picture=pasted.crop(footage.boxes[frame]))

    def _warped(
        self, frame: int, displacement: Tensor, reference: int, rect: Rect | None
    ) -> Warped:
        """The face of `reference` on the geometry of `frame` with a displacement."""
        footage = self.footage
        target = footage.posed(footage.template + displacement, frame)
        model, region = footage.model, footage.regions[reference]
        place = rect or lower_rect(model, target, (footage.size[0], footage.size[1]))
        there = footage.vertices[footage.row(reference)]
        return warp_face(model, target, there, region.pixels, region.origin, place)


def _inside(part: Warped, region: Region) -> Warped:
    """With its corner counted from the region's."""
    return replace(part, x=part.x - region.origin[0], y=part.y - region.origin[1])


def composed(footage: Footage, frame: int, patch: Patch) -> Made:
    """A patch blended into the real frame, as crops."""
    region, box = footage.regions[frame], footage.boxes[frame]
    alpha = np.zeros(region.pixels.shape[:2], np.float32)
    pixels = region.pixels.astype(np.float32)
    height, width = patch.alpha.shape
    if patch.alpha.size:
        x, y = patch.x - region.origin[0], patch.y - region.origin[1]
        alpha[y : y + height, x : x + width] = patch.alpha
        area = pixels[y : y + height, x : x + width]
        area += (patch.rgb - area) * patch.alpha[..., None]
    made = Region(np.rint(pixels).clip(0, 255).astype(np.uint8), region.origin)
    plane = np.repeat((alpha * 255).round().astype(np.uint8)[..., None], 3, 2)
    cut = Region(plane, region.origin).crop(box)[..., 0].astype(np.float32) / 255
    # the steps of 1 / 255 have no direction
    share = cv2.GaussianBlur(cut, (0, 0), 0.5).astype(np.float32)
    return Made(made.crop(box), share, alpha)


def moments_around(footage: Footage, frame: int) -> list[int]:
    """Usable frames of the same track nearest to the moments of `Motion.around`, itself in the
    middle."""
    part, times = footage.speaker.part, footage.times
    known = [f for f in footage.usable if part[f] == part[frame]]
    wanted = [times[frame] + k / RATE for k in range(-REACH, REACH + 1)]
    return [min(known, key=lambda f: abs(times[f] - t)) for t in wanted]


def frame_regions(footage: Footage, frame: int) -> Regions:
    """Regions of the real face in a frame's crop."""
    return regions_of(footage.model, footage.points(frame))


def still_pixels(
    model: MorphableModel, tracked: list[Points], made: list[Points], limit: float
) -> list[NDArray[np.bool_]]:
    """Where the lower face of T consecutive frames stands still in crop pixels, in the source and
    in what was made.

    Args:
        model: on the CPU.
        tracked, made: T times [V, 3] vertices in crop pixels; limit: pixels between frames.

    Returns:
        T masks [256, 256]; the first and the last are empty.
    """
    masks = [np.zeros((CROP, CROP), bool) for _ in tracked]
    for t in range(1, len(tracked) - 1):
        mask = regions_of(model, tracked[t]).lower
        for points in (tracked, made):
            moved = [np.abs(points[t + k][:, :2] - points[t][:, :2]).max(1) for k in (-1, 1)]
            mask = mask & (_spread(model, points[t], np.maximum(*moved)) < limit)
        masks[t] = mask
    return masks


def _spread(
    model: MorphableModel, points: Points, moved: NDArray[np.float32]
) -> NDArray[np.float32]:
    """How far vertices [V, 3] in crop pixels move, `moved` [V], at every pixel [256, 256].

    The inside of the mouth moves with the lips, what lies beside the mesh with its border.
    """
    raster = face_raster(model, points)
    motion: NDArray[np.float32] = raster.interpolate(torch.from_numpy(moved)[:, None])[0, 0].numpy()
    covered = raster.covered[0].numpy()
    if not covered.any():
        return np.full_like(motion, np.inf)
    nearest = distance_transform_edt(~covered, return_distances=False, return_indices=True)
    spread: NDArray[np.float32] = motion[tuple(nearest)]
    return spread


def consecutive(footage: Footage, count: int) -> list[int]:
    """`count` consecutive usable frames of one track near the middle of the clip; the longest run
    where there is none of that length."""
    runs: list[list[int]] = []
    for frame in footage.usable:
        part = footage.speaker.part[frame]
        last = runs[-1][-1] if runs else None
        if last is not None and frame == last + 1 and footage.speaker.part[last] == part:
            runs[-1].append(frame)
        else:
            runs.append([frame])
    middle = footage.usable[len(footage.usable) // 2]
    longest = max(runs, key=lambda r: (min(len(r), count), -abs(r[len(r) // 2] - middle)))
    at = int(np.argmin([abs(f - middle) for f in longest]))
    first = min(max(at - count // 2, 0), max(len(longest) - count, 0))
    return longest[first : first + count]
