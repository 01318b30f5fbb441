"""Where a system changed the picture, found by comparing: no system tells it."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from dubbing.evaluation.pictures import Picture, luma

SMOOTH = 2.0  # px of the crop
LEAST = 3.0  # code values: what an encoder changes by itself is less
SHARE = 0.25  # of the largest change (99th percentile): above it lies what was pasted
BORDER = 2.0  # px: width of the border that seams are looked for in
MIN_SHARE = 0.002  # of the crop: less is no paste


def changed_share(pairs: Sequence[tuple[Picture, Picture]]) -> NDArray[np.float32] | None:
    """Soft mask [H, W] of what differs between results and sources of one clip.

    The mean over the pairs of the luma's difference, smoothed, is cut where it falls to a quarter
    of its height (or to 3 code values), holes filled, and blurred a little, so that its border has
    a direction.

    Args:
        pairs: (result, source) crops of one size.

    Returns:
        None where nothing but noise differs.
    """
    differences = [np.abs(luma(a) - luma(b)) for a, b in pairs]
    change = cv2.GaussianBlur(np.mean(differences, 0).astype(np.float32), (0, 0), SMOOTH)
    limit = max(LEAST, SHARE * float(np.percentile(change, 99)))
    mask = (change > limit).astype(np.uint8)
    if mask.mean() < MIN_SHARE:
        return None
    outlines, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    filled = np.zeros_like(mask)
    cv2.drawContours(filled, outlines, -1, 1, cv2.FILLED)
    soft = cv2.GaussianBlur(filled.astype(np.float32), (0, 0), BORDER)
    return np.asarray(soft, np.float32)
