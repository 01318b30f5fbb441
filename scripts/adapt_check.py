"""Adapts to the first part of each clip and measures the lips of the rest, generic and adapted.

    python scripts/adapt_check.py FOLDER --manifest manifest.csv --output DIR [--minimum 10]

Style and rest come from the first part too; the neutral face is that of the whole clip. Correlation
of the lip opening at 25 Hz with the real one over the last part, at lag 0 and with the offset
between the clip's sound and lips (as the adaptation found it) removed. DIR receives the table.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from dubbing.adaptation import Adapter, OwnSpeech, adapted_network
from dubbing.console import shown_progress
from dubbing.dubber import Dubber
from dubbing.evaluation.clips import Clip, load_clips
from dubbing.evaluation.curves import LipCurve, compare_curves, vertices_curve
from dubbing.evaluation.faces import made_faces
from dubbing.evaluation.tables import markdown, save_csv
from dubbing.geometry.morphable import lip_opening
from dubbing.media.reader import VideoReader
from dubbing.models.geometry_net import GeometryNet
from dubbing.motion import RATE, drive
from dubbing.own_speech import own_speech
from dubbing.persona import resting_expression, style_frames

COLUMNS = ("clip", "seconds", "adapted on", "generic", "adapted", "generic, offset removed",
           "adapted, offset removed", "kept generic", "seconds to adapt")  # fmt: skip


def first_part(dubber: Dubber, speech: OwnSpeech, end: float) -> OwnSpeech:
    """What is known of the speaker up to `end` seconds."""
    model = dubber.weights.morphable
    kept = speech.times < end
    beta = speech.beta[kept]
    opening = lip_opening(model.vertices(speech.template, beta))
    return dataclasses.replace(
        speech, times=speech.times[kept], beta=beta, style=style_frames(beta),
        rest=resting_expression(beta, opening),
    )  # fmt: skip


def made_curve(dubber: Dubber, net: GeometryNet, clip: Clip, part: OwnSpeech) -> LipCurve:
    """Lips for the clip's whole sound, on the picture's clock."""
    model = dubber.weights.morphable
    seconds = len(clip.samples) / 16000
    with torch.inference_mode():
        style = net.style(model.expression_vertices(part.style)[None])[0]
    motion = drive(
        dubber.features, net, model, torch.from_numpy(clip.samples), seconds, part.template, style,
        part.rest, part.style,
    )  # fmt: skip
    faces = made_faces(motion, part.template, net.lower, model.lower).until(seconds)
    return faces.curve.shifted(part.offset)


def measure(dubber: Dubber, clip: Clip, share: float) -> dict[str, Any]:
    """One line of the table."""
    with shown_progress(sys.stderr, quiet=True) as progress:
        persona = dubber.prepare(clip.path, progress=progress)
    begun = time.perf_counter()
    with VideoReader(clip.path) as reader:
        speech = own_speech(reader, persona, dubber.features)
    end = float(speech.times[-1]) * share
    part = first_part(dubber, speech, end)
    net = dubber.weights.geometry
    outcome = Adapter(net, dubber.weights.morphable).adapt(part)
    took = time.perf_counter() - begun
    vertices = dubber.weights.morphable.vertices(speech.template, speech.beta)
    rest = speech.times.numpy() >= end
    truth = vertices_curve(vertices[torch.from_numpy(rest)], speech.times.numpy()[rest])
    row: dict[str, Any] = {"clip": clip.name, "seconds": float(speech.times[-1]),
                           "adapted on": outcome.speech_s, "kept generic": outcome.reason,
                           "seconds to adapt": took}  # fmt: skip
    for name, network in (("generic", net), ("adapted", adapted_network(net, outcome.changes))):
        curve = made_curve(dubber, network, clip, part)
        row[name] = compare_curves(truth, curve).opening
        late = curve.shifted((outcome.lag or 0.0) / RATE)
        row[f"{name}, offset removed"] = compare_curves(truth, late).opening
    return row


def main(arguments: list[str] | None = None) -> int:
    """Exit status: 0 if every clip could be measured and none got worse by 0.01 or more."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--manifest", type=Path, help="CSV with file, role, speaker")
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--minimum", type=float, default=10.0, help="seconds of a clip (10)")
    parser.add_argument("--share", type=float, default=0.6, help="part that is learned from (0.6)")
    parser.add_argument("--checkpoint", default="default")
    parser.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"))
    args = parser.parse_args(arguments)
    dubber = Dubber.from_pretrained(args.checkpoint, device=args.device)
    rows = []
    for clip in load_clips(args.folder, args.manifest):
        with VideoReader(clip.path) as reader:
            if float(reader.index.duration) < args.minimum:
                continue
        rows.append(measure(dubber, clip, args.share))
        print(f"{clip.name}: {rows[-1]['generic']:.3f} -> {rows[-1]['adapted']:.3f}",
              file=sys.stderr, flush=True)  # fmt: skip
    if not rows:
        raise SystemExit(f"error: no clip of {args.minimum:g} s or more in {args.folder}")
    means: dict[str, Any] = {"clip": "mean"}
    for name in COLUMNS[1:]:
        if name != "kept generic":
            means[name] = float(np.mean([row[name] for row in rows]))
    print(markdown(list(COLUMNS), [*rows, means]))
    args.output.mkdir(parents=True, exist_ok=True)
    save_csv(args.output / "adaptation.csv", list(COLUMNS), rows)
    return int(any(row["adapted"] < row["generic"] - 0.01 for row in rows))


if __name__ == "__main__":
    sys.exit(main())
