"""What a face looks like at fixed points of its mesh: is the mouth covered, is the face blurred?

The mesh says where each point of the skin is in every frame, so the colours of two frames can be
compared point by point, whatever the head does. A hand, a microphone or a sheet of paper before
the mouth does not move the mesh away, but the pattern of lips, chin and shadows disappears. The
lower face of each frame is correlated with how it looks in most frames of the same shot; light is
divided out by the upper face, and a slope of light over the lower face does not count.

What this cannot see: a cover that stays for more than half of a shot becomes the pattern itself.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from dubbing.geometry.morphable import MorphableModel
from dubbing.geometry.raster import rasterize

SPACING = 0.07  # half face heights between neighbouring points
PIXELS = 2.0  # per spacing in the reduced picture that is sampled: each colour is a small mean
MIN_FACING = 0.35  # cosine between skin and view below which a point counts as unseen
LOWER = (0.15, 0.5)  # half face heights: points below the first and less far aside than the second
UPPER = 0.12  # points above it tell the light
MIN_PATTERN = 8  # frames; fewer don't show how a face usually looks
MIN_POINTS = 20
SHARP_SIDE = 64  # px to which a face is brought before its blur is measured

# luma and colour differences, the latter doubled: covers often have the skin's lightness
_TO_YCC = np.array([[0.299, 1.0, -0.338], [0.587, -0.838, -0.662], [0.114, -0.162, 1.0]])


class FaceSampler:
    """Colours of points spread evenly over the frontal view of the mesh, without eyes and mouth.

    Points that the light is read from are kept at every third place only.

    Attributes:
        places: [N, 2] x and y of the points on the mean face, in half face heights.
        lower: [N] bool, the points around the mouth.
    """

    def __init__(self, model: MorphableModel):
        mean = model.mean.cpu()
        low = mean[:, :2].amin(0) - SPACING / 2
        size = ((mean[:, :2].amax(0) - low) / SPACING).ceil().long().tolist()
        drawn = mean.clone()
        drawn[:, :2] = (mean[:, :2] - low) / SPACING
        raster = rasterize(drawn[None], model.triangles.cpu(), (size[1], size[0]))
        there = raster.covered[0]
        corners = raster.corners[0][there].numpy()
        weights = raster.weights[0][there].float().numpy()
        places = (mean.numpy()[corners, :2] * weights[..., None]).sum(1)
        x, y = places.T
        lower = (y > LOWER[0]) & (np.abs(x) < LOWER[1])
        light = (y < UPPER) & (np.arange(len(y)) % 3 == 0)
        kept = lower | light
        self._corners, self._weights = corners[kept], weights[kept]
        self.places, self.lower = places[kept], lower[kept]
        a, b, c = (mean.numpy()[self._corners[:, k]] for k in range(3))
        self._turn = np.sign(np.cross(b - a, c - a)[:, 2]).astype(np.float32)

    def sample(self, rgb: NDArray[np.uint8], landmarks: NDArray[np.float32]) -> NDArray[np.uint8]:
        """Colours [N, 4] of the points in a frame.

        Args:
            rgb: [H, W, 3] uint8, RGB; landmarks: [>=468, 3] in its pixels.

        Returns:
            red, green, blue, and 255 where the point is seen: inside the frame and not turned away.
        """
        corners = landmarks[self._corners]
        spots = (corners[..., :2] * self._weights[..., None]).sum(1)
        height, width = rgb.shape[:2]
        seen = self._facing(corners) > MIN_FACING
        seen &= ((spots >= 0) & (spots < (width, height))).all(1)
        colours = np.zeros((len(spots), 4), np.uint8)
        if seen.any():
            colours[:, :3] = _colours(rgb, spots, landmarks)
            colours[:, 3] = 255 * seen
        return colours

    def _facing(self, corners: NDArray[np.float32]) -> NDArray[np.float32]:
        """Cosine [N] between the skin's normal and the view."""
        a, b, c = corners[:, 0], corners[:, 1], corners[:, 2]
        normal = np.cross(b - a, c - a)
        length = np.linalg.norm(normal, axis=1)
        facing: NDArray[np.float32] = self._turn * normal[:, 2] / np.maximum(length, 1e-9)
        return facing

    def visibility(self, samples: NDArray[np.uint8]) -> NDArray[np.float32]:
        """How much the lower face of each frame looks as it usually does.

        Args:
            samples: [T, N, 4] of one face in one shot, see `sample`.

        Returns:
            [T] correlation, -1..1: above about 0.6 in free faces, below 0.5 where the mouth is
            covered; 1 where it can't be told.
        """
        out = np.ones(len(samples), np.float32)
        if len(samples) < MIN_PATTERN:
            return out
        seen = samples[..., 3] > 0
        colours = samples[..., :3].astype(np.float32)
        usual = _median(colours, seen)
        light = ~self.lower
        gain = _median(
            np.swapaxes(colours[:, light] / np.maximum(usual[light], 8), 0, 1),
            seen[:, light].T,
        )
        gain[~np.any(seen[:, light], axis=1)] = 1
        area = self.lower
        shown = (colours[:, area] / np.maximum(gain[:, None], 0.1)) @ _TO_YCC
        pattern = np.broadcast_to(usual[area] @ _TO_YCC, shown.shape)
        weight = seen[:, area].astype(np.float64)
        shown, pattern = self._levelled(shown, weight), self._levelled(pattern, weight)
        both = (shown * pattern).sum((1, 2))
        alone = (shown**2).sum((1, 2)) * (pattern**2).sum((1, 2))
        told = (weight.sum(1) >= MIN_POINTS) & (alone > 0)
        out[told] = (both[told] / np.sqrt(alone[told])).astype(np.float32)
        return out

    def _levelled(
        self, colours: NDArray[np.floating], weight: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        """Colours [T, n, 3] without their mean and slope over the lower face; 0 where unseen."""
        places = self.places[self.lower]
        basis = np.column_stack([places, np.ones(len(places))])
        weighted = basis[None] * weight[..., None]
        gram = weighted.transpose(0, 2, 1) @ basis + 1e-6 * np.eye(3)
        slope = np.linalg.solve(gram, weighted.transpose(0, 2, 1) @ colours)
        flat: NDArray[np.float64] = (colours - basis @ slope) * weight[..., None]
        return flat


def _median(values: NDArray[np.float32], seen: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Median [n, 3] over the first axis of [T, n, 3] where `seen` [T, n]; 0 where never."""
    ever = np.any(seen, axis=0)
    known = np.where((seen | ~ever)[..., None], values, np.nan)
    return np.asarray(np.nanmedian(known, 0) * ever[:, None], np.float32)


def _colours(
    rgb: NDArray[np.uint8], spots: NDArray[np.float32], landmarks: NDArray[np.float32]
) -> NDArray[np.uint8]:
    """[N, 3] means of the picture around the spots [N, 2]."""
    height, width = rgb.shape[:2]
    low, high = spots.min(0), spots.max(0)
    x0, y0 = (max(int(v) - 4, 0) for v in low)
    x1, y1 = min(int(high[0]) + 5, width), min(int(high[1]) + 5, height)
    unit = float(np.ptp(landmarks[:, :2], axis=0).max()) / 2  # about half a face height
    shrink = min(PIXELS / (SPACING * max(unit, 1.0)), 1.0)
    size = (max(round((x1 - x0) * shrink), 1), max(round((y1 - y0) * shrink), 1))
    small = cv2.resize(rgb[y0:y1, x0:x1], size, interpolation=cv2.INTER_AREA)
    place = (spots - (x0, y0)) * (size[0] / (x1 - x0), size[1] / (y1 - y0)) - 0.5
    grid_x, grid_y = (np.ascontiguousarray(place[None, :, k], np.float32) for k in (0, 1))
    taken = cv2.remap(small, grid_x, grid_y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return np.asarray(taken[0], np.uint8)


def sharpness(rgb: NDArray[np.uint8], landmarks: NDArray[np.float32]) -> float:
    """How sharp the face at `landmarks` [>=468, >=2] is, 0..1, whatever its size in pixels.

    One minus the perceptual blur of Crete et al. (2007) of the face at `SHARP_SIDE` pixels: 0.45
    to 0.7 in usual footage, below 0.35 where a blur as wide as a twentieth of the face hides what
    the lips do. 0 where hardly a pixel of the face lies in the frame.
    """
    from skimage.measure import blur_effect  # takes a second to import; only analysis needs it

    low, high = landmarks[:, :2].min(0), landmarks[:, :2].max(0)
    x0, y0 = (max(int(v), 0) for v in low)
    part = rgb[y0 : max(int(high[1]) + 1, 0), x0 : max(int(high[0]) + 1, 0)]
    if min(part.shape[:2]) < 8:
        return 0.0
    scale = SHARP_SIDE / max(part.shape[:2])
    size = (max(round(part.shape[1] * scale), 12), max(round(part.shape[0] * scale), 12))
    how = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    grey = cv2.cvtColor(cv2.resize(part, size, interpolation=how), cv2.COLOR_RGB2GRAY)
    if np.ptp(grey) == 0:
        return 0.0
    return 1 - float(blur_effect(grey.astype(np.float32)))  # type: ignore[no-untyped-call]
