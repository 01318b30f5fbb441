"""Two people and what may come before their mouths, made from one openly licensed portrait."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from dubbing.demo import demo_portrait
from dubbing.face.detector import FaceDetector
from dubbing.face.landmarks import FaceMesher
from dubbing.geometry.topology import CHIN, INNER_TOP, LEFT_EYE_OUTER, NOSE_TIP, RIGHT_EYE_OUTER
from dubbing.puppet import PortraitPuppet

Picture = NDArray[np.uint8]


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
