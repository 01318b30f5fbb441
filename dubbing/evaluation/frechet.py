"""Fréchet distance between two sets of pictures in the features of a stated network."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.linalg import eigvalsh

from dubbing.evaluation.foreign_weights import load_foreign
from dubbing.evaluation.perceptual import PerceptualMeter
from dubbing.models.inception import FidInception

Features = NDArray[np.float64]
Picture = NDArray[np.uint8]

MIN_PICTURES = 32  # fewer have no covariance to speak of


@dataclass(frozen=True)
class PictureEncoder:
    """One vector per picture [H, W, 3]; `version` is what stands in reports."""

    version: str
    encode: Callable[[Picture], Features]


def frechet_distance(a: Features, b: Features) -> float | None:
    """Fréchet distance of two Gaussians fitted to features [N, D] and [M, D] (FID where the
    network is FID's); None below 32 pictures. Small sets are biased upwards: read it beside the
    same number of real pictures."""
    if min(len(a), len(b)) < MIN_PICTURES:
        return None
    shift = float(np.square(a.mean(0) - b.mean(0)).sum())
    one, two = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
    # trace of the root of the product, by the eigenvalues of root(one) two root(one)
    values, vectors = np.linalg.eigh(one)
    root = (vectors * np.sqrt(values.clip(0))) @ vectors.T
    cross = np.sqrt(eigvalsh(root @ two @ root).clip(0)).sum()
    return max(shift + float(np.trace(one) + np.trace(two) - 2 * cross), 0.0)


def trunk_encoder(meter: PerceptualMeter) -> PictureEncoder:
    """The last features of ST-LPIPS's trunk, averaged over the picture: [256]."""

    def encode(picture: Picture) -> Features:
        found: Features = meter.features(picture)[-1].mean((0, 2, 3)).double().numpy()
        return found

    return PictureEncoder(f"mean of conv5 of the trunk of {meter.version}, 256-d", encode)


def load_inception(path: str | Path) -> PictureEncoder:
    """FID's own network with the weights pt_inception-2015-12-05: [2048].

    Raises:
        CheckpointNotFound: no such file.
        CheckpointCorrupt: it does not hold this network.
    """
    net = FidInception().eval()
    digest = load_foreign(net, path, "FID Inception")

    @torch.inference_mode()
    def encode(picture: Picture) -> Features:
        tensor = torch.from_numpy(np.ascontiguousarray(picture)).permute(2, 0, 1)[None]
        found: Features = net(tensor.float() / 255)[0].double().numpy()
        return found

    return PictureEncoder(f"FID InceptionV3, weights {digest}, 2048-d", encode)
