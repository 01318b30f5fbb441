"""What grows with the length of a film: peak memory of every stage but rendering, per minute.

    python scripts/growth.py [--minutes 2 8] [--film 120] [--rate 25] [--output DIR]
    python scripts/growth.py --sound 1 [--output DIR]

Rendering holds a segment at a time and is measured end to end by scripts/memory.py. The other
stages get made input of two lengths here: landmarks of a moving face through the fit, speech
through stage 1, and the files and tables of a planned job. Each runs in a process of its own; the
difference of their largest resident memories is the growth per minute, from which the need of a
film of --film minutes is told.

--sound measures the path of the sound instead, on that many hours of 192-kHz 7.1 FLAC beside a
small picture: hearing it (a streamed resample to 16 kHz mono), stage 1 on what was heard, copying
it into Matroska, and encoding it once as AAC; the last two with what ffmpeg itself takes.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from array import array
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from dubbing.analysis import SpeakerTrack, frame_faults
from dubbing.demo import demo_speech
from dubbing.evaluation.cases import clips
from dubbing.evaluation.cases.memory import ProgramMemory
from dubbing.evaluation.tables import markdown, save_json
from dubbing.face.rows import LandmarkRows
from dubbing.geometry.fit import FaceFit, FitOptions, fit_track
from dubbing.geometry.pose import apply_pose
from dubbing.job.findings import Findings, load_motion, save_motion
from dubbing.job.finishing import peak_memory_mib
from dubbing.job.segments import cut_segments
from dubbing.media.audio import SPEECH_RATE, check_speech, decode_audio, load_speech
from dubbing.media.index import FrameIndex
from dubbing.media.mux import mux
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
    speak_samples(weights, np.resize(load_speech(demo_speech()), round(seconds * SPEECH_RATE)))


def speak_samples(weights: EngineWeights, heard: NDArray[np.float32]) -> None:
    """Samples [N] at 16 kHz to motion, and its file."""
    samples, seconds = torch.from_numpy(heard), len(heard) / SPEECH_RATE
    own = torch.randn(500, E, generator=torch.Generator().manual_seed(0)) * 0.2
    net, model = weights.geometry, weights.morphable
    features = SpeechFeatures(weights.speech_encoder, standardised=True)
    motion = drive(
        features, net, model, samples, seconds, model.mean, net.average_style, own.mean(0),
        StyleReference(own, [0]), metric=weights.style_metric,
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


RATE, CHANNELS = 192_000, 8
HEARING, SPEAKING, COPYING, ENCODING = "hearing", "stage 1", "copying", "encoding"


def make_sound(hours: float, folder: Path) -> tuple[Path, Path]:
    """(picture, sound): a picture per second, and the shipped speech in one of eight channels that
    hum, 30 s of it over and over."""
    seconds = round(hours * 3600)
    rest = min(30, seconds)
    once, rate = decode_audio(demo_speech())
    speech = np.resize(once[0].astype(np.float32) / 32768, rest * rate)
    times = np.arange(rest * RATE) / RATE
    tones = 50 * np.arange(1, CHANNELS + 1)[:, None]
    block = (0.05 * np.sin(2 * np.pi * tones * times)).astype(np.float32)
    block[2] += np.interp(times, np.arange(len(speech)) / rate, speech)  # the centre
    part = folder / "part.flac"
    clips.make_sound(part, "flac", block, RATE)
    names = f"file '{part.name}'\n" * (seconds // rest)
    (folder / "list.txt").write_text(names)
    sound = clips.ffmpeg_clip(
        folder / "sound.mka", "-f", "concat", "-i", str(folder / "list.txt"), "-c", "copy"
    )
    picture = clips.make_clip(
        folder / "picture.mp4",
        clips.ClipRecipe(
            time_base=Fraction(1), pts=range(seconds), options={"preset": "ultrafast"}
        ),
    )
    return picture, sound


def sound_stage(stage: str, folder: Path) -> dict[str, float]:
    """One step of the sound's path in this process: seconds, peak MiB here and of ffmpeg."""
    picture, sound, samples = (folder / n for n in ("picture.mp4", "sound.mka", "samples.npy"))
    weights = load_engine("default", torch.device("cpu")) if stage == SPEAKING else None
    loaded, start = peak_memory_mib(), time.perf_counter()
    with ProgramMemory() as program:
        if stage == HEARING:
            heard = load_speech(sound, None)
            check_speech(heard, sound)
        elif weights is not None:
            heard = np.load(samples)
            speak_samples(weights, heard)
        else:
            kind = ".mkv" if stage == COPYING else ".mp4"
            codec = "auto" if stage == COPYING else "aac"
            made = mux(picture, sound, picture, folder / f"out{kind}", audio_codec=codec,
                       overwrite=True)  # fmt: skip
            wanted = "copied" if stage == COPYING else "encoded"
            if made.audio_action != wanted:
                raise SystemExit(f"error: the sound was {made.audio_action}, not {wanted}")
    peak, seconds = peak_memory_mib() - loaded, time.perf_counter() - start
    if stage == HEARING:
        np.save(samples, heard)
    return {"seconds": seconds, "MiB": peak, "of ffmpeg": program.peak_mib}


def measure_sound(hours: float) -> list[dict[str, Any]]:
    """A row per step, each in a process of its own."""
    rows = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_sound(hours, folder)
        size = (folder / "sound.mka").stat().st_size / 2**20
        decoded = hours * 3600 * RATE * CHANNELS * 4 / 2**20
        print(f"{size:.0f} MiB of FLAC, {decoded:.0f} MiB decoded", file=sys.stderr, flush=True)
        for stage in (HEARING, SPEAKING, COPYING, ENCODING):
            command = [sys.executable, __file__, "--child", stage, "--folder", name]
            done = subprocess.run(command, stdout=subprocess.PIPE, check=True)
            rows.append({"step": stage, **json.loads(done.stdout)})
            print(rows[-1], file=sys.stderr, flush=True)
    return rows


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, nargs="+", default=[2.0, 8.0])
    parser.add_argument("--film", type=float, default=120.0, help="minutes to tell for (120)")
    parser.add_argument("--rate", type=int, default=25, help="frames per second (25)")
    parser.add_argument("--sound", type=float, metavar="HOURS", help="measure the sound's path")
    parser.add_argument("--output", type=Path, help="folder for growth.json")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    """Print the table."""
    args = _parse(arguments)
    if args.child:
        torch.set_num_threads(1)
    if args.folder:
        print(json.dumps(sound_stage(args.child, args.folder)))
        return 0
    if args.child:
        weights = load_engine("default", torch.device("cpu"))
        loaded = peak_memory_mib()
        STAGES[args.child](weights, 60 * args.minutes[0], args.rate)
        print(peak_memory_mib() - loaded)
        return 0
    if args.sound:
        return _told(measure_sound(args.sound), args.output)
    low, high = min(args.minutes), max(args.minutes)
    rows: list[dict[str, Any]] = []
    for stage in STAGES:
        small, large = (measure(stage, minutes, args.rate) for minutes in (low, high))
        growth = (large - small) / (high - low)
        film = large + growth * (args.film - high)
        rows.append({"stage": stage, f"{low:g} min": small, f"{high:g} min": large,
                     "MiB per minute": growth, f"{args.film:g} min": film})  # fmt: skip
    return _told(rows, args.output)


def _told(rows: list[dict[str, Any]], output: Path | None) -> int:
    print(markdown(list(rows[0]), rows))
    if output:
        output.mkdir(parents=True, exist_ok=True)
        save_json(output / "growth.json", {"rows": rows})
    return 0


if __name__ == "__main__":
    sys.exit(main())
