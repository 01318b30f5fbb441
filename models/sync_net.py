"""Audio-motion sync experts: speech and mouth movement to vectors that agree when they belong
together.

The idea is SyncNet's (Chung and Zisserman 2016): two towers into one space, trained to tell sound
and mouth of the same moment from those of different moments. Unlike it, both towers are dense over
time: a sequence of any length gives one unit vector per 25-Hz frame, each from about 0.6 s around
it. `SyncNet` sees the motion of the face mesh and is differentiable in it, so that stage 1 can be
trained with it (`sync_loss`); `MouthSyncNet` sees pictures of the mouth.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

MOTION_SCALE = 20.0  # displacements are a few hundredths of the face: bring them to about 1
MIN_SHIFT = 3  # frames: nearer moments look and sound alike and count neither way
SPAN = 9  # frames that the first convolution over motion sees


@dataclass(frozen=True)
class SyncNetConfig:
    """Sizes of a `SyncNet`; stored in its checkpoint."""

    audio_size: int = 384  # channels of one speech feature (frozen lower half of the encoder)
    lower_vertices: int = 177  # of the geometry network's lower face
    points: int = 60  # of them, those that the expert looks at
    shapes: int = 32  # linear measures of these points, before time is looked at
    width: int = 128
    blocks: int = 3  # temporal convolutions after the first, per tower
    embedding: int = 64
    dropout: float = 0.2


@dataclass(frozen=True)
class MouthSyncNetConfig:
    """Sizes of a `MouthSyncNet`; stored in its checkpoint."""

    audio_size: int = 384
    height: int = 48  # px of a mouth picture
    breadth: int = 96
    channels: int = 32  # of the first convolution over the picture
    width: int = 128
    blocks: int = 3
    embedding: int = 64
    dropout: float = 0.2


class FrameNorm(nn.LayerNorm):
    """Layer norm over the channels of each frame of [B, C, T]: no frame sees another."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.transpose(1, 2)).transpose(1, 2)


class TimeBlock(nn.Module):
    """Residual convolution over three neighbouring frames, [B, C, T] -> [B, C, T]."""

    def __init__(self, width: int, dropout: float):
        super().__init__()
        self.layers = nn.Sequential(
            FrameNorm(width),
            nn.Conv1d(width, width, 3, padding=1, padding_mode="replicate"),
            nn.GELU(),
            nn.Dropout(dropout),
            nn.Conv1d(width, width, 1),
        )

    def forward(self, x: Tensor) -> Tensor:
        added: Tensor = x + self.layers(x)
        return added


def _head(width: int, blocks: int, embedding: int, dropout: float) -> nn.Sequential:
    """Temporal blocks and the last projection, [B, width, T] -> [B, embedding, T]."""
    return nn.Sequential(
        *(TimeBlock(width, dropout) for _ in range(blocks)),
        FrameNorm(width),
        nn.Conv1d(width, embedding, 1),
    )


class AudioTower(nn.Module):
    """Speech features at 50 Hz to unit vectors at 25 Hz.

    The features are brought to mean 0 and deviation 1 per channel (`set_statistics`), because a few
    channels of the encoder's state are a hundred times larger than those that tell sounds apart.
    """

    def __init__(self, size: int, width: int, blocks: int, embedding: int, dropout: float):
        super().__init__()
        self.mean: Tensor
        self.deviation: Tensor
        self.register_buffer("mean", torch.zeros(size))
        self.register_buffer("deviation", torch.ones(size))
        self.hide = nn.Dropout1d(dropout)  # whole channels, for the length of a window
        self.channel_in = nn.Linear(size, width)
        self.halve = nn.Conv1d(width, width, 4, stride=2, padding=1, padding_mode="replicate")
        self.head = _head(width, blocks, embedding, dropout)

    def set_statistics(self, mean: Tensor, deviation: Tensor) -> None:
        """Mean and deviation [size] of the features over speech."""
        self.mean.copy_(mean)
        self.deviation.copy_(deviation)

    def forward(self, features: Tensor) -> Tensor:
        """[B, 2 T, size] -> [B, T, E]."""
        hidden = self.hide(self.deviation.reciprocal().expand(len(features), -1)[..., None])
        x = F.gelu(self.channel_in((features - self.mean) * hidden.transpose(1, 2)))
        x = self.head(self.halve(x.transpose(1, 2)))
        return F.normalize(x.transpose(1, 2), dim=-1)


class ChangeConv(nn.Conv1d):
    """Convolution over time whose kernels sum to zero: blind to whatever stays the same."""

    def forward(self, x: Tensor) -> Tensor:
        weight = self.weight - self.weight.mean(-1, keepdim=True)
        return F.conv1d(F.pad(x, (SPAN // 2, SPAN // 2), mode="replicate"), weight, self.bias)


class SyncNet(nn.Module):
    """Speech and lower-face motion to one space, dense over time.

    What stays the same over `SPAN` frames (the speaker's resting mouth, an error of the neutral
    face) is invisible to it, so it can't recognise people by it; how far the mouth moves stays
    visible, so a movement of the right shape but the wrong size does not pass.
    """

    def __init__(self, config: SyncNetConfig | None = None):
        super().__init__()
        self.config = c = config or SyncNetConfig()
        self.points: Tensor
        self.register_buffer("points", torch.arange(c.points))
        self.audio = AudioTower(c.audio_size, c.width, c.blocks, c.embedding, c.dropout)
        self.shapes = nn.Linear(3 * c.points, c.shapes, bias=False)
        self.change = ChangeConv(c.shapes, c.width, SPAN)
        self.head = _head(c.width, c.blocks, c.embedding, c.dropout)

    def set_points(self, points: Tensor) -> None:
        """Which of the lower vertices are looked at: [points], indices into 0..L-1."""
        self.points.copy_(points)

    @property
    def reach(self) -> int:
        """Frames on either side of its own on which a motion vector depends."""
        return SPAN // 2 + self.config.blocks

    def motion(self, lower: Tensor) -> Tensor:
        """Unit vectors of motion.

        Args:
            lower: [B, T, L, 3] displacements of the lower vertices from the template at 25 Hz, in
                morphable-model units. Beyond both ends the mouth is taken to stand still, which
                spoils the first and last `reach` vectors.

        Returns:
            [B, T, E].
        """
        moved = lower[:, :, self.points].flatten(2) * MOTION_SCALE
        x = F.gelu(self.change(self.shapes(moved).transpose(1, 2)))
        return F.normalize(self.head(x).transpose(1, 2), dim=-1)


class MouthSyncNet(nn.Module):
    """Speech and pictures of the mouth to one space, dense over time.

    Each picture passes 2D convolutions alone; time is looked at afterwards, first by kernels that
    sum to zero, so that what stays the same (skin, beard, light) is invisible there.
    """

    def __init__(self, config: MouthSyncNetConfig | None = None):
        super().__init__()
        self.config = c = config or MouthSyncNetConfig()
        self.audio = AudioTower(c.audio_size, c.width, c.blocks, c.embedding, c.dropout)
        sizes = (c.channels, 2 * c.channels, 3 * c.channels)
        layers: list[nn.Module] = [nn.Conv2d(1, c.channels, 7, stride=4, padding=3)]
        for before, after in pairwise(sizes):
            layers += [
                nn.GroupNorm(max(before // 8, 1), before),
                nn.GELU(),
                nn.Conv2d(before, after, 3, stride=2, padding=1),
            ]
        layers += [nn.GroupNorm(max(sizes[-1] // 8, 1), sizes[-1]), nn.GELU()]
        self.picture_conv = nn.Sequential(*layers)
        cells = -(-c.height // 16) * -(-c.breadth // 16)
        self.picture_out = nn.Sequential(
            nn.Dropout(c.dropout), nn.Linear(sizes[-1] * cells, c.width), nn.LayerNorm(c.width)
        )
        self.change = ChangeConv(c.width, c.width, SPAN)
        self.head = _head(c.width, c.blocks, c.embedding, c.dropout)

    @property
    def reach(self) -> int:
        """Frames on either side of its own on which a picture vector depends."""
        return SPAN // 2 + self.config.blocks

    def motion(self, crops: Tensor) -> Tensor:
        """Unit vectors of mouth pictures.

        Args:
            crops: [B, T, height, breadth] grey, 0..1, upright mouths at 25 Hz, cut by
                `dubbing.evaluation.mouth_crops`.

        Returns:
            [B, T, E]; the first and last `reach` vectors are spoilt as in `SyncNet.motion`.
        """
        batch, time = crops.shape[:2]
        grey = crops.flatten(0, 1)[:, None]
        mean, deviation = grey.mean((1, 2, 3), True), grey.std((1, 2, 3), keepdim=True)
        x = self.picture_conv((grey - mean) / (deviation + 0.02))
        x = self.picture_out(x.flatten(1)).unflatten(0, (batch, time))
        x = F.gelu(self.change(x.transpose(1, 2)))
        return F.normalize(self.head(x).transpose(1, 2), dim=-1)


def eroded(mask: Tensor, reach: int) -> Tensor:
    """Frames of mask [B, T] (bool) whose neighbours up to `reach` frames away are all inside."""
    seen = F.pad(mask[:, None].float(), (reach, reach))
    return -F.max_pool1d(-seen, 2 * reach + 1, 1)[:, 0] > 0.5


def sync_loss(
    net: SyncNet | MouthSyncNet,
    audio: Tensor,
    motion: Tensor,
    mask: Tensor,
    temperature: float = 0.1,
    smooth: int = 2,
) -> Tensor:
    """How far motion is from belonging to its sound, compared with the same window's other times.

    For every frame t the motion's vector (mean of the similarities over t - smooth..t + smooth,
    each with its own sound) is matched against the sound of t and of every s at least `MIN_SHIFT`
    frames away: cross-entropy of picking t. A wrong moment that sounds like t counts less, by one
    minus the similarity of the two sounds, so that silence against silence asks for nothing. Of
    frames nearer than the net's `reach` to an end or to a masked frame there is no term.

    Args:
        net: frozen, in evaluation mode; gradients flow to `motion` alone.
        audio: [B, 2 T, audio_size] speech features at 10 ms before and after each frame's time.
        motion: what `net.motion` takes, [B, T, ...].
        mask: [B, T] bool, False where the motion or the sound is padding or not to be trusted.
        temperature: of the softmax; similarities of true pairs are about 0.3 to 0.6 above those of
            wrong ones, so 0.1 keeps every pair in play.
        smooth: frames on either side over which similarities are averaged.

    Returns:
        Scalar, 0 or more: about log of the number of candidates for unrelated motion. 0 where no
        frame has a term (a window shorter than 2 * reach + 1).
    """
    with torch.no_grad():
        heard = net.audio(audio)
    seen = net.motion(motion)
    time = torch.arange(seen.shape[1], device=seen.device)
    shift = time[None, :] - time[:, None]
    valid = eroded(mask, net.reach)
    similarity = torch.einsum("bte,bse->bts", seen, heard)
    logits = _diagonal_mean(similarity, valid[:, :, None] & mask[:, None], smooth) / temperature
    with torch.no_grad():
        alike = torch.einsum("bte,bse->bts", heard, heard)
        weight = (1 - alike).clamp(1e-4, 1.0).masked_fill(shift.abs() < MIN_SHIFT, 0.0)
        weight = weight * mask[:, None] + torch.eye(len(time), device=seen.device)
    scores = torch.logsumexp(logits + weight.log(), -1) - logits.diagonal(dim1=1, dim2=2)
    return (scores * valid).sum() / valid.sum().clamp_min(1)


def _diagonal_mean(values: Tensor, known: Tensor, reach: int) -> Tensor:
    """Means of [B, T, S] over (t + k, s + k) with |k| <= reach, where `known` is True."""
    weight = known.to(values)
    total, count = torch.zeros_like(values), torch.zeros_like(values)
    for k in range(-reach, reach + 1):
        total += _slid(values * weight, k)
        count += _slid(weight, k)
    return total / count.clamp_min(1)


def _slid(x: Tensor, k: int) -> Tensor:
    """x[:, t + k, s + k] with zeros from outside."""
    if k == 0:
        return x
    part = x[:, k:, k:] if k > 0 else x[:, :k, :k]
    return F.pad(part, (0, k, 0, k) if k > 0 else (-k, 0, -k, 0))
