"""The sync experts' networks: shapes, density over time, what they are blind to, and the loss."""

from __future__ import annotations

import math
from dataclasses import asdict

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dubbing.models.sync_net import (
    MIN_SHIFT,
    MouthSyncNet,
    MouthSyncNetConfig,
    SyncNet,
    SyncNetConfig,
    eroded,
    sync_loss,
)

SMALL = SyncNetConfig(
    audio_size=12, lower_vertices=20, points=6, shapes=5, width=16, blocks=2, embedding=8
)
SMALL_MOUTH = MouthSyncNetConfig(audio_size=12, channels=8, width=16, blocks=2, embedding=8)


@pytest.fixture
def net() -> SyncNet:
    torch.manual_seed(0)
    made = SyncNet(SMALL).eval()
    made.set_points(torch.tensor([1, 3, 5, 7, 11, 19]))
    return made


@pytest.fixture
def mouth_net() -> MouthSyncNet:
    torch.manual_seed(0)
    return MouthSyncNet(SMALL_MOUTH).eval()


def motion(frames: int, batch: int = 2, seed: int = 1) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return 0.03 * torch.randn(batch, frames, 20, 3, generator=generator)


def sound(frames: int, batch: int = 2, seed: int = 2) -> Tensor:
    return torch.randn(batch, 2 * frames, 12, generator=torch.Generator().manual_seed(seed))


def test_every_frame_gets_a_unit_vector_of_its_own(net: SyncNet, mouth_net: MouthSyncNet) -> None:
    crops = torch.rand(2, 21, 48, 96, generator=torch.Generator().manual_seed(3))
    for vectors in (net.audio(sound(21)), net.motion(motion(21)), mouth_net.motion(crops),
                    mouth_net.audio(sound(21))):  # fmt: skip
        assert vectors.shape == (2, 21, 8)
        assert torch.allclose(vectors.norm(dim=-1), torch.ones(2, 21), atol=1e-5)
        assert (vectors[:, 10] - vectors[:, 11]).norm(dim=-1).min() > 1e-3


def test_a_longer_sequence_gives_the_same_vectors_inside(
    net: SyncNet, mouth_net: MouthSyncNet
) -> None:
    lower, audio = motion(60), sound(60)
    crops = torch.rand(1, 60, 48, 96, generator=torch.Generator().manual_seed(3))
    reach = net.reach
    assert reach == mouth_net.reach == 6
    for whole, part in (
        (net.motion(lower), net.motion(lower[:, 10:40])),
        (net.audio(audio), net.audio(audio[:, 20:80])),
        (mouth_net.motion(crops), mouth_net.motion(crops[:, 10:40])),
    ):
        inside = whole[:, 10 + reach : 40 - reach]
        assert torch.allclose(inside, part[:, reach:-reach], atol=1e-5)
        assert not torch.allclose(whole[:, 10], part[:, 0], atol=1e-3)


def test_a_vector_depends_on_nothing_beyond_its_reach(net: SyncNet) -> None:
    lower = motion(40).requires_grad_(True)
    net.motion(lower)[:, 20].sum().backward()
    assert lower.grad is not None
    touched = lower.grad.abs().sum((0, 2, 3)).nonzero()[:, 0].tolist()
    assert touched == list(range(20 - net.reach, 20 + net.reach + 1))


def test_motion_only_at_the_chosen_points_counts(net: SyncNet) -> None:
    lower = motion(30).requires_grad_(True)
    net.motion(lower).square().sum().backward()
    net.motion(lower)[..., 0].sum().backward()
    assert lower.grad is not None
    touched = lower.grad.abs().sum((0, 1, 3)).nonzero()[:, 0].tolist()
    assert touched == [1, 3, 5, 7, 11, 19]


def test_a_constant_offset_is_invisible_and_the_size_of_movement_is_not(net: SyncNet) -> None:
    lower = motion(30)
    other_face = lower + 0.2 * torch.randn(1, 1, 20, 3, generator=torch.Generator().manual_seed(5))
    assert torch.allclose(net.motion(lower), net.motion(other_face), atol=1e-4)
    assert (net.motion(lower) - net.motion(0.3 * lower)).norm(dim=-1).mean() > 0.05


def test_channels_of_sound_are_brought_to_one_scale(net: SyncNet) -> None:
    audio = sound(20)
    scale, shift = torch.linspace(0.1, 100, 12), torch.linspace(-5, 50, 12)
    plain = net.audio(audio)
    net.audio.set_statistics(shift, scale)
    assert torch.allclose(net.audio(audio * scale + shift), plain, atol=1e-3)


def test_brightness_and_contrast_do_not_reach_the_mouth_expert(mouth_net: MouthSyncNet) -> None:
    crops = torch.rand(1, 20, 48, 96, generator=torch.Generator().manual_seed(3))
    darker = crops * 0.5 + 0.1
    assert (mouth_net.motion(crops) - mouth_net.motion(darker)).abs().max() < 0.15


def test_default_sizes_stay_small() -> None:
    def size(net: nn.Module) -> int:
        return sum(p.numel() for p in net.parameters())

    assert size(SyncNet()) < 1_000_000
    assert size(MouthSyncNet()) < 2_000_000
    assert SyncNet(SyncNetConfig(**asdict(SMALL))).config == SMALL


def test_erosion_takes_the_neighbours_of_holes_and_ends() -> None:
    mask = torch.ones(1, 12, dtype=torch.bool)
    mask[0, 8] = False
    assert eroded(mask, 2)[0].nonzero()[:, 0].tolist() == [2, 3, 4, 5]
    assert eroded(mask, 0).equal(mask)


class EchoAudio(nn.Module):
    def forward(self, features: Tensor) -> Tensor:
        return F.normalize(features[:, ::2], dim=-1)


class Echo(SyncNet):
    """Both towers hand their (normalised) input on: similarity is under the test's control."""

    @property
    def reach(self) -> int:
        return 2

    def motion(self, lower: Tensor) -> Tensor:
        return F.normalize(lower.flatten(2), dim=-1)


def echo(vectors: Tensor) -> tuple[Echo, Tensor, Tensor]:
    """A net and an input for which sound and motion of [B, T, 8] `vectors` agree."""
    made = Echo(SMALL)
    made.audio = EchoAudio()  # type: ignore[assignment]
    return made, vectors.repeat_interleave(2, 1), vectors[:, :, :, None]


def test_loss_is_low_for_own_sound_and_high_for_shifted_sound() -> None:
    vectors = torch.randn(2, 60, 8, generator=torch.Generator().manual_seed(4))
    net, audio, lower = echo(vectors)
    mask = torch.ones(2, 60, dtype=torch.bool)
    aligned = sync_loss(net, audio, lower, mask)
    late = sync_loss(net, audio, lower.roll(6, 1), mask)
    unrelated = sync_loss(net, audio, torch.randn_like(lower), mask)
    assert aligned < 0.1
    assert aligned + 2 < unrelated < late


def test_loss_leaves_masked_frames_out() -> None:
    vectors = torch.randn(1, 40, 8, generator=torch.Generator().manual_seed(4))
    net, audio, lower = echo(vectors)
    mask = torch.ones(1, 40, dtype=torch.bool)
    mask[:, 25:] = False
    spoilt = lower.clone()
    spoilt[:, 25:] = 9.0
    spoilt.requires_grad_(True)
    loss = sync_loss(net, audio, spoilt, mask)
    loss.backward()
    assert spoilt.grad is not None
    assert spoilt.grad[:, 25:].abs().max() == 0
    assert torch.allclose(loss, sync_loss(net, audio, lower, mask))
    nothing = sync_loss(net, audio, lower, torch.zeros_like(mask))
    assert nothing == 0


def test_wrong_moments_that_sound_alike_ask_for_nothing() -> None:
    generator = torch.Generator().manual_seed(4)
    still = torch.randn(1, 1, 8, generator=generator).expand(1, 40, 8).clone()
    net, audio, lower = echo(still)
    mask = torch.ones(1, 40, dtype=torch.bool)
    assert sync_loss(net, audio, lower, mask) < 0.05 < math.log(40 - 2 * MIN_SHIFT)


def test_gradient_brings_motion_to_its_sound(net: SyncNet) -> None:
    audio = sound(40)
    mask = torch.ones(2, 40, dtype=torch.bool)
    lower = motion(40).requires_grad_(True)
    optimiser = torch.optim.Adam([lower], lr=2e-3)
    losses = []
    for _ in range(60):
        loss = sync_loss(net, audio, lower, mask)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] - 0.5
    assert all(p.grad is None for p in net.audio.parameters())
