"""LSE-C and LSE-D, the usual sync scores, with SyncNet weights that the user gives.

Definition (Chung and Zisserman 2016; Prajwal et al. 2020): the mean over all windows of five frames
at 25 Hz of the distance between picture and sound, at every offset of -15..15 frames. LSE-D is its
minimum, LSE-C the median less the minimum; the offset is where the minimum lies. What is ours: the
face is placed by our own landmarks in place of S3FD, and smoothed over time as in theirs.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from scipy.fft import dct
from scipy.signal import medfilt
from torch import Tensor

from dubbing.errors import OptionInvalid
from dubbing.evaluation.clips import Samples
from dubbing.evaluation.foreign_weights import load_foreign
from dubbing.models.syncnet import COEFFICIENTS, FACE, FRAMES, STEPS, ChungSyncNet

MAX_OFFSET = 15  # frames at 25 Hz on either side
PAD = 0.4  # of the face box, around it
STEP, WINDOW, FFT, FILTERS = 160, 400, 512, 26  # MFCC: samples of a hop, of a window; bands
LIFTER, EMPHASIS = 22, 0.97
BATCH = 16
MIN_WINDOWS = 25  # a second


@dataclass(frozen=True)
class LseScore:
    """LSE-C `confidence` (more is better), LSE-D `distance` (less is better), and `offset`: frames
    at 25 Hz by which the picture is late behind the sound."""

    confidence: float
    distance: float
    offset: int


class LseMeter:
    """SyncNet at work. `version` is what stands in reports."""

    def __init__(self, net: ChungSyncNet, digest: str):
        self._net = net.eval()
        self.version = f"SyncNet, weights {digest}"

    @torch.inference_mode()
    def score(self, faces: NDArray[np.uint8], samples: Samples) -> LseScore:
        """Score of a clip.

        Args:
            faces: [T, 224, 224, 3] RGB at 25 Hz, see `face_squares`; samples: [N] at 16 kHz from
                the first of them on.

        Raises:
            OptionInvalid: less than a second of both.
        """
        sound = torch.from_numpy(mfcc(samples)).float()
        windows = min(len(faces), len(samples) // 640) - FRAMES
        if windows < MIN_WINDOWS:
            raise OptionInvalid("SyncNet needs more than a second of picture and sound")
        bgr = torch.from_numpy(np.ascontiguousarray(faces[..., ::-1])).permute(3, 0, 1, 2)
        seen, heard = [], []
        for start in range(0, windows, BATCH):
            places = range(start, min(start + BATCH, windows))
            seen.append(
                self._net.face(torch.stack([bgr[:, k : k + FRAMES] for k in places]).float())
            )
            parts = [sound[:, 4 * k : 4 * k + STEPS] for k in places]
            heard.append(self._net.sound(torch.stack(parts)[:, None]))
        return lse_of(torch.cat(seen), torch.cat(heard))


def lse_of(seen: Tensor, heard: Tensor) -> LseScore:
    """Score of embeddings [T, D] of pictures and of sound at equal times."""
    padded = F.pad(heard, (0, 0, MAX_OFFSET, MAX_OFFSET))
    # column k compares with sound k - 15 frames later
    distances = torch.stack(
        [F.pairwise_distance(seen, padded[k : k + len(seen)]) for k in range(2 * MAX_OFFSET + 1)], 1
    )
    mean = distances.mean(0)
    least = int(mean.argmin())
    confidence = float(mean.median() - mean[least])
    return LseScore(confidence, float(mean[least]), MAX_OFFSET - least)


def mfcc(samples: Samples) -> NDArray[np.float64]:
    """[13, T] coefficients every 10 ms of [N] samples at 16 kHz, as SyncNet was trained on them:
    16-bit values, pre-emphasis 0.97, windows of 25 ms without a taper, 26 mel bands, liftered, the
    first coefficient replaced by the log energy."""
    signal = np.rint(np.clip(samples.astype(np.float64), -1, 1) * 32767)
    signal = np.append(signal[:1], signal[1:] - EMPHASIS * signal[:-1])
    count = 1 + max(int(np.ceil((len(signal) - WINDOW) / STEP)), 0)
    padded = np.pad(signal, (0, max((count - 1) * STEP + WINDOW - len(signal), 0)))
    frames = np.lib.stride_tricks.sliding_window_view(padded, WINDOW)[::STEP][:count]
    power = np.abs(np.fft.rfft(frames, FFT)) ** 2 / FFT
    tiny = np.finfo(float).eps
    energy = np.where((total := power.sum(1)) == 0, tiny, total)
    bands = power @ _mel_bank().T
    coefficients = dct(np.log(np.where(bands == 0, tiny, bands)), type=2, axis=1, norm="ortho")
    coefficients = coefficients[:, :COEFFICIENTS]
    lift = 1 + LIFTER / 2 * np.sin(np.pi * np.arange(COEFFICIENTS) / LIFTER)
    coefficients = coefficients * lift
    coefficients[:, 0] = np.log(energy)
    found: NDArray[np.float64] = coefficients.T
    return found


def _mel_bank() -> NDArray[np.float64]:
    """[26, 257] triangles from 0 to 8 kHz, evenly spaced in mel, at whole bins."""
    top = 2595 * np.log10(1 + 8000 / 700)
    hertz = 700 * (10 ** (np.linspace(0, top, FILTERS + 2) / 2595) - 1)
    bins = np.floor((FFT + 1) * hertz / 16000).astype(int)
    bank = np.zeros((FILTERS, FFT // 2 + 1))
    for k, (low, middle, high) in enumerate(zip(bins, bins[1:], bins[2:], strict=False)):
        bank[k, low:middle] = (np.arange(low, middle) - low) / max(middle - low, 1)
        bank[k, middle:high] = (high - np.arange(middle, high)) / max(high - middle, 1)
    return bank


def face_places(boxes: NDArray[np.float64]) -> NDArray[np.float64]:
    """Steady squares [T, 3] (x, y of the middle, half the side) of face boxes [T, 4] (x0, y0, x1,
    y1): medians over 13 frames."""
    half = np.maximum(boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1]) / 2
    middle = (boxes[:, :2] + boxes[:, 2:]) / 2
    columns = [middle[:, 0], middle[:, 1], half]
    padded = (np.pad(c, 6, mode="edge") for c in columns)
    return np.stack([medfilt(c, 13)[6:-6] for c in padded], 1)


def face_square(rgb: NDArray[np.uint8], place: NDArray[np.float64]) -> NDArray[np.uint8]:
    """The crop [224, 224, 3] of a picture [H, W, 3] at a row of `face_places`: 1.8 times the face's
    side, the face 0.2 sides above its middle; outside the picture grey 110."""
    x, y, half = (float(v) for v in place)
    room = int(half * (1 + 2 * PAD))
    padded = cv2.copyMakeBorder(rgb, room, room, room, room, cv2.BORDER_CONSTANT, value=(110,) * 3)
    top, bottom = int(y + room - half), int(y + room + half * (1 + 2 * PAD))
    left, right = (int(x + room + side * half * (1 + PAD)) for side in (-1, 1))
    return cv2.resize(padded[top:bottom, left:right], (FACE, FACE)).astype(np.uint8)


def load_lse(path: str | Path) -> LseMeter:
    """Read SyncNet weights, the state dict known as syncnet_v2.model.

    Raises:
        CheckpointNotFound: no such file.
        CheckpointCorrupt: it does not hold this network.
    """
    net = ChungSyncNet()
    return LseMeter(net, load_foreign(net, path, "SyncNet"))
