"""Detection and mesh on one portrait: where things are, and that they follow the picture."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from dubbing.face.detector import FaceBox, FaceDetector
from dubbing.face.landmarks import N_LANDMARKS, FaceMesher, landmark_box
from dubbing.geometry.topology import (
    CHIN,
    FACE_OVAL,
    INNER_TOP,
    LEFT_EYE_OUTER,
    MOUTH_LEFT,
    MOUTH_RIGHT,
    NOSE_TIP,
    RIGHT_EYE_OUTER,
)

Picture = NDArray[np.uint8]


def found(rgb: Picture, detector: FaceDetector, mesher: FaceMesher) -> NDArray[np.float32]:
    (box,) = detector.detect(rgb)
    points = mesher.landmarks(rgb, box)
    assert points is not None
    return points


def moved(rgb: Picture, matrix: list[list[float]], size: tuple[int, int]) -> Picture:
    flags = cv2.INTER_LINEAR
    out = cv2.warpAffine(
        rgb, np.array(matrix, np.float64), size, flags=flags, borderMode=cv2.BORDER_REPLICATE
    )
    return out.astype(np.uint8)


def test_one_face_where_it_is(
    portrait: Picture, detector: FaceDetector, mesher: FaceMesher
) -> None:
    (box,) = detector.detect(portrait)
    assert 0.5 < box.score <= 1
    points = found(portrait, detector, mesher)
    assert points.shape == (N_LANDMARKS, 3)
    assert points.dtype == np.float32
    assert (points[:, :2] >= 0).all()
    assert (points[:, :2] <= 320).all()
    assert landmark_box(points).iou(box) > 0.5
    left, right = points[LEFT_EYE_OUTER], points[RIGHT_EYE_OUTER]
    assert left[0] < right[0]
    side = landmark_box(points).side
    assert 0.4 * side < np.hypot(*(right - left)[:2]) < 0.8 * side
    assert left[1] < points[NOSE_TIP, 1] < points[INNER_TOP, 1] < points[CHIN, 1]
    assert points[MOUTH_LEFT, 0] < points[INNER_TOP, 0] < points[MOUTH_RIGHT, 0]
    assert points[NOSE_TIP, 2] < points[list(FACE_OVAL), 2].min()  # the nose is nearest
    iris = points[[468, 473], :2]  # the eyes look out between their corners
    assert left[0] < iris[:, 0].min() < iris[:, 0].max() < right[0]


@pytest.mark.parametrize("shift", [(24, -10), (-17, 31)])
def test_landmarks_move_with_the_picture(
    portrait: Picture, detector: FaceDetector, mesher: FaceMesher, shift: tuple[int, int]
) -> None:
    before = found(portrait, detector, mesher)
    other = moved(portrait, [[1, 0, shift[0]], [0, 1, shift[1]]], (320, 320))
    after = found(other, detector, mesher)
    difference = (after - before)[:, :2]
    assert np.abs(difference.mean(0) - shift).max() < 0.5
    assert np.abs(difference - shift).max() < 2.5


@pytest.mark.parametrize("scale", [0.5, 1.4, 3.0, 5.0])
def test_landmarks_scale_with_the_picture(
    portrait: Picture, detector: FaceDetector, mesher: FaceMesher, scale: float
) -> None:
    """On both sides of the switch to averaging, and without a shift of part of a pixel."""
    (box,) = detector.detect(portrait)
    before = mesher.landmarks(portrait, box)
    size = round(320 * scale)
    how = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    other = cv2.resize(portrait, (size, size), interpolation=how).astype(np.uint8)
    scaled = FaceBox(*(scale * v for v in (box.x0, box.y0, box.x1, box.y1)))
    after = mesher.landmarks(other, scaled)
    assert before is not None
    assert after is not None
    difference = (after / scale - before)[:, :2]
    assert np.abs(difference.mean(0)).max() < (0.2 if scale > 1 else 0.4)
    assert np.abs(difference).max() < 1.5
    depth = [p[CHIN, 2] - p[NOSE_TIP, 2] for p in (before, after)]
    assert abs(depth[1] / scale / depth[0] - 1) < 0.1


def test_the_box_may_reach_out_of_the_picture(
    portrait: Picture, detector: FaceDetector, mesher: FaceMesher
) -> None:
    whole = found(portrait, detector, mesher)
    top = int(whole[:, 1].min()) + 4  # cuts the forehead
    cut = np.ascontiguousarray(portrait[top:])
    (box,) = detector.detect(cut)
    points = mesher.landmarks(cut, box)
    assert points is not None
    points[:, 1] += top
    assert np.abs((points - whole)[[CHIN, NOSE_TIP], :2]).max() < 4


def test_no_face_in_sight(detector: FaceDetector, mesher: FaceMesher) -> None:
    grey = np.full((240, 320, 3), 90, np.uint8)
    noise = np.random.default_rng(0).integers(0, 255, (240, 320, 3)).astype(np.uint8)
    for picture in (grey, noise):
        assert detector.detect(picture) == []
        assert mesher.landmarks(picture, FaceBox(100, 60, 200, 160)) is None


def test_detection_has_no_memory(
    portrait: Picture, detector: FaceDetector, mesher: FaceMesher
) -> None:
    first = found(portrait, detector, mesher)
    mesher.landmarks(portrait[:, ::-1].copy(), FaceBox(80, 80, 220, 220))
    assert np.array_equal(found(portrait, detector, mesher), first)


def test_faces_of_large_frames_come_in_their_own_pixels(
    portrait: Picture, detector: FaceDetector
) -> None:
    """Beyond the detector's input the frame is shrunk first; the box is not."""
    wide = cv2.resize(portrait, (960, 960), interpolation=cv2.INTER_LINEAR).astype(np.uint8)
    (small,), (large,) = detector.detect(portrait), detector.detect(wide)
    tripled = FaceBox(*(3 * v for v in (small.x0, small.y0, small.x1, small.y1)))
    assert large.iou(tripled) > 0.9


def test_box_arithmetic() -> None:
    box = FaceBox(0, 0, 10, 20)
    assert box.side == 20
    assert box.iou(box) == 1
    assert box.iou(FaceBox(10, 0, 20, 20)) == 0
    assert box.iou(FaceBox(5, 0, 15, 20)) == pytest.approx(1 / 3)
    points = np.array([[1, 5, 9], [4, 2, 9]], np.float32)
    assert landmark_box(points) == FaceBox(1, 2, 4, 5)
