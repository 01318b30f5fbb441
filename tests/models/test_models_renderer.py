"""Stage 2 network: what it copies, how it chooses, and where its repair starts."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from dubbing.models.attention import NEVER, full_attention
from dubbing.models.discriminator import (
    PatchDiscriminator,
    discriminator_loss,
    feature_matching,
    generator_loss,
)
from dubbing.models.perceptual import PerceptualLoss
from dubbing.models.renderer import (
    STRIDE,
    Correspondence,
    LipReferences,
    Renderer,
    RendererConfig,
    blurred,
    copy_pixels,
    sample_pixels,
)

torch.set_num_threads(1)

SIZE = (32, 48)
TOKENS = (SIZE[0] // STRIDE, SIZE[1] // STRIDE)


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def identity(batch: int, count: int) -> Correspondence:
    """Every reference lies under the target, deformed and turned alike."""
    y = torch.arange(SIZE[0]).add(0.5)[:, None].expand(SIZE)
    x = torch.arange(SIZE[1]).add(0.5)[None].expand(SIZE)
    place = torch.stack([x, y], -1).expand(batch, count, *SIZE, 2)
    none = torch.zeros(batch, count)
    return Correspondence(place, torch.zeros(batch, count, *SIZE), none, none.clone())


@pytest.fixture(scope="module")
def renderer() -> Renderer:
    torch.manual_seed(0)
    return Renderer(RendererConfig()).eval()


def lip_references(renderer: Renderer, pictures: Tensor, pncc: Tensor) -> LipReferences:
    return renderer.lip_references(renderer.encode_textures(pictures), pncc)


@pytest.mark.parametrize("count", [1, 5, 25])
def test_shapes_with_any_number_of_references(renderer: Renderer, count: int) -> None:
    c = renderer.config
    pictures = drawn(2, count, 3, *SIZE)
    latents = lip_references(renderer, pictures, drawn(2, count, 3, *SIZE, seed=1))
    assert latents.key.shape == (2, count, c.geometry_width, *TOKENS)
    assert latents.texture.shape == (2, count, c.texture_width, *TOKENS)
    assert latents.pncc.shape == (2, count, 3, *TOKENS)
    pncc = drawn(2, 3, *SIZE, seed=2)
    geometry = renderer.encode_target(pncc)
    assert geometry.shape == (2, c.geometry_width, *TOKENS)
    match = identity(2, count)
    by_lips = renderer.lip(geometry, pncc, latents, match)
    by_face = renderer.face(latents.texture, match)
    for found in (by_lips, by_face):
        assert found.value.shape == (2, c.texture_width, *TOKENS)
        assert found.reference_logits.shape == (2, count, *SIZE)


def test_the_decoder_begins_by_changing_nothing(renderer: Renderer) -> None:
    latent = torch.randn(2, renderer.config.texture_width, *TOKENS)
    correction = renderer.decoder(latent, drawn(2, 3, *SIZE), drawn(2, 3, *SIZE))
    assert correction.shape == (2, 3, *SIZE)
    assert not correction.any()
    correction.sum().backward()  # and still learns
    assert renderer.decoder.out.bias.grad is not None
    assert renderer.decoder.out.bias.grad.abs().min() > 0


def test_attention_prefers_the_reference_that_is_deformed_alike(renderer: Renderer) -> None:
    """Before training geometry alone decides: expression difference, head turn, map distance."""
    pncc = drawn(1, 3, *SIZE, seed=3)
    maps = pncc[:, None].expand(-1, 3, -1, -1, -1)
    latents = lip_references(renderer, drawn(1, 3, 3, *SIZE), maps)
    geometry = renderer.encode_target(pncc)
    bent = identity(1, 3)
    bent.cost[:, 0], bent.cost[:, 2] = 2.0, 1.0
    turned = identity(1, 3)
    turned.turn[:] = torch.tensor([0.4, 0.0, 0.2])
    for match in (bent, turned):
        for found in (
            renderer.lip(geometry, pncc, latents, match),
            renderer.face(latents.texture, match),
        ):
            logits = found.reference_logits
            assert (logits[:, 1] > logits[:, 2]).all()
            assert (logits[:, 2] > logits[:, 0]).all()


def test_lips_come_from_the_mouth_that_is_alike_as_a_whole(renderer: Renderer) -> None:
    """The face head does not ask for it."""
    latents = lip_references(renderer, drawn(1, 2, 3, *SIZE), drawn(1, 2, 3, *SIZE, seed=1))
    pncc, match = drawn(1, 3, *SIZE, seed=3), identity(1, 2)
    match.mouth[:] = torch.tensor([0.2, 0.0])
    weights = renderer.lip(
        renderer.encode_target(pncc), pncc, latents, match
    ).reference_logits.softmax(1)
    assert weights[:, 1].min() > 0.99
    even = renderer.face(latents.texture, match).reference_logits.softmax(1)
    assert torch.allclose(even, torch.tensor(0.5))


def test_face_attention_reads_texture_where_the_surface_lies(renderer: Renderer) -> None:
    """One reference, displaced by whole tokens: its latents come displaced; two references, one of
    them deformed: the value is the other's."""
    texture = renderer.encode_textures(drawn(1, 2, 3, *SIZE))
    match = identity(1, 1)
    moved = replace(match, place=match.place + 2 * STRIDE)
    found = renderer.face(texture[:, :1], moved).value
    assert torch.allclose(found[..., :-2, :-2], texture[:, 0, :, 2:, 2:], atol=1e-5)
    match = identity(1, 2)
    match.cost[:, 0] = 20.0
    assert torch.allclose(renderer.face(texture, match).value, texture[:, 1], atol=1e-4)


def dense_bias(renderer: Renderer, match: Correspondence, pncc: Tensor, keys: Tensor) -> Tensor:
    """The lip head's prior for every token of every reference, [B, h*w, N*h*w]; NEVER outside
    the 3 x 3 tokens around the place of the target token. Places must be shifts of the whole."""
    head, count = renderer.lip, keys.shape[1]
    small = torch.nn.functional.avg_pool2d(pncc, STRIDE).flatten(2)
    apart = (keys.flatten(3)[:, :, :, None] - small[:, None, :, :, None]).norm(dim=2)
    soft = torch.nn.functional.softplus
    cost = torch.nn.functional.avg_pool2d(match.cost, STRIDE).flatten(2)[..., None]
    bias = -soft(head.map_scale) * apart - soft(head.cost_scale) * cost
    bias = bias - soft(head.turn_scale) * match.turn[..., None, None]
    bias = bias - soft(head.mouth_scale) * match.mouth[..., None, None]
    y, x = torch.meshgrid(torch.arange(TOKENS[0]), torch.arange(TOKENS[1]), indexing="ij")
    own = torch.stack([x, y], -1).view(-1, 2).float()
    shift = match.place[:, :, 0, 0] / STRIDE - 0.5 / STRIDE
    place = (own + shift[:, :, None]).round()
    near = (place[:, :, :, None] - own).abs().amax(-1) <= 1
    bias = torch.where(near, bias, 10 * NEVER)
    return bias.transpose(1, 2).reshape(len(pncc), len(own), count * len(own))


def test_the_head_is_the_full_attention_under_its_own_prior(renderer: Renderer) -> None:
    count = 3
    pncc = drawn(2, 3, *SIZE, seed=4)
    maps = drawn(2, count, 3, *SIZE, seed=5)
    latents = lip_references(renderer, drawn(2, count, 3, *SIZE), maps)
    match = identity(2, count)
    shift = 9 * drawn(2, count, 1, 1, 2, seed=7) - 3
    match = Correspondence(
        match.place + shift, drawn(2, count, *SIZE, seed=8), 0.3 * drawn(2, count, seed=9),
        0.05 * drawn(2, count, seed=10),
    )  # fmt: skip
    geometry = renderer.encode_target(pncc)
    found = renderer.lip(geometry, pncc, latents, match)
    full = full_attention(
        renderer.lip.query(geometry),
        latents.key,
        latents.texture,
        dense_bias(renderer, match, pncc, latents.pncc),
    )
    inner = (..., slice(2, -3), slice(2, -3))  # where every reference has a candidate
    assert torch.allclose(found.value[inner], full.value[inner], atol=1e-4)
    logits = torch.nn.functional.interpolate(
        full.reference_logits, scale_factor=STRIDE, mode="bilinear", align_corners=False
    )
    inner = (..., slice(16, -16), slice(16, -16))
    assert torch.allclose(found.reference_logits[inner], logits[inner], atol=1e-3)


def test_what_is_not_seen_need_not_be_computed(renderer: Renderer) -> None:
    pncc = drawn(1, 3, *SIZE, seed=4)
    latents = lip_references(renderer, drawn(1, 2, 3, *SIZE), drawn(1, 2, 3, *SIZE, seed=5))
    geometry, match = renderer.encode_target(pncc), identity(1, 2)
    whole = renderer.lip(geometry, pncc, latents, match)
    seen = torch.zeros(1, 1, *SIZE)
    seen[..., 4:12, 4:12] = 0.5
    part = renderer.lip(geometry, pncc, latents, match, seen)
    assert torch.allclose(part.value[..., 1:3, 1:3], whole.value[..., 1:3, 1:3], atol=1e-5)
    shown = (..., slice(4, 12), slice(4, 12))
    assert torch.allclose(part.reference_logits[shown], whole.reference_logits[shown], atol=1e-5)
    assert not part.value[..., -1].any()  # far away nothing was done


def test_samples_at_pixel_centres_are_the_pixels() -> None:
    pictures = drawn(2, 3, 4, *SIZE)
    assert torch.allclose(sample_pixels(pictures, identity(2, 3).place), pictures, atol=1e-5)
    shifted = identity(2, 3).place + torch.tensor([3.0, -2.0])
    taken = sample_pixels(pictures, shifted)
    assert torch.allclose(taken[..., 2:, :-3], pictures[..., :-2, 3:], atol=1e-5)
    border = pictures[..., :1, 3:].expand(-1, -1, -1, 2, -1)
    assert torch.allclose(taken[..., :2, :-3], border, atol=1e-5)
    between = sample_pixels(pictures, identity(2, 3).place + torch.tensor([0.5, 0.0]))
    mean = (pictures[..., :-1] + pictures[..., 1:]) / 2
    assert torch.allclose(between[..., :-1], mean, atol=1e-5)


def test_bicubic_samples_keep_what_is_fine() -> None:
    y = torch.arange(SIZE[0]).view(-1, 1).expand(SIZE)
    waves = (0.5 + 0.4 * torch.cos(2 * torch.pi * y / 5)).expand(1, 1, 3, *SIZE)
    place = identity(1, 1).place + torch.tensor([0.0, 0.5])
    inner = (..., slice(4, -4), slice(None))
    soft = sample_pixels(waves, place)[inner].std()
    crisp = sample_pixels(waves, place, "bicubic")[inner].std()
    assert soft < 0.85 * waves[inner].std()
    assert crisp > 0.92 * waves[inner].std()
    own = sample_pixels(waves, identity(1, 1).place, "bicubic")
    assert torch.allclose(own, waves, atol=1e-5)


def test_one_reference_is_copied_as_it_is() -> None:
    full = drawn(2, 1, 3, *SIZE)
    low = blurred(full.flatten(0, 1), 1.6).view_as(full)
    logits = torch.randn(2, 1, *SIZE)
    copied = copy_pixels(low, full - low, logits, torch.tensor(2.0))
    assert torch.allclose(copied, full[:, 0], atol=1e-6)


def test_equal_references_are_copied_as_they_are() -> None:
    full = drawn(1, 1, 3, *SIZE).expand(-1, 4, -1, -1, -1)
    low = blurred(full.flatten(0, 1), 1.6).view_as(full)
    copied = copy_pixels(low, full - low, torch.randn(1, 4, *SIZE), torch.tensor(3.0))
    assert torch.allclose(copied, full[:, 0], atol=1e-5)


def test_detail_comes_from_the_most_trusted_reference() -> None:
    full = drawn(1, 3, 3, *SIZE)
    low = blurred(full.flatten(0, 1), 1.6).view_as(full)
    logits = torch.tensor([0.0, 1.0, 0.5]).view(1, 3, 1, 1).expand(-1, -1, *SIZE)
    weights = logits[0, :, 0, 0].softmax(0)
    copied = copy_pixels(low, full - low, logits, torch.tensor(50.0))
    coarse = (low * weights.view(1, 3, 1, 1, 1)).sum(1)
    assert torch.allclose(copied - coarse, (full - low)[:, 1], atol=1e-4)


def test_identity_correspondence_reproduces_the_picture(renderer: Renderer) -> None:
    """Through attention and copying: references equal to the target give the target."""
    target = drawn(1, 1, 3, *SIZE)
    pictures = target.expand(-1, 5, -1, -1, -1)
    match = identity(1, 5)
    found = renderer.face(renderer.encode_textures(pictures), match)
    low = blurred(pictures.flatten(0, 1), renderer.config.blur).view_as(pictures)
    sharp = renderer.face.detail_sharpness
    assert sharp >= 1
    copied = copy_pixels(
        sample_pixels(low, match.place),
        sample_pixels(pictures - low, match.place, "bicubic"),
        found.reference_logits,
        sharp,
    )
    assert torch.allclose(copied, target[:, 0], atol=1e-4)


def test_blur_keeps_the_mean_and_takes_the_detail() -> None:
    flat = torch.full((1, 3, *SIZE), 0.37)
    assert torch.allclose(blurred(flat, 2.0), flat, atol=1e-6)
    spot = torch.zeros(1, 1, 33, 33)
    spot[..., 16, 16] = 1
    out = blurred(spot, 2.0)[0, 0]
    assert torch.isclose(out.sum(), torch.tensor(1.0), atol=1e-5)
    y = torch.arange(33.0) - 16
    assert torch.isclose((out.sum(1) * y**2).sum(), torch.tensor(4.0), rtol=0.05)  # sigma squared
    assert torch.allclose(out, out.T)
    assert torch.allclose(out, out.flip(0), atol=1e-7)


def test_discriminator_scores_patches() -> None:
    torch.manual_seed(0)
    judge = PatchDiscriminator(8)
    score, features = judge(drawn(2, 3, 32, 48))
    assert score.shape == (2, 1, 4, 6)
    assert [f.shape[1] for f in features] == [8, 16, 32]
    real, fake = torch.full((4,), 2.0), torch.full((4,), -2.0)
    assert discriminator_loss(real, fake) == 0
    assert discriminator_loss(fake, real) == 6
    assert generator_loss(real) == -2
    assert feature_matching(features, features) == 0
    other = judge(drawn(2, 3, 32, 48, seed=1))[1]
    loss = feature_matching(features, other)
    assert loss > 0
    loss.backward()
    assert judge.layers[0].parametrizations.weight.original.grad is not None


def test_discriminator_learns_to_tell_black_from_white() -> None:
    torch.manual_seed(0)
    judge = PatchDiscriminator(8)
    step = torch.optim.Adam(judge.parameters(), 1e-2)
    black, white = torch.zeros(2, 3, 32, 32), torch.ones(2, 3, 32, 32)
    for _ in range(40):
        loss = discriminator_loss(judge(white)[0], judge(black)[0])
        step.zero_grad()
        loss.backward()
        step.step()
    assert judge(white)[0].min() > judge(black)[0].max()


def test_perceptual_distance() -> None:
    torch.manual_seed(0)
    distance = PerceptualLoss()
    assert not any(p.requires_grad for p in distance.parameters())
    picture = drawn(1, 3, 32, 32)
    assert [f.shape[1] for f in distance.features(picture)] == [64, 128, 256]
    assert distance(picture, picture) == 0
    blur = blurred(picture, 1.0)
    made = blurred(picture, 3.0).requires_grad_()
    near, far = distance(blur, picture), distance(made, picture)
    assert 0 < near < far
    far.backward()
    assert made.grad is not None
    assert made.grad.abs().max() > 0
