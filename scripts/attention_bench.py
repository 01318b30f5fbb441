"""What restricting attention by geometry saves.

    python scripts/attention_bench.py [--threads 2] [--rounds 5]

Guided attention (the candidates that the meshes allow) and full attention (every token of every
reference, as in the paper) are run under the same mask, so that their results are the same, at the
sizes at which the engine works: the lip window against 25 references, and the whole face window
against 5, with 3 x 3 candidates in each (on the face the engine takes a single one). Time is the
median of the rounds; memory is what the operators of one pass allocate.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from dubbing.evaluation.tables import markdown
from dubbing.models.attention import (
    NEVER,
    Attended,
    candidates,
    full_attention,
    guided_attention,
    window_mask,
)
from dubbing.models.renderer import STRIDE, RendererConfig
from dubbing.render.references import N_FACE, N_LIP
from dubbing.render.scene import LIP_WINDOW, WINDOW

AGREE = 1e-4  # largest difference of the two forms that counts as the same result


@dataclass(frozen=True)
class Problem:
    """One attention: a query per token of `size` against `count` references of a whole window.

    Attributes:
        query: [1, C, p, q]; key: [1, N, C, h, w]; value: [1, N, D, h, w].
        index, inside, bias: [1, N, p, q, K] of the candidates.
        mask: [1, p * q, N * h * w] the same for full attention.
    """

    query: Tensor
    key: Tensor
    value: Tensor
    index: Tensor
    inside: Tensor
    bias: Tensor
    mask: Tensor

    def guided(self) -> Attended:
        return guided_attention(self.query, self.key, self.value, self.index, self.bias)

    def full(self) -> Attended:
        return full_attention(self.query, self.key, self.value, self.mask)


def problem(size: tuple[int, int], count: int, device: torch.device) -> Problem:
    """Random features; places where a face that moved a little would put them."""
    c = RendererConfig()
    random = torch.Generator().manual_seed(0)
    height, width = WINDOW[0] // STRIDE, WINDOW[1] // STRIDE
    h, w = size[0] // STRIDE, size[1] // STRIDE

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=random).to(device)

    def tokens_last(*shape: int) -> Tensor:  # as the renderer keeps them
        return draw(*shape).to(memory_format=torch.channels_last)[None]

    y, x = torch.meshgrid(torch.arange(h), torch.arange(w), indexing="ij")
    middle = torch.tensor([(width - w) / 2, (height - h) / 2])
    place = (torch.stack([x, y], -1) + middle).to(device) + draw(1, count, h, w, 2)
    index, inside = candidates(place, c.window, height, width)
    bias = torch.where(inside, draw(*index.shape), NEVER)
    return Problem(
        draw(1, c.geometry_width, h, w),
        tokens_last(count, c.geometry_width, height, width),
        tokens_last(count, c.texture_width, height, width),
        index, inside, bias, window_mask(index, bias, inside, height * width),
    )  # fmt: skip


def seconds(work: Callable[[], Attended], rounds: int, device: torch.device) -> float:
    """Median time of a pass, after one that warms up."""
    found = []
    for _ in range(rounds + 1):
        start = time.perf_counter()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        found.append(time.perf_counter() - start)
    return statistics.median(found[1:])


def mebibytes(work: Callable[[], Attended], device: torch.device) -> float:
    """What the operators of one pass allocate, all together."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        work()
        return float(torch.cuda.max_memory_allocated(device) - before) / 2**20
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as seen:
        work()
    taken = [e.self_cpu_memory_usage for e in seen.key_averages()]
    return sum(t for t in taken if t > 0) / 2**20


def difference(a: Attended, b: Attended, inside: Tensor) -> float:
    """Largest difference where some candidate lies inside its reference."""
    seen = inside.any(-1)
    some = seen.any(1, keepdim=True)
    values = (a.value - b.value).abs() * some
    logits = (a.reference_logits - b.reference_logits).abs() * seen
    return max(float(values.max()), float(logits.max()))


@torch.inference_mode()
def measured(name: str, size: tuple[int, int], count: int, rounds: int, device: torch.device
             ) -> dict[str, object]:  # fmt: skip
    """One line of the table."""
    work = problem(size, count, device)
    apart = difference(work.guided(), work.full(), work.inside)
    times = [seconds(f, rounds, device) for f in (work.guided, work.full)]
    sizes = [mebibytes(f, device) for f in (work.guided, work.full)]
    return {
        "attention": name,
        "queries x candidates": f"{work.index[0, 0, ..., 0].numel()} x {count * 9}",
        "queries x tokens": f"{work.mask.shape[1]} x {work.mask.shape[2]}",
        "guided, ms": 1000 * times[0],
        "full, ms": 1000 * times[1],
        "time ratio": times[1] / times[0],
        "guided, MiB": sizes[0],
        "full, MiB": sizes[1],
        "memory ratio": sizes[1] / sizes[0],
        "difference": apart,
    }


def main(arguments: list[str] | None = None) -> int:
    """Exit status: 0 if both forms agree and the guided one is at least 10 times faster."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5, help="timed passes (5)")
    parser.add_argument("--threads", type=int, default=0, help="threads (all cores)")
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    args = parser.parse_args(arguments)
    if args.rounds < 1:
        parser.error("--rounds has to be at least 1")
    if args.threads:
        torch.set_num_threads(args.threads)
    device = torch.device(args.device)
    lines = [
        measured(f"lip window, {N_LIP} references", LIP_WINDOW, N_LIP, args.rounds, device),
        measured(f"face window, {N_FACE} references", WINDOW, N_FACE, args.rounds, device),
    ]
    print(markdown(list(lines[0]), lines))
    same = all(float(str(line["difference"])) <= AGREE for line in lines)
    faster = all(float(str(line["time ratio"])) >= 10 for line in lines)
    print(f"{'ok    ' if same else 'MISSED'} the same result, to {AGREE}")
    print(f"{'ok    ' if faster else 'MISSED'} guided attention at least 10 times faster")
    return 0 if same and faster else 1


if __name__ == "__main__":
    sys.exit(main())
