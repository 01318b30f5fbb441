"""Figures of a picture beside another: error, structure, sharpness, seams, flicker."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray
from skimage.color import deltaE_ciede2000, rgb2lab
from skimage.metrics import structural_similarity

Picture = NDArray[np.uint8]
Plane = NDArray[np.float32]
Mask = NDArray[np.bool_]

MIN_PIXELS = 40  # fewer show no texture
COLOUR_SIGMA = 3.0  # px: colours are compared as averages over so much
STILL = 0.5  # px between frames: geometry that moves less counts as still
MIN_STILL = 2000  # pixels of the whole run


def psnr(a: Picture, b: Picture, mask: Mask) -> float | None:
    """PSNR in dB of two pictures [H, W, 3] where `mask` holds, all channels together; None where
    it holds nowhere; 100 for equal ones."""
    if not mask.any():
        return None
    error = float(np.square(a[mask].astype(np.float64) - b[mask]).mean())
    return float(10 * np.log10(255.0**2 / max(error, 255.0**2 * 1e-10)))


def ssim(a: Picture, b: Picture, mask: Mask) -> float | None:
    """SSIM (Wang et al. 2004: Gaussian window of 1.5 px, population covariances), mean of the
    three channels and of the pixels where `mask` holds."""
    if not mask.any():
        return None
    _, every = structural_similarity(
        a, b, channel_axis=2, data_range=255, gaussian_weights=True, sigma=1.5,
        use_sample_covariance=False, full=True,
    )  # type: ignore[no-untyped-call]  # fmt: skip
    return float(every[mask].mean())


def luma(picture: Picture) -> Plane:
    """[H, W] BT.601 luma 0..255."""
    return cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY).astype(np.float32)


def sharpness(picture: Picture, mask: Mask) -> float | None:
    """Variance of the Laplacian (3 x 3, of the luma) where `mask` holds."""
    if mask.sum() < MIN_PIXELS:
        return None
    return float(cv2.Laplacian(luma(picture), cv2.CV_32F)[mask].var())


def sharpness_ratio(made: Picture, truth: Picture, mask: Mask) -> float | None:
    """Sharpness of `made` in that of `truth`; None where the truth shows no texture."""
    a, b = sharpness(made, mask), sharpness(truth, mask)
    return None if a is None or b is None or b < 1e-3 else a / b


def border_gradients(made: Picture, source: Picture, alpha: Plane) -> tuple[float, float] | None:
    """Mean gradient across the border of what was pasted: of the result, and of the source there.

    The border is where the blend is partial (0.1 < alpha < 0.9), its direction that in which alpha
    grows; gradients are those of the luma (Scharr), in code values per pixel.

    Returns:
        None where nothing was pasted with a border.
    """
    border = (alpha > 0.1) & (alpha < 0.9)
    across_x, across_y = _gradient(alpha)
    length = np.hypot(across_x, across_y)
    border &= length > 1e-4
    if border.sum() < MIN_PIXELS:
        return None
    nx, ny = across_x[border] / length[border], across_y[border] / length[border]
    found = []
    for picture in (made, source):
        gx, gy = _gradient(luma(picture))
        found.append(float(np.abs(gx[border] * nx + gy[border] * ny).mean()))
    return found[0], found[1]


def border_colour(made: Picture, source: Picture, alpha: Plane) -> float | None:
    """CIE 2000 difference between result and source just inside the border (0.8 < alpha < 0.99),
    both averaged over 3 px: the step of colour that the paste adds, because outside of the border
    the result is the source. Mean over the border."""
    inside = (alpha > 0.8) & (alpha < 0.99)
    if inside.sum() < MIN_PIXELS:
        return None
    step = deltaE_ciede2000(_smooth_lab(made, inside), _smooth_lab(source, inside))  # type: ignore[no-untyped-call]
    return float(np.mean(step))


def flicker(
    made: Sequence[Picture], source: Sequence[Picture], still: Sequence[Mask]
) -> tuple[float, float, int] | None:
    """Mean absolute second difference over time of the luma where nothing should move.

    Args:
        made, source: T pictures of one size; still: T masks, of which `still[t]` holds where
            neither moves from t - 1 to t + 1.

    Returns:
        (of the result, of the source, number of pixels); None below MIN_STILL pixels.
    """
    totals, count = [0.0, 0.0], 0
    for t in range(1, len(made) - 1):
        mask = still[t]
        count += int(mask.sum())
        for k, film in enumerate((made, source)):
            before, now, after = (luma(p)[mask] for p in film[t - 1 : t + 2])
            totals[k] += float(np.abs(before - 2 * now + after).sum())
    return (totals[0] / count, totals[1] / count, count) if count >= MIN_STILL else None


def _smooth_lab(picture: Picture, mask: Mask) -> NDArray[np.float64]:
    """CIE Lab [N, 3] of the colours around the N pixels of a mask."""
    smooth = cv2.GaussianBlur(picture.astype(np.float32) / 255, (0, 0), COLOUR_SIGMA)
    lab: NDArray[np.float64] = rgb2lab(smooth[mask])
    return lab


def _gradient(plane: Plane) -> tuple[Plane, Plane]:
    dx, dy = (cv2.Scharr(plane, cv2.CV_32F, *way) / 32 for way in ((1, 0), (0, 1)))
    return dx.astype(np.float32), dy.astype(np.float32)
