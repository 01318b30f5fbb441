"""Upright grey pictures of the mouth, as the crop expert sees it."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter1d
from torch import Tensor

from dubbing.errors import NoFaceFound
from dubbing.face.tracker import FaceTracker
from dubbing.geometry.topology import LEFT_EYE_OUTER, LIPS, RIGHT_EYE_OUTER
from dubbing.media.reader import VideoReader
from dubbing.motion import RATE
from dubbing.render.crop import crop_boxes

HEIGHT, BREADTH = 48, 96  # px
SHARE = 0.44  # breadth of the picture / side of the face's crop square: mouth, chin, some cheek
BELOW = 0.02  # the picture's middle lies so many sides below that of the lips: jaws drop
SIGMA = 2.0  # frames; the cut follows the head, not the lips
MAX_GAP_S = 0.03  # the nearest frame may lie so far from the moment asked for


def mouth_places(
    landmarks: NDArray[np.float32], boxes: NDArray[np.float32] | None = None
) -> NDArray[np.float32]:
    """Where the mouth is in consecutive frames of one track.

    Args:
        landmarks: [T, >=468, >=2] pixels.
        boxes: [T, 3] crop squares of the face where they are known (`crop_boxes`).

    Returns:
        [T, 4]: middle (x, y), breadth in pixels, and roll in radians.
    """
    side = (crop_boxes(landmarks) if boxes is None else boxes)[:, 2].astype(np.float64)
    points = landmarks[:, :, :2].astype(np.float64)
    eyes = points[:, RIGHT_EYE_OUTER] - points[:, LEFT_EYE_OUTER]
    roll = np.unwrap(np.arctan2(eyes[:, 1], eyes[:, 0]))
    middle = points[:, LIPS].mean(1)
    if len(points) > 1:
        middle = gaussian_filter1d(middle, SIGMA, axis=0, mode="nearest")
        roll = gaussian_filter1d(roll, SIGMA, mode="nearest")
    down = np.stack([-np.sin(roll), np.cos(roll)], 1)
    middle = middle + BELOW * side[:, None] * down
    return np.column_stack([middle, SHARE * side, roll]).astype(np.float32)


def cut_mouth(rgb: NDArray[np.uint8], place: NDArray[np.float32]) -> NDArray[np.uint8]:
    """The mouth at `place` (a row of `mouth_places`) of a picture [H, W, 3], grey
    [HEIGHT, BREADTH]; outside the picture its border repeats."""
    x, y, breadth, roll = (float(v) for v in place)
    x, y = x - 0.5, y - 0.5  # landmarks count from the picture's edge, matrices from pixel centres
    scale = BREADTH / breadth
    grey = cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY)
    if scale < 0.75:  # averaged down first, so that nothing aliases
        sigma = 0.4 / scale
        grey = cv2.GaussianBlur(grey, (0, 0), sigma)
    cos, sin = scale * np.cos(roll), scale * np.sin(roll)
    matrix = np.array(
        [
            [cos, sin, (BREADTH - 1) / 2 - cos * x - sin * y],
            [-sin, cos, (HEIGHT - 1) / 2 + sin * x - cos * y],
        ]
    )
    cut = cv2.warpAffine(
        grey, matrix, (BREADTH, HEIGHT), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
    )
    return cut.astype(np.uint8)


def nearest_frames(times: NDArray[np.float64]) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """For the moments k / 25 s up to the last of `times` [N] (seconds, rising) which frame is
    nearest, [T], and whether it is near enough to stand for the moment, [T]."""
    moments = np.arange(int(times[-1] * RATE + 1e-6) + 1) / RATE
    right = np.searchsorted(times, moments).clip(1, max(len(times) - 1, 1))
    before = moments - times[right - 1]
    nearest = np.where(before <= times[right.clip(max=len(times) - 1)] - moments, right - 1, right)
    nearest = nearest.clip(max=len(times) - 1)
    return nearest, np.abs(times[nearest] - moments) <= MAX_GAP_S


def video_mouths(path: str | Path) -> tuple[Tensor, Tensor]:
    """Mouths of the largest face of a video, for `dubbing.sync.score_crops`.

    The video is read twice: to follow the face, then to cut.

    Returns:
        crops [T, HEIGHT, BREADTH] uint8 at k / 25 s from the first frame, and [T] bool where the
        face is there.

    Raises:
        InputNotFound, NotAVideo: see `VideoReader`.
        NoFaceFound: no face in it.
    """
    seconds: list[float] = []
    with FaceTracker() as tracker, VideoReader(path) as reader:
        for frame in reader:
            tracker.add(frame.rgb())
            seconds.append(float(frame.offset))
        tracks = tracker.finish()
    if not tracks:
        raise NoFaceFound("no face whose mouth could be cut", path=path)
    track = max(tracks, key=lambda t: t.weight)
    places = mouth_places(track.stacked())
    row = {frame: k for k, frame in enumerate(track.frames)}
    cut = {}
    with VideoReader(path) as reader:
        for frame in reader:
            if frame.index in row:
                k = row[frame.index]
                cut[k] = cut_mouth(frame.rgb(), places[k])
    nearest, usable = nearest_frames(np.array(seconds)[track.frames])
    return torch.from_numpy(np.stack([cut[k] for k in nearest.tolist()])), torch.from_numpy(usable)
