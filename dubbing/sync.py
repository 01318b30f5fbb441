"""Sync score: how well mouth and sound fit, and by how many frames they are apart.

Defined like SyncNet's LSE measures (Chung and Zisserman 2016; Prajwal et al. 2020), by two experts
of our own, so the numbers can't be compared with theirs. For each frame the distance between its
motion vector and the sound's vector at every offset is taken; the mean over the frames gives a
curve over offsets, whose minimum says where picture and sound fit and how well.

What neither expert can see: the first and last 0.3 s of a clip, anything in silence, and whether
the mouth says these words or others that move it alike. `SyncNet` sees the tracked or generated
mesh alone: not what a renderer makes of it, nor teeth and tongue, nor a mouth held open or closed
by a constant amount. `MouthSyncNet` sees grey pictures 96 px wide: not colour, and blur or a wrong
mouth only where they hide the movement. Both learned speech from a few hundred people; they are
sure of an offset in clips of some seconds of clear speech, rarely in a single word.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from dubbing.errors import OptionInvalid
from dubbing.models.speech_encoder import SpeechEncoder
from dubbing.models.sync_net import (
    MIN_SHIFT,
    MouthSyncNet,
    MouthSyncNetConfig,
    SyncNet,
    SyncNetConfig,
    eroded,
)
from dubbing.motion import RATE
from dubbing.speech.features import SpeechFeatures, to_rate
from dubbing.weights import PACKAGED, load_network

SYNC, SYNC_CROP = "sync", "sync_crop"
MAX_OFFSET = 15  # frames at 25 Hz on either side, 0.6 s
FEATURE_GAP_S = 0.01  # the two speech features of a frame lie this far before and after it
MIN_FRAMES = 10  # scored frames below which a clip has no score


@dataclass(frozen=True)
class SyncScore:
    """How mouth and sound of a clip fit.

    Attributes:
        offset: frames at 25 Hz by which the picture is late behind the sound, -15..15; positive is
            late. It is where the mean distance is least.
        confidence: median over the offsets of the mean distance, less its minimum; 0 or more, more
            is better (SyncNet's LSE-C, on another scale).
        distance: that minimum, 0..2 (LSE-D, on another scale); 1.41 is unrelated.
        frames: frames that were scored.
    """

    offset: int
    confidence: float
    distance: float
    frames: int


def load_sync(path: Path = PACKAGED / f"{SYNC}.safetensors") -> SyncNet:
    """The expert for mesh motion.

    Raises:
        CheckpointNotFound, CheckpointCorrupt: see `dubbing.weights.load_checkpoint`.
    """
    return load_network(path, SYNC, SyncNet, SyncNetConfig)


def load_sync_crop(path: Path = PACKAGED / f"{SYNC_CROP}.safetensors") -> MouthSyncNet:
    """The expert for pictures of the mouth.

    Raises:
        CheckpointNotFound, CheckpointCorrupt: see `dubbing.weights.load_checkpoint`.
    """
    return load_network(path, SYNC_CROP, MouthSyncNet, MouthSyncNetConfig)


def feature_times(frames: int) -> Tensor:
    """Times [2 T] in seconds of the two speech features of each of T frames at 25 Hz."""
    times = torch.arange(frames, dtype=torch.float64) / RATE
    return torch.stack([times - FEATURE_GAP_S, times + FEATURE_GAP_S], 1).flatten()


def sync_audio(encoder: SpeechEncoder, samples: Tensor, frames: int) -> Tensor:
    """What the experts hear: the state of the encoder's frozen lower half.

    Args:
        samples: [N] at 16 kHz from the first frame on.
        frames: T, frames at 25 Hz.

    Returns:
        [2 T, D] float32.

    Raises:
        AudioUnusable: too few samples.
    """
    features = SpeechFeatures(encoder, (encoder.config.frozen_layers,)).encode(samples)
    return to_rate(features, feature_times(frames))


@torch.inference_mode()
def offset_distances(
    expert: SyncNet | MouthSyncNet,
    audio: Tensor,
    motion: Tensor,
    usable: Tensor | None = None,
    limit: int = MAX_OFFSET,
) -> Tensor:
    """Distance between the motion of each frame and the sound at each offset.

    Args:
        audio: [2 T, A] from `sync_audio`.
        motion: [T, ...] what the expert's `motion` takes, without the batch axis.
        usable: [T] bool, False where the motion is not to be trusted; None is all.

    Returns:
        [T, 2 limit + 1], 0..2; column k is for a picture that is k - limit frames late. NaN where
        a frame can't be scored or the sound lies outside.
    """
    frames = min(len(audio) // 2, len(motion))
    mask = torch.ones(frames, dtype=torch.bool) if usable is None else usable[:frames].bool()
    heard = expert.audio(audio[None, : 2 * frames].float())[0]
    seen = expert.motion(motion[None, :frames].float())[0]
    valid = eroded(mask[None].to(seen.device), expert.reach)[0]
    out = torch.full((frames, 2 * limit + 1), float("nan"), device=seen.device)
    time = torch.arange(frames, device=seen.device)
    for k in range(2 * limit + 1):
        place = time - (k - limit)
        known = valid & (place >= 0) & (place < frames)
        cosine = (seen[known] * heard[place[known]]).sum(-1)
        out[known, k] = (2 - 2 * cosine).clamp_min(0).sqrt()
    return out.cpu()


def score(distances: Tensor) -> SyncScore:
    """The score of `offset_distances` [T, 2 limit + 1].

    Raises:
        OptionInvalid: fewer than `MIN_FRAMES` frames are scored at some offset.
    """
    counts = distances.isfinite().sum(0)
    if int(counts.min()) < MIN_FRAMES:
        raise OptionInvalid(
            f"the sync score has {int(counts.min())} frames at an offset, less than {MIN_FRAMES}",
            hint="give a longer stretch in which the face is seen",
        )
    curve = distances.nanmean(0)
    best = int(curve.argmin())
    return SyncScore(
        best - len(curve) // 2,
        float(curve.median() - curve[best]),
        float(curve[best]),
        int(counts.max()),
    )


def score_motion(
    expert: SyncNet, audio: Tensor, lower: Tensor, usable: Tensor | None = None
) -> SyncScore:
    """Score of mesh motion, tracked or generated.

    Args:
        audio: [2 T, A] from `sync_audio`.
        lower: [T, L, 3] displacements of the lower vertices at 25 Hz.
        usable: [T] bool where the motion is to be trusted.

    Raises:
        OptionInvalid: too short, see `score`.
    """
    return score(offset_distances(expert, audio, lower, usable))


def score_crops(
    expert: MouthSyncNet, audio: Tensor, crops: Tensor, usable: Tensor | None = None
) -> SyncScore:
    """Score of pictures of the mouth.

    Args:
        audio: [2 T, A] from `sync_audio`.
        crops: [T, height, breadth] grey at 25 Hz, 0..1 or uint8.
        usable: [T] bool where a mouth is seen.

    Raises:
        OptionInvalid: too short, see `score`.
    """
    grey = crops.float() / 255 if crops.dtype == torch.uint8 else crops
    return score(offset_distances(expert, audio, grey, usable))


SURE = 3.0  # standard errors by which the best offset has to beat every other
DEPENDENT = 8  # neighbouring frames that hardly tell more than one: what a vector sees overlaps
MAX_SURE_OFFSET = MAX_OFFSET - MIN_SHIFT  # nearer to the end of the search there is no rival


def best_offset(distances: Tensor) -> tuple[int, float]:
    """The offset of `offset_distances` rows [T, 2 limit + 1], and by how many standard errors the
    frames prefer it to every offset at least `MIN_SHIFT` frames away (the least over those);
    0 where frames are too few."""
    limit = distances.shape[1] // 2
    if int(distances.isfinite().sum(0).min()) < MIN_FRAMES:
        return 0, 0.0
    best = int(distances.nanmean(0).argmin())
    rivals = (torch.arange(2 * limit + 1) - best).abs() >= MIN_SHIFT
    gain = distances[:, rivals] - distances[:, best : best + 1]
    count = gain.isfinite().sum(0)
    mean = gain.nanmean(0)
    spread = (gain - mean).square().nanmean(0).sqrt()
    errors = spread / (count / DEPENDENT).sqrt()
    return best - limit, float((mean / errors.clamp_min(1e-6)).amin())


def clip_offset(
    expert: SyncNet | MouthSyncNet,
    audio: Tensor,
    motion: Tensor,
    usable: Tensor | None = None,
) -> tuple[int, bool]:
    """Offset of a clip, for the care of training data.

    Args:
        audio, motion, usable: see `offset_distances`.

    Returns:
        Frames at 25 Hz by which the picture is late behind the sound, and whether the clip shows
        that surely: the frames prefer it by `SURE` standard errors to all others, and it does not
        lie at the end of the search. Offsets beyond 12 frames are never sure.
    """
    offset, errors = best_offset(offset_distances(expert, audio, motion, usable))
    return offset, errors >= SURE and abs(offset) <= MAX_SURE_OFFSET
