"""What grows with the length of a film: peak memory of every stage but rendering, per minute.

    python scripts/growth.py [--minutes 2 8] [--film 120] [--rate 25] [--output DIR]

Rendering holds a segment at a time and is measured end to end by scripts/memory.py. The other
stages get made input of two lengths here: landmarks of a moving face through the fit, speech
through stage 1, and the files and tables of a planned job. Each runs in a process of its own; the
difference of their largest resident memories is the growth per minute, from which the need of a
film of --film minutes is told.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from array import array
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import torch

from dubbing.analysis import SpeakerTrack, frame_faults
from dubbing.demo import demo_speech
from dubbing.evaluation.tables import markdown, save_json
from dubbing.face.rows import LandmarkRows
from dubbing.geometry.fit import FaceFit, FitOptions, fit_track
from dubbing.geometry.pose import apply_pose
from dubbing.job.findings import Findings, load_motion, save_motion
from dubbing.job.finishing import peak_memory_mib
from dubbing.job.segments import cut_segments
from dubbing.media.audio import load_speech
from dubbing.media.index import FrameIndex
from dubbing.media.timeline import plan_output
from dubbing.motion import Motion, drive
from dubbing.speech.features import SpeechFeatures
from dubbing.style_reference import StyleReference
from dubbing.weights import EngineWeights, load_engine

E = 48  # expression components


def tracked(weights: EngineWeights, frames: int) -> LandmarkRows:
    """Landmarks of a face that moves, as the tracker collects them."""
    model, chance = weights.morphable, torch.Generator().manual_seed(0)
    rows = LandmarkRows()
    for k in range(frames):
        beta = 0.2 * torch.randn(1, model.expression.shape[0], generator=chance)
        pose = torch.tensor([[0.1 * np.sin(k / 40), 0, 0, 4.0, 320 + 20 * np.sin(k / 60), 240]])
        points = apply_pose(model.vertices(model.mean, beta), pose.float())[0]
        rows.append(np.concatenate([points.numpy(), points[:10].numpy()]).astype(np.float32))
    return rows


def analyse(weights: EngineWeights, seconds: float, rate: int) -> None:
    """Tracking's memory and the fit (fewer steps: they take time, not memory)."""
    rows = tracked(weights, round(seconds * rate))
    fit = fit_track(weights.morphable, rows, FitOptions(steps=2))
    frame_faults(fit, rows)


def speak(weights: EngineWeights, seconds: float, rate: int) -> None:
    """Speech to motion, and its file."""
    once = load_speech(demo_speech())
    samples = torch.from_numpy(np.resize(once, round(seconds * 16000)))
    own = torch.randn(500, E, generator=torch.Generator().manual_seed(0)) * 0.2
    net, model = weights.geometry, weights.morphable
    features = SpeechFeatures(weights.speech_encoder, standardised=True)
    motion = drive(
        features, net, model, samples, seconds, model.mean, net.average_style, own.mean(0),
        StyleReference(own, [0]),
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        save_motion(motion, Path(folder) / "motion")


def plan(weights: EngineWeights, seconds: float, rate: int) -> None:
    """Files and tables of a job: written, read again, cut into segments."""
    count = round(seconds * rate)
    pts, keys = array("q", range(count)), array("q", range(0, count, 250))
    index = FrameIndex(Fraction(1, rate), pts, keys, 1, True)
    fit = FaceFit(
        torch.zeros(40), torch.zeros(468, 3), torch.zeros(count, E), torch.zeros(count, 6),
        torch.zeros(count),
    )  # fmt: skip
    frames = range(count)
    speaker = SpeakerTrack(
        [0], dict(zip(frames, frames, strict=True)), dict.fromkeys(frames, 0), fit,
        {k: "no face found" for k in frames if k % 10 == 0},
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "findings"
        Findings(index, speaker, [], Fraction(count, rate), []).save(path)
        found = Findings.load(path)
        motion = Path(folder) / "motion"
        save_motion(Motion(torch.zeros(round(seconds * 25), 177, 3)), motion)
        load_motion(motion, 0.0, 10.0)
    cut_segments(plan_output(index.times, index.duration, index.duration), found.speaker, 10.0)


STAGES: dict[str, Callable[[EngineWeights, float, int], None]] = {
    "tracking and fit": analyse,
    "speech and motion": speak,
    "planned job": plan,
}


def measure(stage: str, minutes: float, rate: int) -> float:
    """Peak MiB of a stage beyond the loaded networks, in a fresh process."""
    command = [sys.executable, __file__, "--child", stage, "--minutes", str(minutes)]
    done = subprocess.run([*command, "--rate", str(rate)], stdout=subprocess.PIPE, check=True)
    return float(json.loads(done.stdout))


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, nargs="+", default=[2.0, 8.0])
    parser.add_argument("--film", type=float, default=120.0, help="minutes to tell for (120)")
    parser.add_argument("--rate", type=int, default=25, help="frames per second (25)")
    parser.add_argument("--output", type=Path, help="folder for growth.json")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    """Print the table."""
    args = _parse(arguments)
    if args.child:
        torch.set_num_threads(1)
        weights = load_engine("default", torch.device("cpu"))
        loaded = peak_memory_mib()
        STAGES[args.child](weights, 60 * args.minutes[0], args.rate)
        print(peak_memory_mib() - loaded)
        return 0
    low, high = min(args.minutes), max(args.minutes)
    rows: list[dict[str, Any]] = []
    for stage in STAGES:
        small, large = (measure(stage, minutes, args.rate) for minutes in (low, high))
        growth = (large - small) / (high - low)
        film = large + growth * (args.film - high)
        rows.append({"stage": stage, f"{low:g} min": small, f"{high:g} min": large,
                     "MiB per minute": growth, f"{args.film:g} min": film})  # fmt: skip
    print(markdown(list(rows[0]), rows))
    if args.output:
        args.output.mkdir(parents=True, exist_ok=True)
        save_json(args.output / "growth.json", {"rows": rows})
    return 0


if __name__ == "__main__":
    sys.exit(main())
