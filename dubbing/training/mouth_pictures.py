"""Mouth pictures of prepared clips at 25 Hz, cut once."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor

from dubbing.errors import InputNotFound
from dubbing.evaluation.mouth_crops import cut_mouth, mouth_places, nearest_frames
from dubbing.training.prepare import CROP_SIZE
from dubbing.whole_file import save_arrays


def mouth_pictures(folder: Path, cache: Path, name: str) -> tuple[Tensor, Tensor] | None:
    """Mouths of a clip, from `cache` where they have been cut before.

    Returns:
        pictures [T, 48, 96] uint8 grey at times k / 25 s from the clip's first frame (each the
        nearest frame's), and [T] bool where a frame is near enough; None for a clip without
        stored crops (its face is too small).
    """
    path = cache / f"{name}.mouths.npz"
    if not path.exists():
        crops = folder / f"{name}.crops.npz"
        if not crops.exists():
            return None
        pictures, usable = _cut(folder / f"{name}.npz", crops)
        cache.mkdir(parents=True, exist_ok=True)
        save_arrays(path, pictures=pictures, usable=usable)
    with np.load(path) as file:
        return torch.from_numpy(file["pictures"]), torch.from_numpy(file["usable"])


def _cut(track: Path, crops: Path) -> tuple[np.ndarray, np.ndarray]:
    with np.load(track) as file:
        landmarks, boxes, times = file["landmarks"], file["boxes"], file["times"]
    with np.load(crops) as file:
        data, ends = file["data"], file["ends"]
    places = mouth_places(landmarks, boxes)
    places[:, :2] -= boxes[:, :2]
    places[:, :3] *= CROP_SIZE / boxes[:, 2:]
    nearest, usable = nearest_frames(times)
    starts = np.concatenate([[0], ends[:-1]])
    cut = {}
    for k in np.unique(nearest).tolist():
        bgr = cv2.imdecode(data[starts[k] : ends[k]], cv2.IMREAD_COLOR)
        if bgr is None:
            raise InputNotFound(f"crop {k} can't be decoded", path=crops, hint="prepare it again")
        cut[k] = cut_mouth(cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB).astype(np.uint8), places[k])
    return np.stack([cut[k] for k in nearest.tolist()]), usable
