"""Whether the renderer's repair learns anything from a speaker's own frames.

    python scripts/adapt_renderer_check.py PREPARED --clips NAME [NAME ...]

PREPARED is made by `dub train prepare`. Each clip is cut into halves in time. A copy of the decoder
learns to repair the frames of one half and is judged on the other, and the other way round: frames
that it never saw, of the speaker that it learned. Targets are never among their references, nor
their 5 neighbours on each side. All is seen in the lip window, where the decoder works. Everything
before the decoder is computed once.
"""

from __future__ import annotations

import argparse
import copy
import random
import statistics
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from dubbing.errors import DubbingError, InputNotFound
from dubbing.evaluation.tables import markdown
from dubbing.models.renderer import Decoder, Renderer
from dubbing.models.window_renderer import WindowRenderer
from dubbing.render.scene import LIP_WINDOW, cut
from dubbing.training.clips import fitted
from dubbing.training.render_clips import RenderClip, load_render_clips
from dubbing.training.render_data import GUARD, RenderBatcher
from dubbing.training.renderer import psnr, rendered, sharpness
from dubbing.weights import MORPHABLE, RENDERER, load_morphable, load_renderer, resolve

BATCH = 2
LIP_WEIGHT = 2.0
FIGURES = ("L1", "PSNR, dB", "PSNR lips, dB", "sharpness", "sharpness lips")

Example = tuple[Tensor, ...]  # latent, pncc, copied: the decoder's input; truth, mask, lips


class PlainBatcher(RenderBatcher):
    """Draws pictures in the colours that they have."""

    def _coloured(self, images: Tensor) -> Tensor:
        return images


@torch.no_grad()
def examples(renderer: Renderer, batcher: RenderBatcher, clip: RenderClip, count: int
             ) -> list[tuple[int, Example]]:  # fmt: skip
    """What the decoder gets and should make of `count` frames, with their numbers."""
    stage = WindowRenderer(renderer).eval()
    found: list[Example] = []
    hook = renderer.decoder.register_forward_pre_hook(lambda module, given: found.append(given))
    out = []
    for row in np.linspace(0, len(clip.frames) - 1, count).round().astype(int).tolist():
        batch = batcher.collate([(clip, row)])
        rendered(stage, batch)
        whole = (batch.truth, batch.mask, batch.lips)
        mouth = [cut(x, batch.corner, LIP_WINDOW) for x in whole]  # where the decoder works
        out.append((clip.frames[row], (*found.pop(), *mouth)))
    hook.remove()
    return out


def adapted(decoder: Decoder, kept: list[Example], steps: int, rate: float, parts: list[str]
            ) -> Decoder:  # fmt: skip
    """A copy of the decoder whose `parts` have learned from examples; all without parts."""
    made = copy.deepcopy(decoder).requires_grad_(False).train()
    chosen: list[nn.Module] = [getattr(made, p) for p in parts] or [made]
    learning = [p.requires_grad_(True) for part in chosen for p in part.parameters()]
    optimiser = torch.optim.Adam(learning, lr=rate)
    drawn = random.Random(0)
    for step in range(steps):
        optimiser.param_groups[0]["lr"] = rate * min((step + 1) / 5, 1) * (1 - step / steps)
        picked = drawn.sample(kept, min(BATCH, len(kept)))
        latent, pncc, copied, truth, mask, lips = (torch.cat(x) for x in zip(*picked, strict=True))
        error = (copied + lips * made(latent, pncc, copied) - truth).abs()
        optimiser.zero_grad(set_to_none=True)
        (10 * error * (mask + LIP_WEIGHT * lips)).mean().backward()
        optimiser.step()
    return made.eval()


@torch.no_grad()
def scores(decoder: Decoder, held: list[Example]) -> list[float]:
    """FIGURES: L1 in code values, means; sharpness against the truth, median."""
    rows = []
    for latent, pncc, copied, truth, mask, lips in held:
        made = copied + lips * decoder(latent, pncc, copied)
        error = (made - truth).abs().mean(1, keepdim=True)
        row = [255 * (error * mask).sum() / mask.sum(), psnr(made, truth, mask)]
        row += [psnr(made, truth, lips)]
        row += [sharpness(made, w) / sharpness(truth, w) for w in (mask, lips)]
        rows.append([float(value) for value in row])
    columns = list(zip(*rows, strict=True))
    return [statistics.fmean(c) for c in columns[:3]] + [statistics.median(c) for c in columns[3:]]


def halves(found: list[tuple[int, Example]]) -> list[tuple[list[Example], list[Example]]]:
    """Twice what is learned from and what is held back, at least GUARD frames apart."""
    middle = found[len(found) // 2][0]
    early = [(f, e) for f, e in found if f < middle]
    late = [(f, e) for f, e in found if f >= middle]
    before = [e for f, e in early if f < middle - GUARD]
    after = [e for f, e in late if f > early[-1][0] + GUARD]
    return [(before, [e for _, e in late]), (after, [e for _, e in early])]


def measured(renderer: Renderer, batcher: RenderBatcher, clip: RenderClip,
             args: argparse.Namespace) -> list[dict[str, object]]:  # fmt: skip
    """Two lines of the table: generic and adapted, means over both halves."""
    batcher.random.seed(0)
    found = examples(renderer, batcher, clip, args.frames)
    start = time.process_time()
    pairs = []
    for kept, held in halves(found):
        other = adapted(renderer.decoder, kept, args.steps, args.rate, args.parts)
        pairs.append([scores(renderer.decoder, held), scores(other, held)])
    seconds = (time.process_time() - start) / 2
    mean = np.mean(pairs, 0).tolist()
    names = ("generic", "adapted")
    lines: list[dict[str, object]] = [
        {"clip": clip.clip.name, "decoder": name, **dict(zip(FIGURES, row, strict=True))}
        for name, row in zip(names, mean, strict=True)
    ]
    lines[1]["CPU s"] = seconds
    return lines


def main(arguments: list[str] | None = None) -> int:
    """Exit status: 0 if every clip could be measured."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="folder that 'dub train prepare' made")
    parser.add_argument("--clips", nargs="+", required=True, metavar="NAME")
    parser.add_argument("--frames", type=int, default=24, help="frames per clip (24)")
    parser.add_argument("--steps", type=int, default=60, help="of learning, 2 frames each (60)")
    parser.add_argument("--rate", type=float, default=5e-4, help="learning rate (5e-4)")
    parser.add_argument(
        "--parts",
        nargs="*",
        default=[],
        metavar="LAYER",
        help="of the decoder, e.g. fine out (all)",
    )
    parser.add_argument("--cache", type=Path, help="where fits and registrations are kept")
    parser.add_argument("--checkpoint", default="default", help="name or folder of a checkpoint")
    parser.add_argument("--threads", type=int, default=0, help="threads (all cores)")
    args = parser.parse_args(arguments)
    if args.frames < 8:
        parser.error("--frames has to be at least 8")
    if args.threads:
        torch.set_num_threads(args.threads)
    lines = []
    try:
        folder = resolve(args.checkpoint)
        model = load_morphable(folder / f"{MORPHABLE}.safetensors")
        renderer = load_renderer(folder / f"{RENDERER}.safetensors")
        with tempfile.TemporaryDirectory() as scratch:
            cache = args.cache or Path(scratch)
            for name in args.clips:
                if not (args.folder / f"{name}.npz").exists():
                    raise InputNotFound("no such prepared clip", path=args.folder / name)
                fit = fitted(args.folder, cache, name, model)
                clips = load_render_clips(args.folder, cache, [fit], model)
                if not clips:
                    raise InputNotFound("the clip has too few or too soft face crops", path=name)
                batcher = PlainBatcher(clips, model, 0)
                lines += measured(renderer, batcher, clips[0], args)
    except DubbingError as error:
        raise SystemExit(f"error: {error}") from error
    print(markdown([*lines[0], "CPU s"], lines))
    return 0


if __name__ == "__main__":
    sys.exit(main())
