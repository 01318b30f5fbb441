"""Figures of pictures: what is equal scores perfect, and each fault is seen by its own figure."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from dubbing.demo import demo_portrait
from dubbing.errors import CheckpointCorrupt, CheckpointNotFound
from dubbing.evaluation import pictures
from dubbing.evaluation.identity import IdentityMeter, identity_distance
from dubbing.evaluation.perceptual import MEMBER, PerceptualMeter, load_perceptual
from dubbing.face.detector import FaceBox, FaceDetector
from dubbing.models.shift_tolerant import CHANNELS, ShiftTolerantDistance

torch.set_num_threads(1)
ALL = np.ones((128, 128), bool)


@pytest.fixture(scope="module")
def face() -> np.ndarray:
    """[128, 128, 3] of the demo's portrait."""
    return demo_portrait()[150:406:2, 128:384:2].copy()


def blurred(picture: np.ndarray, sigma: float) -> np.ndarray:
    return cv2.GaussianBlur(picture, (0, 0), sigma)


def pasted(width: float) -> np.ndarray:
    """Alpha [128, 128] of a box with a soft border."""
    alpha = np.zeros((128, 128), np.float32)
    alpha[32:96, 32:96] = 1
    return cv2.GaussianBlur(alpha, (0, 0), width)


def test_equal_pictures_score_perfect(face: np.ndarray) -> None:
    assert pictures.psnr(face, face, ALL) == pytest.approx(100)
    assert pictures.ssim(face, face, ALL) == pytest.approx(1)
    assert pictures.sharpness_ratio(face, face, ALL) == pytest.approx(1)
    assert pictures.border_colour(face, face, pasted(3)) == 0
    made, source = pictures.border_gradients(face, face, pasted(3))
    assert made == source > 0


def test_psnr_is_that_of_the_masked_pixels_alone(face: np.ndarray) -> None:
    grey = np.full_like(face, 100)
    off = grey.copy()
    off[:64] += 10
    off[64:] += 100
    top = np.zeros((128, 128), bool)
    top[:64] = True
    assert pictures.psnr(off, grey, top) == pytest.approx(20 * np.log10(255 / 10))
    assert pictures.psnr(off, grey, ~top) == pytest.approx(20 * np.log10(255 / 100))
    assert pictures.psnr(off, grey, np.zeros_like(top)) is None


def test_blur_is_seen_in_sharpness_and_structure(face: np.ndarray) -> None:
    soft = blurred(face, 1.5)
    ratio = pictures.sharpness_ratio(soft, face, ALL)
    assert ratio is not None
    assert ratio < 0.4
    assert pictures.ssim(soft, face, ALL) < 0.97
    assert pictures.sharpness_ratio(face, np.full_like(face, 90), ALL) is None
    few = np.zeros((128, 128), bool)
    few[:2, :5] = True
    assert pictures.sharpness(face, few) is None


def test_a_box_around_the_mouth_is_seen_in_the_seam(face: np.ndarray) -> None:
    alpha = pasted(1.5)
    brighter = np.clip(face.astype(float) + 20 * alpha[..., None], 0, 255).astype(np.uint8)
    made, source = pictures.border_gradients(brighter, face, alpha)
    assert made > 1.2 * source
    assert pictures.border_colour(brighter, face, alpha) > 3
    assert pictures.border_gradients(face, face, np.zeros((128, 128), np.float32)) is None
    assert pictures.border_colour(face, face, np.ones((128, 128), np.float32)) is None


def test_flicker_is_seen_where_nothing_should_move(face: np.ndarray) -> None:
    random = np.random.default_rng(0)

    def film(noise: float) -> list[np.ndarray]:
        shaken = (face + random.normal(0, noise, face.shape) for _ in range(5))
        return [np.clip(p, 0, 255).astype(np.uint8) for p in shaken]

    calm, restless = film(2.0), film(8.0)
    still = [ALL] * 5
    made, source, count = pictures.flicker(restless, calm, still)
    assert count == 3 * 128 * 128
    assert 3 < made / source < 4.5
    made, source, _ = pictures.flicker([face] * 5, calm, still)
    assert made == 0 < source
    assert pictures.flicker(calm, calm, [~ALL] * 5) is None


def test_slow_change_is_no_flicker(face: np.ndarray) -> None:
    calm = np.full_like(face, 60)
    fading = [calm + np.uint8(4 * k) for k in range(6)]
    made, _, _ = pictures.flicker(fading, [calm] * 6, [ALL] * 6)
    assert made == 0


def perceptual_state() -> dict[str, torch.Tensor]:
    """Random weights under the names of the published file."""
    torch.manual_seed(0)
    shapes = {
        "slice1.0": (64, 3, 11, 11), "slice2.5": (192, 64, 5, 5), "slice3.9": (384, 192, 3, 3),
        "slice4.11": (256, 384, 3, 3), "slice5.13": (256, 256, 3, 3),
    }  # fmt: skip
    state = {}
    for name, shape in shapes.items():
        state[f"net.{name}.weight"] = torch.randn(shape) / (shape[1] * shape[2] ** 2) ** 0.5
        state[f"net.{name}.bias"] = torch.zeros(shape[0])
    filters = {"slice1.1": 64, "slice2.4": 64, "slice3.8": 192, "slice5.15": 256}
    kernel = torch.outer(torch.tensor([1.0, 2, 1]), torch.tensor([1.0, 2, 1])) / 16
    for name, count in filters.items():
        state[f"net.{name}.filt"] = kernel.expand(count, 1, 3, 3).clone()
    for k, count in enumerate(CHANNELS):
        state[f"lin{k}.model.1.weight"] = torch.rand(1, count, 1, 1)
    state["scaling_layer.shift"] = torch.tensor([-0.03, -0.088, -0.188]).view(1, 3, 1, 1)
    state["scaling_layer.scale"] = torch.tensor([0.458, 0.448, 0.45]).view(1, 3, 1, 1)
    return state


def test_perceptual_weights_are_read_from_file_and_wheel(tmp_path: Path, face: np.ndarray) -> None:
    data = io.BytesIO()
    torch.save(perceptual_state(), data)
    plain, wheel = tmp_path / "st.pth", tmp_path / "stlpips-0.0.2-py3-none-any.whl"
    plain.write_bytes(data.getvalue())
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr(f"weights/{MEMBER}", data.getvalue())
    a, b = load_perceptual(plain), load_perceptual(wheel)
    assert a.version == b.version
    assert a.between(face, blurred(face, 2)) == pytest.approx(b.between(face, blurred(face, 2)))
    plain.write_bytes(b"nothing")
    with pytest.raises(CheckpointCorrupt, match="no ST-LPIPS weights"):
        load_perceptual(plain)
    with pytest.raises(CheckpointNotFound, match="stlpips-pytorch"):
        load_perceptual(tmp_path / "none")


def test_perceptual_distance_grows_with_blur_and_forgives_a_shift(face: np.ndarray) -> None:
    torch.manual_seed(0)
    meter = PerceptualMeter(ShiftTolerantDistance(), "random")
    assert meter.between(face, face) == 0
    little, much = (meter.between(face, blurred(face, s)) for s in (1.0, 3.0))
    assert 0 < little < much
    assert meter.between(face[:, :-1], face[:, 1:]) < meter.between(face, face[:, ::-1])


def test_another_person_is_seen_in_the_identity() -> None:
    try:
        meter = IdentityMeter()
    except CheckpointNotFound as error:
        pytest.skip(str(error))
    portrait = demo_portrait()
    with FaceDetector() as detector:
        box = detector.detect(portrait)[0]
    own = meter.embedding(portrait, box)
    assert own.shape == (128,)
    darker = (portrait * 0.8).astype(np.uint8)
    broad = cv2.resize(portrait, (660, 512))
    other = FaceBox(box.x0 * 660 / 512, box.y0, box.x1 * 660 / 512, box.y1)
    same = identity_distance(own, meter.embedding(darker, box))
    changed = identity_distance(own, meter.embedding(broad, other))
    assert same < 0.3 < changed
