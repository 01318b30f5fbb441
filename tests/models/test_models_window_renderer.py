"""The renderer as one graph: parts cut without reading their corners, any number of references."""

from __future__ import annotations

import pytest
import torch

from dubbing.export import RendererGraph, sample_inputs
from dubbing.models.renderer import Renderer, RendererConfig
from dubbing.models.window_renderer import cut_part, put_part
from dubbing.render.scene import cut, put

torch.set_num_threads(1)


def test_parts_are_those_of_slicing() -> None:
    maps = torch.rand(3, 2, 12, 20, generator=torch.Generator().manual_seed(0))
    corner = torch.tensor([[0, 0], [4, 8], [7, 12]])
    part = cut_part(maps, corner, (5, 8))
    assert torch.equal(part, cut(maps, corner, (5, 8)))
    assert torch.equal(put_part(part, corner, (12, 20)), put(part, corner, (12, 20)))


@pytest.fixture(scope="module")
def graph() -> RendererGraph:
    torch.manual_seed(0)
    graph = RendererGraph(Renderer(RendererConfig())).eval()
    torch.nn.init.normal_(graph.stage.renderer.decoder.out.weight, std=0.01)
    return graph


@torch.inference_mode()
def test_every_picture_of_a_batch_is_made_by_itself(graph: RendererGraph) -> None:
    inputs = sample_inputs(2, 4, 2)
    both = graph(**inputs)
    assert both.shape == (2, 3, 144, 192)
    for k in range(2):
        alone = graph(**{name: value[k : k + 1] for name, value in inputs.items()})
        assert torch.allclose(alone, both[k : k + 1], atol=1e-5)


@torch.inference_mode()
def test_the_order_of_face_references_does_not_matter(graph: RendererGraph) -> None:
    inputs = sample_inputs(1, 5, 2)
    order = torch.tensor([2, 0, 1, 3, 4])  # the last two are the lips' and stay last
    names = ("pictures", "face_place", "face_cost", "face_turn")
    moved = inputs | {name: inputs[name][:, order] for name in names}
    assert torch.allclose(graph(**inputs), graph(**moved), atol=1e-5)


@torch.inference_mode()
def test_lips_come_from_the_last_references(graph: RendererGraph) -> None:
    """Where Lip-Attention counts alone, a face reference's pixels do not show in the copy."""
    inputs = sample_inputs(1, 4, 2) | {"lips": torch.ones(1, 1, 144, 192)}
    other = inputs | {"pictures": inputs["pictures"].clone()}
    other["pictures"][:, 0] = 0
    made = [graph(**x) for x in (inputs, other)]
    (y, x), changed = inputs["corner"][0].tolist(), (made[0] - made[1]).abs().amax((0, 1))
    # beyond the reach of the decoder the lip window is untouched, the rest of the face is not
    assert changed[y + 32 : y + 48, x + 32 : x + 88].max() < 1e-5
    changed[y : y + 80, x : x + 120] = 0
    assert changed.max() > 0.05
