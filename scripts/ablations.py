"""What each part of the method is worth (the paper's table 4, and registration, which is ours).

    python scripts/ablations.py FOLDER --manifest manifest.csv --output DIR --perceptual WHEEL

FOLDER holds clips of speakers that were never trained on. Held-out frames of every clip (see
scripts/face.py) are made by the whole method and by variants that do without one part each:

no style            stage 1 speaks as the average speaker
no Face-Attention   Lip-Attention makes the whole lower face, from the lip references
no Lip-Attention    Face-Attention makes the mouth too, from the face references
random references   both sets of references are drawn at random from the clip
no registration     tracked geometry is taken as it is

The weights are those of the whole method, which was not trained anew for each variant. Full latent
attention is not among them: it would need weights of its own (scripts/attention_bench.py shows what
it costs, docs/design.md what it gave after a short training).

DIR receives ablations.json, ablations.csv, ablations.md and contact sheets.
"""

from __future__ import annotations

import argparse
import sys
from functools import partial
from pathlib import Path

import cv2
import torch

from dubbing.console import shown_progress
from dubbing.dubber import Dubber
from dubbing.errors import DubbingError
from dubbing.evaluation.ablations import VARIANTS, ablated, section
from dubbing.evaluation.clips import chosen, load_clips
from dubbing.evaluation.face_protocols import FaceBench
from dubbing.evaluation.judges import Judges
from dubbing.evaluation.protocols import collect
from dubbing.evaluation.studio import Studio
from dubbing.evaluation.style import load_style_encoder
from dubbing.evaluation.tables import markdown, save_csv, save_json
from dubbing.report import save_bytes


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="folder of clips that carry their own sound")
    parser.add_argument("--output", type=Path, required=True, help="folder for the results")
    parser.add_argument("--manifest", type=Path, help="CSV with file, role, speaker")
    parser.add_argument("--clips", nargs="+", metavar="NAME", help="clips to measure (all)")
    parser.add_argument("--frames", type=int, default=12, help="frames per clip (12)")
    parser.add_argument(
        "--without", nargs="+", choices=list(VARIANTS)[1:], default=list(VARIANTS)[1:],
        help="parts to do without (each)",
    )  # fmt: skip
    parser.add_argument(
        "--cache", type=Path, metavar="DIR", help="where tracked faces are kept (OUTPUT/cache)"
    )
    parser.add_argument(
        "--perceptual", type=Path, metavar="FILE", help="wheel stlpips-pytorch or its .pth file"
    )
    parser.add_argument("--checkpoint", default="default", help="name or folder of a checkpoint")
    parser.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"))
    parser.add_argument("--threads", type=int, default=0, help="threads (all cores)")
    parser.add_argument("--quiet", action="store_true", help="show no progress")
    args = parser.parse_args(arguments)
    if args.frames < 2:
        parser.error("--frames has to be at least 2")
    return args


def main(arguments: list[str] | None = None) -> int:
    """Exit status: 0 if every clip could be measured with every variant."""
    args = _parse(arguments)
    if args.threads:
        torch.set_num_threads(args.threads)
        cv2.setNumThreads(args.threads)
    try:
        clips = load_clips(args.folder, args.manifest)
        shown = chosen(clips, args.clips)
        dubber = Dubber.from_pretrained(args.checkpoint, device=args.device)
        encoder = load_style_encoder()
        args.output.mkdir(parents=True, exist_ok=True)
        with (
            shown_progress(sys.stderr, quiet=args.quiet) as progress,
            Judges.load(args.perceptual) as judges,
        ):
            studio = Studio(dubber, args.cache or args.output / "cache", progress)
            sheets = args.output / "sheets"
            bench = FaceBench(studio, judges, clips, args.frames, sheets)
            if not args.quiet:
                bench.note = partial(print, file=sys.stderr, flush=True)
            errors = list(judges.missing)
            jobs = [
                (f"{variant.name}: {clip.name}", partial(ablated, bench, encoder, clip, variant))
                for clip in shown
                for variant in (VARIANTS[name] for name in ("full", *args.without))
            ]
            rows = collect(jobs, errors, bench.note)
    except DubbingError as error:
        raise SystemExit(f"error: {error}") from error
    if not rows:
        raise SystemExit("\n".join(["error: nothing could be measured", *errors]))
    found = section(rows)
    table = f"{found.title}\n\n{markdown(list(found.lines[0]), found.lines)}"
    text = "\n".join([table, *(f"error: {error}" for error in errors)])
    print(text)
    columns = list(dict.fromkeys(name for row in rows for name in row))
    save_csv(args.output / "ablations.csv", columns, rows)
    facts = {"checkpoint": dubber.weights.hashes, "frames per clip": args.frames, "errors": errors}
    save_json(args.output / "ablations.json", facts | {"summary": found.lines, "rows": rows})
    save_bytes(args.output / "ablations.md", f"{text}\n".encode())
    return 1 if errors else 0


if __name__ == "__main__":
    sys.exit(main())
