"""One openly licensed portrait, at sizes that keep the tests quick."""

from __future__ import annotations

from collections.abc import Iterator

import cv2
import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from dubbing.demo import demo_portrait
from dubbing.face.detector import FaceDetector
from dubbing.face.landmarks import FaceMesher

torch.set_num_threads(1)


@pytest.fixture(scope="session")
def portrait() -> NDArray[np.uint8]:
    """[320, 320, 3] RGB, one face about 110 px wide."""
    small = cv2.resize(demo_portrait(), (320, 320), interpolation=cv2.INTER_AREA)
    return small.astype(np.uint8)


@pytest.fixture(scope="session")
def detector() -> Iterator[FaceDetector]:
    with FaceDetector() as made:
        yield made


@pytest.fixture(scope="session")
def mesher() -> Iterator[FaceMesher]:
    with FaceMesher() as made:
        yield made
