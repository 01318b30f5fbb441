"""Stage 1 network: its inputs matter, its padding does not, and time is only relative."""

from __future__ import annotations

import pytest
import torch
from synthetic_face import face_model, neutral_face
from torch import Tensor

from dubbing.models.geometry_net import (
    VERTEX_SCALE,
    GeometryNet,
    GeometryNetConfig,
    TimeAttention,
    rotate,
)

torch.set_num_threads(1)

AUDIO, FRAMES = 24, 40


def build(layers: int = 2) -> GeometryNet:
    torch.manual_seed(0)
    model = face_model()
    config = GeometryNetConfig(
        lower_vertices=int(model.lower.gt(0).sum()),
        audio_size=AUDIO,
        width=48,
        heads=4,
        layers=layers,
        expression_size=8,
    )
    net = GeometryNet(config).eval()
    net.set_geometry(model.mean, model.expression, model.lower)
    return net


@pytest.fixture(scope="module")
def net() -> GeometryNet:
    return build()


def audio(frames: int = FRAMES, batch: int = 1, seed: int = 0) -> Tensor:
    return torch.randn(batch, 2 * frames, AUDIO, generator=torch.Generator().manual_seed(seed))


def style(net: GeometryNet, seed: int = 0) -> Tensor:
    beta = torch.randn(1, 30, 3, generator=torch.Generator().manual_seed(seed))
    return net.style(face_model().expression_vertices(beta))


def test_set_geometry_fills_the_buffers(net: GeometryNet) -> None:
    model = face_model()
    assert torch.equal(net.mean, model.mean)
    assert torch.equal(net.lower, model.lower.gt(0).nonzero()[:, 0])
    assert net.groups.shape == (9, 468)
    assert torch.equal(net.groups.sum(0), torch.ones(468))  # each vertex in one group
    assert (net.groups.sum(1) > 5).all()
    forehead, left, right, chin = net.groups[:, [10, 234, 454, 152]].argmax(0).tolist()
    assert (forehead, left, right, chin) == (1, 0, 2, 7)  # three rows of three


def test_the_decoder_begins_at_the_expression_basis(net: GeometryNet) -> None:
    """A unit on the decoder's inner channel k moves the lower face by expression k."""
    model = face_model()
    last = net.decoder[3]
    for k in range(3):
        moved = last(torch.eye(8)[k]) / VERTEX_SCALE
        assert torch.allclose(moved.view(-1, 3), model.expression[k, net.lower], atol=1e-6)


def test_shapes(net: GeometryNet) -> None:
    out = net(audio(batch=2), style(net).expand(2, -1), neutral_face().expand(2, -1, -1))
    assert out.shape == (2, FRAMES, len(net.lower), 3)
    assert style(net).shape == (1, 48)
    assert out.abs().mean() < 1  # morphable-model units


def test_style_and_template_and_sound_all_matter(net: GeometryNet) -> None:
    template = neutral_face()[None]
    base = net(audio(), style(net), template)
    assert torch.equal(net(audio(), style(net), template), base)
    assert (net(audio(), style(net, seed=1), template) - base).abs().max() > 1e-5
    other = template + face_model().shape[0]
    assert (net(audio(), style(net), other) - base).abs().max() > 1e-6
    assert (net(audio(seed=1), style(net), template) - base).abs().max() > 1e-3


def test_style_is_mean_and_deviation_of_any_number_of_frames(net: GeometryNet) -> None:
    beta = torch.randn(1, 20, 3)
    moved = face_model().expression_vertices(beta)
    code = net.style(moved)
    assert torch.allclose(net.style(moved[:, torch.randperm(20)]), code, atol=1e-5)  # no order
    assert torch.allclose(net.style(moved.repeat(1, 3, 1, 1)), code, atol=1e-5)  # no length
    padded = torch.cat([moved, torch.full((1, 7, 468, 3), 9.0)], 1)
    mask = torch.arange(27)[None] < 20
    assert torch.allclose(net.style(padded, mask), code, atol=1e-5)
    calm = net.style(0.2 * (moved - moved.mean(1, keepdim=True)) + moved.mean(1, keepdim=True))
    assert (calm - code).abs().max() > 1e-3  # how much somebody moves is style


def test_style_strength_moves_from_the_average_speaker(net: GeometryNet) -> None:
    own = style(net)
    net.average_style.copy_(torch.linspace(-1, 1, 48))
    assert torch.allclose(net.blend_style(own, 0.0)[0], net.average_style)
    assert torch.allclose(net.blend_style(own, 1.0), own, atol=1e-6)
    beyond = net.blend_style(own, 2.0)
    assert torch.allclose(beyond - own, own - net.average_style, atol=1e-5)


def test_padding_has_no_influence(net: GeometryNet) -> None:
    template = neutral_face()[None]
    sound, own = audio(), style(net)
    mask = torch.arange(FRAMES + 12)[None] < FRAMES
    first, second = (torch.cat([sound, torch.full((1, 24, AUDIO), v)], 1) for v in (0.0, 50.0))
    a, b = (net(x, own, template, mask)[:, :FRAMES] for x in (first, second))
    # attention sees none of it; the one convolution over the sound reaches three frames
    assert torch.allclose(a[:, :-3], b[:, :-3], atol=1e-5)


def test_time_is_relative(net: GeometryNet) -> None:
    """The same sound 11 frames later gives the same motion 11 frames later."""
    net = build(layers=1)
    template, own = neutral_face()[None], style(net)
    long = audio(260)
    reach = 50 + 12 + 3  # one self-attention layer, the style layer, the convolution
    whole = net(long, own, template)
    later = net(long[:, 22:], own, template)
    inner = slice(reach, 260 - 11 - reach)
    assert torch.allclose(whole[:, 11:][:, inner], later[:, inner], atol=1e-4)


def test_a_result_depends_on_a_bounded_stretch_of_sound() -> None:
    net = build(layers=1)
    template, own = neutral_face()[None], style(net)
    sound = audio(260)
    changed = sound.clone()
    changed[:, 400:] = audio(60, seed=9)
    a, b = net(sound, own, template), net(changed, own, template)
    reach = 50 + 12 + 3
    assert torch.allclose(a[:, : 200 - reach], b[:, : 200 - reach], atol=1e-5)
    assert (a[:, 195:205] - b[:, 195:205]).abs().max() > 1e-3


def test_rotary_code_sees_differences_of_time() -> None:
    q, k = torch.randn(1, 1, 1, 16), torch.randn(1, 1, 1, 16)
    queries, keys = (rotate(x.expand(1, 1, 30, 16)) for x in (q, k))
    scores = (queries @ keys.transpose(-1, -2))[0, 0]
    for lag in (-7, 0, 3):
        diagonal = scores.diagonal(lag)
        assert torch.allclose(diagonal, diagonal[:1].expand_as(diagonal), atol=1e-4)
    assert scores.diagonal(0)[0] != scores.diagonal(3)[0]
    assert torch.allclose(queries.norm(dim=-1), q.norm().expand(1, 1, 30), atol=1e-4)


def test_time_attention_prefers_the_neighbourhood() -> None:
    torch.manual_seed(0)
    layer = TimeAttention(16, 4, 0.0, reach=5).eval()
    with torch.no_grad():  # same content everywhere: only the bias speaks
        layer.query.weight.zero_()
        layer.query.bias.zero_()
    source = torch.zeros(1, 31, 16, requires_grad=True)
    layer(torch.zeros(1, 31, 16), source)[0, 15].square().sum().sqrt().backward()
    assert source.grad is not None
    influence = source.grad[0].norm(dim=-1)
    assert influence[15] > influence[16] > influence[20] > 0
    assert influence[:10].max() < 1e-6 * influence[15]
    assert influence[21:].max() < 1e-6 * influence[15]


def test_every_parameter_is_trained(net: GeometryNet) -> None:
    net = build()
    net.train()
    beta = torch.randn(1, 10, 3)
    code = net.style(face_model().expression_vertices(beta))
    other = neutral_face()[None] + face_model().shape[:1]
    net(audio(), code, other).square().sum().backward()
    idle = [n for n, p in net.named_parameters() if p.grad is None or not p.grad.any()]
    assert idle == []
