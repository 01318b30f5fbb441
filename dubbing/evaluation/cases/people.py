"""Two people and what may come before their mouths, made from one openly licensed portrait."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from dubbing.demo import demo_portrait, demo_pose
from dubbing.face.detector import FaceDetector
from dubbing.face.landmarks import FaceMesher
from dubbing.geometry.topology import CHIN, INNER_TOP, LEFT_EYE_OUTER, NOSE_TIP, RIGHT_EYE_OUTER
from dubbing.puppet import FOREHEAD, PortraitPuppet

Picture = NDArray[np.uint8]
Plane = NDArray[np.float32]


def landmarks_of(picture: Picture) -> NDArray[np.float32]:
    """[478, 3] of the only face in `picture`."""
    with FaceDetector() as detector, FaceMesher() as mesher:
        points = mesher.landmarks(picture, detector.detect(picture)[0])
    assert points is not None
    return points


def other_person(portrait: Picture) -> Picture:
    """Somebody else: mirrored, with a broader jaw, a longer nose, other colours and background."""
    picture = np.ascontiguousarray(portrait[:, ::-1])
    points = landmarks_of(picture)
    height, width = picture.shape[:2]
    y, x = np.mgrid[:height, :width].astype(np.float32)
    middle, nose, chin = points[NOSE_TIP, 0], points[NOSE_TIP, 1], points[CHIN, 1]
    size = chin - points[LEFT_EYE_OUTER, 1]
    jaw = np.exp(-(((y - (nose + chin) / 2) / (0.45 * size)) ** 2))
    near = np.exp(-(((x - middle) / (1.1 * size)) ** 2))
    from_x = middle + (x - middle) * (1 - 0.2 * jaw * near)
    from_y = y - 0.1 * size * np.exp(-(((y - nose) / (0.5 * size)) ** 2)) * near
    warped = cv2.remap(
        picture, from_x.astype(np.float32), from_y.astype(np.float32), cv2.INTER_CUBIC,
        borderMode=cv2.BORDER_REPLICATE,
    )  # fmt: skip
    toned = warped.astype(np.float32) * (0.62, 0.5, 0.42)
    backdrop = np.abs(x - middle) > 1.15 * size
    toned[backdrop] = (30, 70, 40)
    return toned.clip(0, 255).astype(np.uint8)


def covering(kind: str, picture: Picture, points: NDArray[np.float32], up: float = 1.0) -> Picture:
    """`picture` with a "hand" of the face's own colour, a "microphone" or a "sheet" before the
    mouth; `up` in 0..1 says how far it has risen from below."""
    face = float(points[CHIN, 1] - points[10, 1])
    x, y = points[[INNER_TOP, 14], :2].mean(0)
    y += (1 - up) * 0.9 * face
    layer = np.zeros(picture.shape, np.float32)
    alpha = np.zeros(picture.shape[:2], np.float32)
    if kind == "hand":
        cheeks = points[[50, 280, 101, 330], :2].astype(int)
        layer[:] = np.mean([picture[v, u] for u, v in cheeks], 0) * 1.03
        for k in range(4):
            place = (int(x + face * 0.14 * (k - 1.5)), int(y))
            cv2.ellipse(alpha, place, (int(face * 0.07), int(face * 0.24)), 0, 0, 360, 1.0, -1)
            edge = (place[0] + int(face * 0.07), place[1])
            cv2.line(layer, (edge[0], edge[1] - int(face * 0.2)),
                     (edge[0], edge[1] + int(face * 0.2)), (90, 60, 50), 2)  # fmt: skip
        palm = (int(x), int(y + face * 0.4))
        cv2.ellipse(alpha, palm, (int(face * 0.3), int(face * 0.33)), 0, 0, 360, 1.0, -1)
    elif kind == "microphone":
        layer[:] = (28, 28, 30)
        head = (int(x), int(y))
        cv2.ellipse(alpha, head, (int(face * 0.17), int(face * 0.2)), 0, 0, 360, 1.0, -1)
        low = (int(x + face * 0.05), picture.shape[0])
        cv2.rectangle(alpha, (int(x - face * 0.05), int(y)), low, 1.0, -1)
    else:
        layer[:] = (225, 222, 215)
        corners = ((int(x - 0.4 * face), int(y - 0.2 * face)),
                   (int(x + 0.4 * face), int(y + 0.6 * face)))  # fmt: skip
        cv2.rectangle(alpha, *corners, 1.0, -1)
    share = cv2.GaussianBlur(alpha, (0, 0), 0.8)[..., None]
    return np.rint(picture + (layer - picture) * share).astype(np.uint8)


def eyes(points: NDArray[np.float32]) -> float:
    """Distance of the outer eye corners in pixels."""
    return float(np.linalg.norm((points[RIGHT_EYE_OUTER] - points[LEFT_EYE_OUTER])[:2]))


def small_puppet() -> PortraitPuppet:
    """The demo's speaker near the camera, [240, 240] pixels."""
    near = cv2.resize(demo_portrait()[32:352, 80:400], (240, 240), interpolation=cv2.INTER_AREA)
    picture = np.asarray(near, np.uint8)
    return PortraitPuppet(picture, landmarks_of(picture))


@dataclass(frozen=True)
class Crossing:
    """Two people who pass each other, the one in front of the other.

    Attributes:
        pictures: [H, W, 3] uint8 RGB each.
        heads: per frame and person, 0 from the left and 1 from the right, the part of the picture
            [H, W] in 0..1 in which the person is seen.
        middles: per frame and person, the middle (x, y) of the face.
    """

    pictures: list[Picture]
    heads: list[tuple[Plane, Plane]]
    middles: list[tuple[tuple[float, float], tuple[float, float]]]


def crossing(frames: int, front: int, *, to: float = 1.0, side: int = 240) -> Crossing:
    """Two people who talk and walk past each other.

    Args:
        front: who passes before the other one: 0 comes from the left, 1 from the right.
        to: 1 for all the way; at 0.5 they meet in the middle, and turn round from there.
        side: height of the picture, pixels; it is 2.6 times as wide.
    """
    own = small_puppet()
    still = other_person(own.frame(demo_pose(0)))
    puppets = (own, PortraitPuppet(still, landmarks_of(still)))
    shapes = tuple(_head(puppet.frame(demo_pose(0))) for puppet in puppets)
    width = round(2.6 * side)
    y, x = np.mgrid[:side, :width].astype(np.float32)
    wall = np.stack([90 + 30 * np.sin(x / 70), 100 + 20 * np.cos(y / 50), 80 + 0 * x], -1)
    scale = side / 240
    found = Crossing([], [], [])
    for k in range(frames):
        time = k / (frames - 1)
        way = time if to == 1 else 2 * to * min(time, 1 - time)
        lefts = (way * (width - side), (1 - way) * (width - side))
        layers = []
        for person, left in enumerate(lefts):
            place = np.array([[scale, 0, left], [0, scale, 0]], np.float32)
            shown = puppets[person].frame(demo_pose(0.1 * k + 1.3 * person))
            layers.append([cv2.warpAffine(p, place, (width, side)).astype(np.float32)
                           for p in (shown, shapes[person])])  # fmt: skip
        picture = wall
        for person in (1 - front, front):
            pixels, alpha = layers[person]
            picture = picture + (pixels - picture) * alpha[..., None]
        heads = [alpha for _, alpha in layers]
        heads[1 - front] = heads[1 - front] * (1 - heads[front])
        found.pictures.append(np.rint(picture).clip(0, 255).astype(np.uint8))
        found.heads.append((heads[0], heads[1]))
        middle = tuple((left + side / 2, side / 2) for left in lefts)
        found.middles.append((middle[0], middle[1]))
    return found


def _head(picture: Picture) -> Plane:
    """Part [H, W], 0..1, of a picture that is the head of the person in it."""
    points = landmarks_of(picture)
    height = float(points[CHIN, 1] - points[FOREHEAD, 1])
    x, y = (points[FOREHEAD, :2] + points[CHIN, :2]) / 2
    alpha = np.zeros(picture.shape[:2], np.float32)
    axes = (int(0.6 * height), int(0.75 * height))
    cv2.ellipse(alpha, (int(x), int(y - 0.08 * height)), axes, 0, 0, 360, 1.0, -1)
    return np.asarray(cv2.GaussianBlur(alpha, (0, 0), 2.0), np.float32)
