"""Crops and windows cut from frames: exact where they can be, averaged where they must be."""

from __future__ import annotations

import numpy as np
import pytest
from synthetic_face import synthetic_track

from dubbing.geometry.topology import FACE_OVAL
from dubbing.render.crop import SIDE_SCALE, crop_boxes, cut_crop, to_crop
from dubbing.render.scene import WINDOW
from dubbing.render.window import cut_window, window_rect


def noise(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3)).astype(np.uint8)


SPOTS = ((60.5, 70.5), (330.5, 60.5), (70.5, 320.5), (300.5, 310.5), (190.0, 170.25))  # x, y in px


def spotted(height: int, width: int) -> np.ndarray:
    """Soft bright spots on black, centred at SPOTS (pixel centres at +0.5)."""
    y, x = np.mgrid[0:height, 0:width] + 0.5
    light = sum(np.exp(-((x - cx) ** 2 + (y - cy) ** 2) / (2 * 5.0**2)) for cx, cy in SPOTS)
    return np.repeat((250 * light)[..., None], 3, -1).round().astype(np.uint8)


def spot_near(picture: np.ndarray, x: float, y: float, reach: float) -> np.ndarray:
    """Centre (x, y) of the light around a place, in pixels of the picture."""
    rows, columns = np.mgrid[0 : picture.shape[0], 0 : picture.shape[1]] + 0.5
    light = picture[..., 0] * (np.hypot(columns - x, rows - y) < reach)
    assert light.max() > 100
    return np.array([(columns * light).sum(), (rows * light).sum()]) / light.sum()


def box(*values: float) -> np.ndarray:
    return np.array(values, np.float32)


def test_crop_boxes_hold_the_face() -> None:
    points = synthetic_track(40, seed=1)[0].numpy()
    boxes = crop_boxes(points)
    assert boxes.shape == (40, 3)
    assert boxes.dtype == np.float32
    oval = points[:, list(FACE_OVAL), :2]
    extent = (oval.max(1) - oval.min(1)).max(1)
    assert np.abs(boxes[:, 2] / extent / SIDE_SCALE - 1).max() < 0.1
    inside = to_crop(points, boxes)
    assert inside[..., :2].min() > 0
    assert inside[..., :2].max() < 1


def test_crop_boxes_do_not_shake_with_the_landmarks() -> None:
    still = np.repeat(synthetic_track(1)[0].numpy(), 80, 0)
    assert np.abs(np.diff(crop_boxes(still), axis=0)).max() < 1e-3
    random = np.random.default_rng(0)
    shaken = still + random.normal(size=(80, 1, 3)).astype(np.float32) * 2  # the whole face, 2 px
    shift, calm = np.diff(shaken[:, 0, :2], axis=0), np.diff(crop_boxes(shaken), axis=0)
    assert calm[:, :2].std() < 0.25 * shift.std()
    assert calm[:, 2].std() < 1e-3  # shaking is no change of size
    moving = still + np.arange(80, dtype=np.float32)[:, None, None] * [3, 1, 0]
    steps = np.diff(crop_boxes(moving.astype(np.float32)), axis=0)[20:-20]
    assert np.allclose(steps, [3, 1, 0], atol=0.01)  # and motion is followed


def test_one_frame_has_a_box_too() -> None:
    points = synthetic_track(1)[0].numpy()
    (left, top, side) = crop_boxes(points)[0]
    oval = points[0, list(FACE_OVAL), :2]
    assert np.allclose(
        [left + side / 2, top + side / 2], (oval.min(0) + oval.max(0)) / 2, atol=0.01
    )


def test_to_crop_maps_the_square_to_one() -> None:
    boxes = np.array([[10, 20, 40], [0, 0, 8]], np.float32)
    points = np.array([[[10, 20, 4], [50, 60, 0]], [[4, 2, 8], [8, 8, 0]]], np.float32)
    expected = [[[0, 0, 0.1], [1, 1, 0]], [[0.5, 0.25, 1], [1, 1, 0]]]
    assert np.allclose(to_crop(points, boxes), expected)


def test_crop_of_whole_pixels_is_exact() -> None:
    picture = noise(90, 120)
    assert np.array_equal(cut_crop(picture, box(13, 7, 64), 64), picture[7:71, 13:77])


def test_crop_beyond_the_frame_repeats_its_border() -> None:
    picture = noise(50, 60)
    crop = cut_crop(picture, box(-10, -5, 32), 32)
    assert np.array_equal(crop, np.pad(picture, ((5, 0), (10, 0), (0, 0)), "edge")[:32, :32])
    crop = cut_crop(picture, box(40, 30, 32), 32)
    padded = np.pad(picture, ((0, 32), (0, 32), (0, 0)), "edge")
    assert np.array_equal(crop, padded[30:62, 40:72])


@pytest.mark.parametrize("side", [390.0, 355.3, 300.0, 330.0])
@pytest.mark.parametrize("size", [64, 256, 400])
def test_crop_puts_every_pixel_in_its_place(side: float, size: int) -> None:
    """Across and down alike, at every scale and where the frame cuts the surroundings off."""
    left, top = 12.3, -31.7
    crop = cut_crop(spotted(380, 500), box(left, top, side), size)
    scale = size / side
    for x, y in SPOTS:
        place = np.array([(x - left) * scale, (y - top) * scale])
        if (place < 18 * scale).any() or (place > size - 18 * scale).any():
            continue
        assert np.abs(spot_near(crop, *place, 17 * scale) - place).max() < 0.1


def test_small_crop_of_a_large_square_averages() -> None:
    """No pixel is skipped: noise gets quieter, stripes of one pixel turn grey."""
    picture = noise(400, 400)
    crop = cut_crop(picture, box(40, 40, 320), 40)
    assert crop.shape == (40, 40, 3)
    assert crop.std() < 0.2 * picture.std()
    assert abs(crop.mean() - picture.mean()) < 2
    stripes = np.zeros((400, 400, 3), np.uint8)
    stripes[:, ::2] = 200
    inner = cut_crop(stripes, box(40, 40, 320), 40)[4:-4, 4:-4]
    assert np.abs(inner.astype(int) - 100).max() <= 4


def test_window_of_whole_pixels_is_exact() -> None:
    picture = noise(260, 300)
    window = cut_window(picture, (0, 0), box(31, 12, 1))
    assert window.shape == (*WINDOW, 3)
    assert np.array_equal(window, picture[12 : 12 + WINDOW[0], 31 : 31 + WINDOW[1]])


def test_window_is_the_same_from_a_region_of_the_frame() -> None:
    picture = noise(400, 500)
    for scale in (0.7, 1.0, 1.25):
        place = box(80.4, 60.8, scale)
        x, y, width, height = window_rect(place, (500, 400))
        region = picture[y : y + height, x : x + width]
        whole = cut_window(picture, (0, 0), place).astype(int)
        assert np.abs(cut_window(region, (x, y), place) - whole).max() <= 1


@pytest.mark.parametrize("scale", [0.6, 1.0, 1.29, 1.31, 2.0, 2.37])
def test_window_puts_every_pixel_in_its_place(scale: float) -> None:
    left, top = 20.6, 33.1
    place = box(left, top, scale)
    x, y, width, height = window_rect(place, (500, 380))
    window = cut_window(spotted(380, 500)[y : y + height, x : x + width], (x, y), place)
    seen = 0
    for sx, sy in SPOTS:
        at = np.array([(sx - left) / scale, (sy - top) / scale])
        if (at < 18 / scale).any() or (at > np.array(WINDOW[::-1]) - 18 / scale).any():
            continue
        seen += 1
        assert np.abs(spot_near(window, *at, 17 / scale) - at).max() < 0.1
    assert seen


def test_window_of_a_large_face_averages() -> None:
    stripes = np.zeros((500, 600, 3), np.uint8)
    stripes[:, ::2] = 200
    inner = cut_window(stripes, (0, 0), box(20, 30, 2.5))[8:-8, 8:-8]
    assert np.abs(inner.astype(int) - 100).max() <= 45  # five columns to two: 80 or 120
    assert abs(inner.mean() - 100) < 1


def test_window_rect_holds_the_window_and_its_margin() -> None:
    assert window_rect(box(30, 20, 1), (640, 480)) == (28, 18, 196, 148)
    assert window_rect(box(30.5, 20.5, 2), (640, 480)) == (28, 18, 389, 293)
    x, y, width, height = window_rect(box(-20, 400, 1), (640, 480))
    assert (x, y) == (0, 398)
    assert (width, height) == (174, 82)
    assert window_rect(box(700, 20, 1), (640, 480))[2] == 0
