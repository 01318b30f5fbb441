"""Stage 2 as an ONNX file, which is checked against torch before it appears."""

from __future__ import annotations

import json
import logging
import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from dubbing.errors import DubbingError, ExportFailed, OutputUnwritable
from dubbing.models.renderer import Correspondence, Renderer
from dubbing.models.window_renderer import WindowRenderer
from dubbing.render.scene import LIP_WINDOW, WINDOW
from dubbing.report import save_bytes

LIMIT = 1e-3  # largest difference from torch that a file may show, of a range of 0..1
OPSET = 20  # the first whose GridSample does what torch's bicubic sampling does
MOST = 64  # pictures in a batch, references
INSTALL = "install them with: pip install 'persona-dub[export]'"
CHECKED = ((1, 5, 5), (1, 30, 25), (2, 7, 2))  # pictures, references, of these for the lips


@dataclass(frozen=True)
class OnnxExport:
    """What was written.

    Attributes:
        path: the file; bytes: its size.
        difference: largest difference from torch in 0..1 over every picture of the check.
    """

    path: Path
    bytes: int
    difference: float


class RendererGraph(nn.Module):
    """`WindowRenderer` with tensors alone for input and output.

    B pictures, N references, of which the last L are those of Lip-Attention; see
    `WindowRenderer.forward` and `Correspondence` for the meaning.
    """

    def __init__(self, renderer: Renderer):
        super().__init__()
        self.stage = WindowRenderer(renderer)

    def forward(
        self, pictures: Tensor, lip_pncc: Tensor, pncc: Tensor, lips: Tensor, corner: Tensor,
        face_place: Tensor, face_cost: Tensor, face_turn: Tensor,
        lip_place: Tensor, lip_cost: Tensor, lip_turn: Tensor, lip_mouth: Tensor,
    ) -> Tensor:  # fmt: skip
        """The rendered windows [B, 3, 144, 192]."""
        unread = torch.zeros_like(face_turn)  # Face-Attention asks for no whole mouths
        face = Correspondence(face_place, face_cost, face_turn, unread)
        mouth = Correspondence(lip_place, lip_cost, lip_turn, lip_mouth)
        made: Tensor = self.stage(pictures, lip_pncc, pncc, lips, corner, face, mouth)[0]
        return made


def sample_inputs(batch: int, references: int, lips: int, seed: int = 0) -> dict[str, Tensor]:
    """Inputs of `RendererGraph` with every case in them: places beyond the border, black maps.

    Places are multiples of 1/16 px, whose means are exact in float32, so that no rounding to the
    nearest token hangs on the order in which a library adds.
    """
    random = torch.Generator().manual_seed(seed)

    def drawn(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=random)

    def places(count: int, size: tuple[int, int], corner: Tensor) -> Tensor:
        y = torch.arange(size[0]).add(0.5)[:, None].expand(size)
        x = torch.arange(size[1]).add(0.5)[None].expand(size)
        small = (batch, count, size[0] // 4, size[1] // 4, 2)
        away = torch.randint(-128, 129, small, generator=random) / 16
        away = away.repeat_interleave(4, 2).repeat_interleave(4, 3)
        return torch.stack([x, y], -1) + corner.flip(-1)[:, None, None, None] + away

    room = (WINDOW[0] - LIP_WINDOW[0], WINDOW[1] - LIP_WINDOW[1])
    corner = torch.stack(
        [torch.randint(0, side // 4 + 1, (batch,), generator=random) * 4 for side in room], -1
    )
    pncc = drawn(batch, 3, *WINDOW) * (drawn(batch, 1, *WINDOW) > 0.1)
    return {
        "pictures": drawn(batch, references, 3, *WINDOW),
        "lip_pncc": drawn(batch, lips, 3, *WINDOW),
        "pncc": pncc,
        "lips": drawn(batch, 1, *WINDOW),
        "corner": corner,
        "face_place": places(references, WINDOW, torch.zeros_like(corner)),
        "face_cost": drawn(batch, references, *WINDOW),
        "face_turn": 0.3 * drawn(batch, references),
        "lip_place": places(lips, LIP_WINDOW, corner),
        "lip_cost": drawn(batch, lips, *LIP_WINDOW),
        "lip_turn": 0.3 * drawn(batch, lips),
        "lip_mouth": 0.05 * drawn(batch, lips),
    }


def dynamic_dimensions() -> dict[str, dict[int, Any]]:
    """Which dimensions of `RendererGraph`'s inputs a caller may choose."""
    batch = torch.export.Dim("batch", min=1, max=MOST)
    references = torch.export.Dim("references", min=2, max=MOST)
    lips = torch.export.Dim("lip_references", min=1, max=MOST)
    per_picture = {name: {0: batch} for name in ("pncc", "lips", "corner")}
    per_reference = ("pictures", "face_place", "face_cost", "face_turn")
    per_lips = ("lip_pncc", "lip_place", "lip_cost", "lip_turn", "lip_mouth")
    return {
        **{name: {0: batch, 1: references} for name in per_reference},
        **per_picture,
        **{name: {0: batch, 1: lips} for name in per_lips},
    }


def export_renderer(renderer: Renderer, output: str | Path, overwrite: bool = False) -> OnnxExport:
    """Write stage 2 as ONNX: references' pictures and maps, target maps and correspondence of a
    window in, the rendered window out, with any number of pictures and references.

    Args:
        renderer: on the CPU, in evaluation mode.

    Raises:
        OutputUnwritable: the file exists and `overwrite` is False, or its folder is missing.
        ExportFailed: the graph differs from torch by more than `LIMIT`; nothing is written.
        DubbingError: onnx, onnxscript or onnxruntime is not installed.
    """
    path = Path(output)
    if path.exists() and not overwrite:
        raise OutputUnwritable("the file exists", path=path, hint="use --overwrite")
    if not path.parent.is_dir():
        raise OutputUnwritable(f"the folder {path.parent} does not exist", path=path)
    graph = RendererGraph(renderer).eval()
    data = onnx_bytes(graph)
    difference = largest_difference(graph, data)
    if not difference <= LIMIT:  # "not <=" also refuses a NaN
        raise ExportFailed(
            f"the graph differs from torch by {difference:.2g}, at most {LIMIT} is allowed",
            path=path,
            hint="try the versions of onnx, onnxscript and onnxruntime that pyproject.toml names",
        )
    save_bytes(path, data)
    return OnnxExport(path, len(data), difference)


def onnx_bytes(graph: RendererGraph) -> bytes:
    """The graph as an ONNX model with the renderer's sizes in its metadata.

    Raises:
        DubbingError: onnx or onnxscript is not installed.
    """
    chatty = logging.getLogger("torch.onnx")
    level = chatty.level
    chatty.setLevel(logging.ERROR)  # it warns of packages that the graph has no use for
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore", FutureWarning)
            inputs = sample_inputs(2, 5, 3)
            program = torch.export.export(
                graph, (), kwargs=inputs, dynamic_shapes=dynamic_dimensions()
            )
            made = torch.onnx.export(
                program, dynamo=True, opset_version=OPSET, output_names=["window"], verbose=False
            )
    except ImportError as error:
        raise DubbingError(f"packages are missing: {error}", hint=INSTALL) from error
    finally:
        chatty.setLevel(level)
    if made is None:
        raise ExportFailed("torch made no ONNX program")
    model = made.model_proto
    facts = {
        "config": asdict(graph.stage.renderer.config),
        "window": WINDOW,
        "lip_window": LIP_WINDOW,
    }
    entry = model.metadata_props.add()
    entry.key, entry.value = "persona-dub", json.dumps(facts)
    data: bytes = model.SerializeToString()
    return data


def largest_difference(
    graph: RendererGraph, data: bytes, sizes: Sequence[tuple[int, int, int]] = CHECKED
) -> float:
    """Largest difference of an ONNX model's pictures from those of torch.

    Args:
        sizes: (pictures, references, of these for the lips) of each check.

    Raises:
        DubbingError: onnxruntime is not installed.
    """
    try:
        import onnxruntime
    except ImportError as error:
        raise DubbingError(f"packages are missing: {error}", hint=INSTALL) from error
    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    worst = []
    for seed, size in enumerate(sizes):
        inputs = sample_inputs(*size, seed=seed)
        with torch.inference_mode():
            expected = graph(**inputs)
        (found,) = session.run(None, {name: value.numpy() for name, value in inputs.items()})
        worst.append((torch.from_numpy(found) - expected).abs().max())
    return float(torch.stack(worst).max())  # max() of tensors keeps a NaN
