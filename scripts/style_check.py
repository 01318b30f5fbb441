"""Shows whether the style encoder tells unseen speakers apart by their manner of speaking.

    python scripts/style_check.py PREPARED [PREPARED ...] --speakers TABLE.csv --output DIR
        [--cache FITS [FITS ...]] [--listed-only] [--only PATTERN] [--checkpoint FILE]

PREPARED are folders of 'dub train prepare', TABLE has the columns file and speaker. Every clip's
code searches the other clips for its speaker; the same is done with the mean and deviation of
every vertex over time (standardised over these clips) as the baseline. Of two clips of one speaker
the templates were estimated apart; 'one template' repeats the search with the motions of a speaker
measured from the mean of the speaker's templates, as far as the expression basis can tell them
apart, so that a code that lives on that estimate would show.

Give clips of speakers that the encoder was not trained on: with --listed-only only clips in the
table count ('dub train style' writes such a table of its held-out speakers); --only keeps speakers
whose name matches a shell pattern, for a gallery of one corpus. Within-clip figures compare the
two halves of each clip of 4 s or more: same camera, same minute, same template.
DIR receives style_check.json, speakers.csv (readable facts per speaker) and codes.csv.
"""

from __future__ import annotations

import argparse
import csv
import sys
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dubbing.errors import DubbingError, OptionInvalid
from dubbing.evaluation.style import (
    MIN_FRAMES,
    STYLE,
    load_style_encoder,
    lower_motion,
    retrieval,
    statistics_codes,
    style_code,
    style_facts,
)
from dubbing.evaluation.tables import markdown, save_csv, save_json
from dubbing.geometry.morphable import MorphableModel
from dubbing.models.style_encoder import StyleEncoder
from dubbing.training.clips import at_rate, fitted, prepared_names
from dubbing.training.speakers import load_speakers
from dubbing.weights import MORPHABLE, PACKAGED, load_morphable

RIDGE = 0.02  # as the fit's
HALVED = 100  # frames at 25 Hz of a clip whose halves are compared
FIGURES = ("clips", "speakers", "top1", "top5", "chance1", "chance5", "same", "other")


@dataclass(frozen=True)
class Clip:
    """Motion [T, L, 3] at 25 Hz, what of it is usable [T], and the template [V, 3] below it."""

    name: str
    speaker: str
    motion: Tensor
    usable: Tensor
    template: Tensor

    def part(self, cut: slice) -> tuple[Tensor, Tensor]:
        return self.motion[cut], self.usable[cut]


def load_clips(args: argparse.Namespace, model: MorphableModel) -> list[Clip]:
    """All clips that count and are long enough to show a style."""
    listed = set()
    if args.listed_only:
        with args.speakers.open(newline="") as file:
            listed = {Path(row["file"]).stem for row in csv.DictReader(file)}
    caches = args.cache or [args.output / "cache"] * len(args.prepared)
    if len(caches) != len(args.prepared):
        raise OptionInvalid(f"{len(caches)} caches for {len(args.prepared)} prepared folders",
                            hint="give one --cache folder for each")  # fmt: skip
    clips = []
    for folder, cache in zip(args.prepared, caches, strict=True):
        speakers = load_speakers(args.speakers, prepared_names(folder))
        for name, speaker in speakers.items():
            if (listed and name not in listed) or not fnmatch(speaker, args.only):
                continue
            fit = fitted(folder, cache, name, model)
            if len(fit.times) < MIN_FRAMES:
                continue
            beta, usable = at_rate(fit)
            if usable.sum() >= MIN_FRAMES:
                motion = lower_motion(model, beta)
                clips.append(Clip(name, speaker, motion, usable, fit.template))
    if not clips:
        raise OptionInvalid("no clip to check", hint="see --listed-only and --only")
    return clips


def from_one_template(clips: Sequence[Clip], model: MorphableModel) -> list[Tensor]:
    """The motions [T, L, 3] as they are from the mean template of each speaker."""
    index = model.lower.gt(0).nonzero()[:, 0]
    basis = model.expression.flatten(1)
    gram = basis @ basis.T
    gram += RIDGE * gram.diagonal().mean() * torch.eye(len(basis))
    solve = torch.linalg.solve(gram, basis)
    by = defaultdict(list)
    for clip in clips:
        by[clip.speaker].append(clip.template)
    mean = {who: torch.stack(own).mean(0) for who, own in by.items()}
    moved = []
    for clip in clips:
        beta = solve @ (clip.template - mean[clip.speaker]).flatten()
        moved.append(clip.motion + model.expression_vertices(beta)[index])
    return moved


def codes_of(encoder: StyleEncoder, parts: Sequence[tuple[Tensor, Tensor]]) -> Tensor:
    """Style codes [N, D] of motions with their usable frames."""
    return torch.stack([style_code(encoder, motion, usable) for motion, usable in parts])


def within_clips(encoder: StyleEncoder, clips: Sequence[Clip]) -> dict[str, float | int]:
    """Cosine of the halves of each clip that is long enough, and of halves of different clips."""
    halves = []
    for clip in clips:
        middle = len(clip.motion) // 2
        parts = [clip.part(slice(0, middle)), clip.part(slice(middle, None))]
        if len(clip.motion) >= HALVED and all(u.sum() >= MIN_FRAMES for _, u in parts):
            halves.append((clip.speaker, parts))
    if not halves:
        return {"clips": 0}
    first, second = (codes_of(encoder, [p[k] for _, p in halves]) for k in (0, 1))
    cosines = first @ second.T
    who = [speaker for speaker, _ in halves]
    apart = torch.tensor([[a != b for b in who] for a in who])
    found = {"clips": len(halves), "same clip": float(cosines.diagonal().mean())}
    return found | ({"other speaker": float(cosines[apart].mean())} if apart.any() else {})


def facts_per_speaker(clips: Sequence[Clip], model: MorphableModel) -> list[dict[str, Any]]:
    """Mean of the readable facts over the clips of each speaker."""
    index = model.lower.gt(0).nonzero()[:, 0]
    by = defaultdict(list)
    for clip in clips:
        facts = style_facts(clip.motion, clip.template, index, clip.usable)
        by[clip.speaker].append(facts.to_dict())
    return [
        {"speaker": who, "clips": len(own)} | {k: sum(f[k] for f in own) / len(own) for k in own[0]}
        for who, own in sorted(by.items())
    ]


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("prepared", type=Path, nargs="+", help="folders of 'dub train prepare'")
    parser.add_argument("--speakers", type=Path, required=True, help="CSV with file and speaker")
    parser.add_argument("--output", type=Path, required=True, help="folder for the results")
    parser.add_argument("--cache", type=Path, nargs="+", help="folders of fits, one per PREPARED")
    parser.add_argument("--listed-only", action="store_true", help="only clips in the table")
    parser.add_argument("--only", default="*", help="shell pattern of the speakers that count")
    parser.add_argument("--checkpoint", type=Path, default=PACKAGED / f"{STYLE}.safetensors")
    parser.add_argument("--morphable", type=Path, default=PACKAGED / f"{MORPHABLE}.safetensors")
    parser.add_argument("--threads", type=int, default=0, help="threads (all cores)")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    """Exit status: 0 if the clips could be measured, whatever the figures."""
    args = _parse(arguments)
    if args.threads:
        torch.set_num_threads(args.threads)
    try:
        model = load_morphable(args.morphable)
        encoder = load_style_encoder(args.checkpoint)
        clips = load_clips(args, model)
        who = [c.speaker for c in clips]
        usable = [c.usable for c in clips]
        codes = codes_of(encoder, [(c.motion, c.usable) for c in clips])
        shifted = from_one_template(clips, model)
        found = {
            "style encoder": retrieval(codes, who),
            "style encoder, one template": retrieval(
                codes_of(encoder, list(zip(shifted, usable, strict=True))), who
            ),
            "mean and deviation": retrieval(
                statistics_codes([c.motion for c in clips], usable), who
            ),
            "mean and deviation, one template": retrieval(statistics_codes(shifted, usable), who),
        }
    except DubbingError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    rows = [{"code": name, **figures.to_dict()} for name, figures in found.items()]
    halves = within_clips(encoder, clips)
    facts = facts_per_speaker(clips, model)
    print("Speakers found among other clips (cosines: same and other speaker, other clip)\n")
    print(markdown(["code", *FIGURES], rows))
    print("\nHalves of one clip\n")
    print(markdown(list(halves), [halves]))
    print("\nFacts per speaker (lengths in outer-eye distances)\n")
    print(markdown(list(facts[0]), facts))
    args.output.mkdir(parents=True, exist_ok=True)
    save_json(args.output / "style_check.json", {"retrieval": rows, "halves": halves})
    save_csv(args.output / "speakers.csv", list(facts[0]), facts)
    columns = ["clip", "speaker", *(f"c{k}" for k in range(codes.shape[1]))]
    table = [
        {"clip": c.name, "speaker": c.speaker, **{f"c{k}": v for k, v in enumerate(code.tolist())}}
        for c, code in zip(clips, codes, strict=True)
    ]
    save_csv(args.output / "codes.csv", columns, table)
    return 0


if __name__ == "__main__":
    sys.exit(main())
