"""A portrait brought to life: small head turns, blinks and mouth movements by warping it.

Nothing here is learned. It makes the demo's speaker from one openly licensed picture, and footage
whose mouth opening is known, which tests need.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import NearestNDInterpolator

Plane = NDArray[np.float32]

UPPER_LIP = (78, 191, 80, 81, 82, 13, 312, 311, 310, 415, 308)  # inner contours, left to right
LOWER_LIP = (78, 95, 88, 178, 87, 14, 317, 402, 318, 324, 308)
MOUTH_CORNERS = (61, 291)
CHIN, NOSE_BASE, FOREHEAD = 152, 2, 10
EYES = (  # upper lid, lower lid, brow
    (
        (33, 246, 161, 160, 159, 158, 157, 173, 133),
        (33, 7, 163, 144, 145, 153, 154, 155, 133),
        (70, 63, 105, 66, 107),
    ),
    (
        (362, 398, 384, 385, 386, 387, 388, 466, 263),
        (362, 382, 381, 380, 374, 373, 390, 249, 263),
        (336, 296, 334, 293, 300),
    ),
)
MOUTH_DARK = np.array((46, 17, 17), np.float32)  # RGB of the open mouth behind the teeth
TONGUE = np.array((132, 66, 64), np.float32)
MAX_OPENING = 0.2  # of the mouth's width, added to the portrait's own lip gap
EDGE = 2.0  # px over which lips and lids fade into what lies behind them


@dataclass(frozen=True)
class PuppetPose:
    """One moment. All zero is the portrait, but for a softened edge at the lower lip.

    Attributes:
        yaw, pitch, roll: head rotation in radians; beyond about 0.12 the warp shows.
        shift_x, shift_y: head translation in pixels.
        mouth: -1 closed, 0 as in the portrait, 1 wide open.
        narrow: 0 as in the portrait, 1 lips drawn together as for "oo".
        blink: 0 as in the portrait, 1 closed.
        breath: pixels by which the chest is raised.
    """

    yaw: float = 0.0
    pitch: float = 0.0
    roll: float = 0.0
    shift_x: float = 0.0
    shift_y: float = 0.0
    mouth: float = 0.0
    narrow: float = 0.0
    blink: float = 0.0
    breath: float = 0.0


class PortraitPuppet:
    """Renders poses of one portrait.

    Args:
        portrait: [H, W, 3] uint8, RGB, one upright face that looks at the camera, lips parted or
            closed, on a background that may bend a little near the head.
        landmarks: [478, 3] float32, MediaPipe mesh in pixels of `portrait`.
    """

    def __init__(self, portrait: NDArray[np.uint8], landmarks: NDArray[np.float32]):
        self._portrait = portrait.astype(np.float32)
        self._points = landmarks
        height, width = portrait.shape[:2]
        rows, columns = np.mgrid[0:height, 0:width].astype(np.float32)
        self._x: Plane = columns
        self._y: Plane = rows
        self._depth = self._depth_plane()
        self._head = self._head_weight()
        self._chest = _smoothstep((rows - landmarks[CHIN, 1]) / (0.35 * self._face_height))

    @property
    def _face_height(self) -> float:
        return float(self._points[CHIN, 1] - self._points[FOREHEAD, 1])

    def frame(self, pose: PuppetPose) -> NDArray[np.uint8]:
        """The portrait in `pose`: [H, W, 3] uint8, RGB."""
        face = self._with_eyes(self._with_mouth(pose), pose.blink)
        move_x, move_y = self._head_motion(pose)
        x, y = self._x.copy(), self._y.copy()
        for _ in range(3):  # the motion is given at the source; its inverse is a fixed point
            at = (x, y, cv2.INTER_LINEAR, None, cv2.BORDER_REPLICATE)
            x, y = self._x - cv2.remap(move_x, *at), self._y - cv2.remap(move_y, *at)
        warped = cv2.remap(face, x, y, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT)
        return np.clip(np.rint(warped), 0, 255).astype(np.uint8)

    def _depth_plane(self) -> Plane:
        """Depth in pixels, positive towards the camera, smooth, carried on beyond the face."""
        depth = NearestNDInterpolator(self._points[:, :2], -self._points[:, 2])(self._x, self._y)
        sigma = 0.07 * self._face_height
        result: Plane = cv2.GaussianBlur(depth.astype(np.float32), (0, 0), sigma).astype(np.float32)
        return result

    def _head_weight(self) -> Plane:
        """1 on the head with its hair, falling to 0 over the background and the neck."""
        size = self._face_height
        middle = (self._points[CHIN] + self._points[FOREHEAD])[:2] / 2
        across = (self._x - middle[0]) / (0.95 * size)
        along = (self._y - middle[1] + 0.12 * size) / (0.92 * size)
        weight = 1 - _smoothstep((np.hypot(across, along) - 0.95) / 0.6)
        neck = _smoothstep((self._y - self._points[CHIN, 1] + 0.05 * size) / (0.45 * size))
        return (weight * (1 - neck)).astype(np.float32)

    def _head_motion(self, pose: PuppetPose) -> tuple[Plane, Plane]:
        """Displacement in pixels of every source pixel, as two planes [H, W]."""
        pivot_x, pivot_y = self._points[CHIN, 0], self._points[CHIN, 1]
        pivot_depth = float(np.percentile(self._depth, 5))
        x, y, depth = self._x - pivot_x, self._y - pivot_y, self._depth - pivot_depth
        move_x = (np.cos(pose.yaw) - 1) * x + np.sin(pose.yaw) * depth - np.sin(pose.roll) * y
        move_y = (np.cos(pose.pitch) - 1) * y + np.sin(pose.pitch) * depth + np.sin(pose.roll) * x
        move_x = self._head * (move_x + pose.shift_x)
        move_y = self._head * (move_y + pose.shift_y) - self._chest * pose.breath
        return move_x.astype(np.float32), move_y.astype(np.float32)

    def _with_mouth(self, pose: PuppetPose) -> NDArray[np.float32]:
        """The portrait with its lower lip and chin moved; the upper teeth stay where they are."""
        left, right = self._points[list(MOUTH_CORNERS), 0]
        middle, half = (left + right) / 2, (right - left) / 2
        x = self._narrowed(middle, half, pose.narrow)
        upper, lower = self._curve(UPPER_LIP, x), self._curve(LOWER_LIP, x)
        gap = np.maximum(lower - upper, 0)
        bump = np.clip(1 - ((x - middle) / (0.98 * half)) ** 2, 0, None)
        opening = MAX_OPENING * 2 * half * max(pose.mouth, 0)
        lip_move = opening * bump - gap * max(-pose.mouth, 0)
        y = self._below_lip_source(x, lower, lip_move, (middle, half))
        lip_edge = lower + lip_move
        below = _smoothstep((self._y - lip_edge) / EDGE + 0.5)[..., None]
        jaw = cv2.remap(self._portrait, x, y, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
        still = cv2.remap(
            self._portrait, x, self._y, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE
        )
        depth = np.clip((self._y - lower) / np.maximum(lip_edge - lower, 1), 0, 1)[..., None]
        cavity = MOUTH_DARK + (TONGUE - MOUTH_DARK) * _smoothstep((depth - 0.45) / 0.9)
        behind_teeth = _smoothstep((self._y - lower + 0.5) / 2.5)[..., None]
        inside = still + (cavity - still) * behind_teeth
        opened = _smoothstep(lip_move / EDGE)[..., None] * (self._y < lip_edge + EDGE)[..., None]
        mouth = still + (inside - still) * opened
        result: Plane = (mouth + (jaw - mouth) * below).astype(np.float32)
        return result

    def _narrowed(self, middle: float, half: float, narrow: float) -> Plane:
        """Source column of every pixel when the lips are drawn together."""
        mouth_y = self._points[list(MOUTH_CORNERS), 1].mean()
        reach = np.hypot((self._x - middle) / (1.9 * half), (self._y - mouth_y) / (1.4 * half))
        weight = 1 - _smoothstep(reach)
        return (self._x + 0.22 * narrow * weight * (self._x - middle)).astype(np.float32)

    def _below_lip_source(
        self, x: Plane, lower: Plane, lip_move: Plane, mouth: tuple[float, float]
    ) -> Plane:
        """Source row of every pixel under the lower lip: chin and skin follow, the neck stays."""
        middle, half = mouth
        chin = self._points[CHIN, 1]
        chin_move = 0.8 * float(np.interp(middle, x[0], lip_move[int(self._points[14, 1])]))
        wide = np.clip(1 - ((x - middle) / (2.2 * half)) ** 2, 0, None) ** 2
        y = self._y.copy()
        for _ in range(5):
            toward_chin = _smoothstep((y - lower) / (chin - lower))
            move = lip_move * (1 - toward_chin) + chin_move * wide * toward_chin
            y = self._y - move * (1 - _smoothstep((y - chin) / (0.3 * self._face_height)))
        result: Plane = np.maximum(y, lower + 0.5).astype(np.float32)  # the row above shows teeth
        return result

    def _with_eyes(self, picture: NDArray[np.float32], blink: float) -> NDArray[np.float32]:
        """`picture` with the skin above each eye drawn down over it by the share `blink`."""
        if blink <= 0:
            return picture
        border = 0.018 * self._face_height  # lashes, which move but do not stretch
        for upper_lid, lower_lid, brow in EYES:
            upper, lower = self._curve(upper_lid, self._x), self._curve(lower_lid, self._x)
            top = upper - 0.7 * float(np.mean(upper[0] - self._curve(brow, self._x)[0]))
            drop = blink * np.maximum(lower - upper, 0)
            skin = np.maximum(upper - border + drop - top, 1)
            stretched = top + (self._y - top) * (upper - border - top) / skin
            y = np.where(self._y < top + skin, stretched, self._y - drop)
            y = np.where(self._y > top, y, self._y).astype(np.float32)
            lid = cv2.remap(picture, self._x, y, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
            cover = _smoothstep((upper + drop - self._y) / EDGE + 0.5) * _smoothstep(drop / EDGE)
            picture = picture + (lid - picture) * cover[..., None]
        return picture.astype(np.float32)

    def _curve(self, indices: tuple[int, ...], x: Plane) -> Plane:
        """Row of the contour through `indices` at the columns `x`; level beyond its ends."""
        points = self._points[list(indices), :2]
        points = points[np.argsort(points[:, 0])]
        return np.interp(x, points[:, 0], points[:, 1]).astype(np.float32)


def _smoothstep(value: NDArray[np.floating]) -> NDArray[np.float32]:
    """0 below 0, 1 above 1, smooth between."""
    t = np.clip(value, 0, 1)
    result: Plane = (t * t * (3 - 2 * t)).astype(np.float32)
    return result
