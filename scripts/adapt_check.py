"""Adapts to the first part of each clip and measures the lips of the rest, generic and adapted.

    python scripts/adapt_check.py FOLDER --manifest manifest.csv --output DIR [--minimum 10]
    python scripts/adapt_check.py --prepared FOLDER --names names.txt --output DIR

Neutral face, style and rest come from the first part only. Correlation of the lip opening at 25 Hz
with the real one over the last part, at lag 0 and with the offset between the clip's sound and lips
(as the adaptation found it) removed; time to adapt, speech features included, over the length of
what was learned from. The second form takes clips as `dub train prepare` stores them; figures mean
something only for speakers that the checkpoint was not trained on. DIR receives the table.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dubbing.adaptation import Adapter, OwnSpeech, adapted_network
from dubbing.analysis import choose_speaker, find_faces
from dubbing.dubber import Dubber
from dubbing.errors import DubbingError
from dubbing.evaluation.clips import load_clips
from dubbing.evaluation.curves import LipCurve, compare_curves, vertices_curve
from dubbing.evaluation.faces import made_faces
from dubbing.evaluation.tables import markdown, save_csv
from dubbing.face.faults import frame_faults
from dubbing.geometry.fit import fit_track
from dubbing.geometry.morphable import lip_opening
from dubbing.media.reader import VideoReader
from dubbing.models.geometry_net import GeometryNet
from dubbing.motion import RATE, drive
from dubbing.persona import resting_expression
from dubbing.progress import StageProgress
from dubbing.speech.mel import SAMPLE_RATE
from dubbing.speech.vad import segment_gate, speech_segments
from dubbing.style_reference import StyleReference
from dubbing.training.clips import load_landmarks, load_speech_samples, prepared_names

COLUMNS = ("clip", "seconds", "adapted on", "generic", "adapted", "generic, offset removed",
           "adapted, offset removed", "offset", "time over length", "kept generic")  # fmt: skip
MEANS = COLUMNS[1:7] + COLUMNS[8:9]
WORSE = 0.01  # of a correlation; less is no difference


@dataclass(frozen=True)
class Source:
    """A talking face: landmarks [P, 478, 3] at `times` [P] (seconds from the first picture) and
    samples [N] at 16 kHz that begin `offset` seconds after that picture."""

    name: str
    times: Tensor
    landmarks: Tensor
    samples: Tensor
    offset: float


def video_sources(folder: Path, manifest: Path | None, minimum: float) -> Iterator[Source]:
    """The largest face of every clip of `minimum` seconds or more."""
    for clip in load_clips(folder, manifest):
        with VideoReader(clip.path) as reader:
            if float(reader.index.duration) < minimum:
                continue
            faces = find_faces(reader, StageProgress(None, "analyse"))
            track = choose_speaker(faces, None, clip.path)
            seconds = torch.tensor([float(t) for t in reader.index.times], dtype=torch.float64)
        yield Source(
            clip.name,
            seconds[track.frames],
            torch.from_numpy(track.stacked()),
            torch.from_numpy(clip.samples),
            clip.sound_offset,
        )


def prepared_sources(folder: Path, names: Path | None, minimum: float) -> Iterator[Source]:
    """Clips as `dub train prepare` stores them: those listed in the file `names`, or all."""
    wanted = names.read_text().split() if names else prepared_names(folder)
    if missing := sorted(set(wanted) - set(prepared_names(folder))):
        raise SystemExit(f"error: {folder} has no prepared clip {', '.join(missing)}")
    for name in wanted:
        with np.load(folder / f"{name}.npz") as file:
            times = torch.from_numpy(file["times"]).double()
        if float(times[-1]) >= minimum:
            yield Source(
                name, times, load_landmarks(folder, name), load_speech_samples(folder, name), 0.0
            )


def split(dubber: Dubber, source: Source, share: float) -> tuple[OwnSpeech, LipCurve, float]:
    """What the first part tells of the speaker, the real lips of the rest, and where it begins."""
    model = dubber.model
    end = float(source.times[-1]) * share
    count = int((source.times < end).sum())
    first = fit_track(model, source.landmarks[:count])
    last = fit_track(model, source.landmarks[count:], template=first.template)
    good = [
        torch.tensor([not fault for fault in frame_faults(fit, part)])
        for fit, part in ((first, source.landmarks[:count]), (last, source.landmarks[count:]))
    ]
    beta = first.beta[good[0]]
    opening = lip_opening(model.vertices(first.template, beta))
    speech = OwnSpeech(
        features=dubber.features.encode(source.samples).float().cpu(),
        offset=source.offset,
        gate=partial(segment_gate, speech_segments(source.samples)),
        times=source.times[:count][good[0]],
        beta=beta,
        template=first.template,
        style=StyleReference.of(source.times[:count][good[0]], beta),
        rest=resting_expression(beta, opening),
    )
    vertices = model.vertices(first.template, last.beta[good[1]])
    return speech, vertices_curve(vertices, source.times[count:][good[1]].numpy()), end


def made_curve(dubber: Dubber, net: GeometryNet, source: Source, speech: OwnSpeech) -> LipCurve:
    """Lips for the clip's whole sound, on the picture's clock."""
    model, device = dubber.weights.morphable, dubber.device
    seconds = len(source.samples) / SAMPLE_RATE
    with torch.inference_mode():
        style = net.style(model.expression_vertices(speech.style.expressions.to(device))[None])[0]
    motion = drive(
        dubber.features, net, model, source.samples, seconds, speech.template.to(device), style,
        speech.rest.to(device), speech.style, metric=dubber.weights.style_metric,
    )  # fmt: skip
    faces = made_faces(motion, speech.template, net.lower, model.lower).until(seconds)
    return faces.curve.shifted(source.offset)


def measure(dubber: Dubber, source: Source, share: float) -> dict[str, Any]:
    """One line of the table.

    Raises:
        OptionInvalid: the real and the made lips share less than a second.
    """
    begun = time.perf_counter()
    dubber.features.encode(source.samples[: int(len(source.samples) * share)])
    encoding = time.perf_counter() - begun
    speech, truth, end = split(dubber, source, share)
    net = dubber.weights.geometry
    begun = time.perf_counter()
    outcome = Adapter(net, dubber.weights.morphable).adapt(speech)
    took = encoding + time.perf_counter() - begun
    row: dict[str, Any] = {
        "clip": source.name,
        "seconds": float(source.times[-1]),
        "adapted on": outcome.speech_s,
        "offset": outcome.lag,
        "time over length": took / end,
        "kept generic": outcome.reason,
    }
    for name, network in (("generic", net), ("adapted", adapted_network(net, outcome.changes))):
        curve = made_curve(dubber, network, source, speech)
        row[name] = compare_curves(truth, curve).opening
        late = curve.shifted((outcome.lag or 0.0) / RATE)
        row[f"{name}, offset removed"] = compare_curves(truth, late).opening
    return row


def summary(rows: list[dict[str, Any]]) -> str:
    """What the table says in a few lines."""
    gains = np.array([row["adapted"] - row["generic"] for row in rows])
    aligned = [row["adapted, offset removed"] - row["generic, offset removed"] for row in rows]
    both = np.array([row["adapted, offset removed"] for row in rows])
    all_learned = both - [row["generic"] for row in rows]
    applied = sum(not row["kept generic"] for row in rows)
    return (
        f"{len(rows)} clips, {applied} adapted; gain on the last part {gains.mean():+.4f} at lag "
        f"0, {np.mean(aligned):+.4f} with the offset removed; worst clip {gains.min():+.4f}, best "
        f"{gains.max():+.4f}; {int((gains < -WORSE).sum())} worse by more than {WORSE}\n"
        "all that was learned of the first part, its offset too, beside the generic weights at lag "
        f"0: {all_learned.mean():+.4f}, to {both.mean():.4f}"
    )


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, nargs="?", help="folder of videos")
    parser.add_argument("--manifest", type=Path, help="CSV with file, role, speaker")
    parser.add_argument("--prepared", type=Path, help="folder of prepared clips, not videos")
    parser.add_argument("--names", type=Path, help="text file with the prepared clips to measure")
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--minimum", type=float, default=10.0, help="seconds of a clip (10)")
    parser.add_argument("--share", type=float, default=0.6, help="part that is learned from (0.6)")
    parser.add_argument("--checkpoint", default="default")
    parser.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"))
    args = parser.parse_args(arguments)
    if (args.folder is None) == (args.prepared is None):
        parser.error("give a folder of videos, or --prepared")
    return args


def main(arguments: list[str] | None = None) -> int:
    """Exit status: 0 if every clip could be measured and none got worse by 0.01 or more."""
    args = _parse(arguments)
    dubber = Dubber.from_pretrained(args.checkpoint, device=args.device)
    if args.prepared is not None:
        sources = prepared_sources(args.prepared, args.names, args.minimum)
    else:
        sources = video_sources(args.folder, args.manifest, args.minimum)
    rows, errors = [], []
    for source in sources:
        try:
            rows.append(measure(dubber, source, args.share))
        except DubbingError as error:
            errors.append(f"{source.name}: {type(error).__name__}: {error}")
            print(errors[-1], file=sys.stderr, flush=True)
            continue
        print(f"{source.name}: {rows[-1]['generic']:.3f} -> {rows[-1]['adapted']:.3f}",
              file=sys.stderr, flush=True)  # fmt: skip
    if not rows:
        raise SystemExit(f"error: no clip of {args.minimum:g} s or more could be measured")
    means = {"clip": "mean"} | {n: float(np.mean([row[n] for row in rows])) for n in MEANS}
    print(markdown(list(COLUMNS), [*rows, means]))
    print(f"\n{summary(rows)}")
    args.output.mkdir(parents=True, exist_ok=True)
    save_csv(args.output / "adaptation.csv", list(COLUMNS), rows)
    return int(bool(errors) or any(row["adapted"] < row["generic"] - WORSE for row in rows))


if __name__ == "__main__":
    sys.exit(main())
