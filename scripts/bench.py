"""Frames per second of every stage, measured one after the other on the same frames.

    python scripts/bench.py VIDEO AUDIO [--device auto|cpu|cuda] [--threads N] [--frames N]
                            [--output DIR] [--no-end-to-end]

Each stage is the engine's own code, run alone; the renderer's parts are timed inside one pass of
the renderer. On CUDA the device is waited for at every border of a stage. The last line is a whole
dub (`--length video`), in which encoder and decoder work beside the rest; with NVIDIA cards, how
busy they were meanwhile is told beside the clip.
"""

from __future__ import annotations

import argparse
import os
import platform
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import av
import cv2
import torch

import dubbing.render.session as session_module
from dubbing.analysis import (
    SpeakerTrack,
    choose_speaker,
    easing,
    find_faces,
    fit_speaker,
)
from dubbing.dubber import Dubber
from dubbing.errors import DubbingError
from dubbing.evaluation.gpu_use import GpuUse, gpu_use
from dubbing.evaluation.tables import markdown, save_json
from dubbing.evaluation.timing import StageTimer
from dubbing.face.tracker import FaceTracker
from dubbing.job.finishing import peak_memory_mib
from dubbing.media.audio import load_speech
from dubbing.media.reader import DecodedFrame, VideoReader
from dubbing.media.writer import VideoWriter
from dubbing.models.renderer import Renderer
from dubbing.motion import Motion, drive
from dubbing.options import DubOptions
from dubbing.persona import Persona
from dubbing.persona_builder import build_persona
from dubbing.progress import StageProgress
from dubbing.render.painting import Painter
from dubbing.render.registration import Registration
from dubbing.render.session import RenderSession
from dubbing.report import save_bytes
from dubbing.stream import DubbedFrames, StreamFrame
from dubbing.threads import settle_threads
from dubbing.weights import MORPHABLE

ENCODED = 50  # decoded frames held for the encoder's turn
WARM_UP = 5  # frames rendered before the clock starts

DECODE = "decode"
DETECT = "detect and landmarks"
FIT = "fit"
BANK = "reference bank"
SPEECH = "speech features"
STAGE_1 = "stage 1"
REGISTER = "registration"
RASTER = "raster and correspondence"
NETWORK = "attention and decoder"
COMPOSE = "native copy and compose"
ENCODE = "encode"
END = "end to end"


@dataclass
class Bench:
    """What is measured, and with what."""

    dubber: Dubber
    video: Path
    audio: Path
    frames: int
    timer: StageTimer
    units: dict[str, int]

    @contextmanager
    def stage(self, name: str, units: int) -> Iterator[None]:
        """Time a block that handles so many frames."""
        print(f"{name} ...", file=sys.stderr, flush=True)
        self.units[name] = self.units.get(name, 0) + units
        with self.timer.stage(name):
            yield


def measure_analysis(bench: Bench, reader: VideoReader) -> SpeakerTrack:
    """Decoding alone, then detection with landmarks, then the fit of the whole clip."""
    count = reader.index.count
    with bench.stage(DECODE, count):
        for _ in reader:
            pass
    print(f"{DETECT} ...", file=sys.stderr, flush=True)
    places = ((DecodedFrame, "rgb", DETECT), (FaceTracker, "add", DETECT))
    with bench.timer.around(*places):  # the decoding between is not counted
        faces = find_faces(reader, StageProgress(None, "analyse"))
    bench.units[DETECT] = count
    track = choose_speaker(faces, None, reader.path)
    model = bench.dubber.model
    with bench.stage(FIT, len(track.frames)):
        return fit_speaker(model, faces, track)


class KnownFeatures:
    """Speech features that were computed before."""

    def __init__(self, features: torch.Tensor):
        self.feature_dim = features.shape[-1]
        self._features = features

    def encode(self, samples: torch.Tensor) -> torch.Tensor:
        return self._features

    def blocks(self, samples: torch.Tensor) -> Iterator[torch.Tensor]:
        yield self._features


def measure_speech(bench: Bench, persona: Persona, seconds: float, count: int) -> Motion:
    """Speech features, then stage 1, for `seconds` of motion (`count` frames of the clip)."""
    dubber = bench.dubber
    samples = torch.from_numpy(load_speech(bench.audio))
    dubber.features.encode(samples[:16000])  # warm-up
    spoken = min(len(samples) / 16000 / seconds, 1.0)
    samples = samples[: round(seconds * 16000)]
    with bench.stage(SPEECH, round(count * spoken)):
        features = dubber.features.encode(samples)
    own = persona.style.expressions.to(dubber.device)
    moved = dubber.weights.morphable.expression_vertices(own)
    style = dubber.weights.geometry.style(moved[None])[0].detach()
    with bench.stage(STAGE_1, count):
        return drive(
            KnownFeatures(features), dubber.weights.geometry, dubber.weights.morphable, samples,
            seconds, persona.template.to(dubber.device), style, persona.rest.to(dubber.device),
            persona.style, metric=dubber.weights.style_metric,
        )  # fmt: skip


def measure_render(
    bench: Bench, reader: VideoReader, session: RenderSession, motion: Motion,
    speaker: SpeakerTrack, persona: Persona,
) -> int:  # fmt: skip
    """The renderer's parts; the number of frames that were rendered, not passed through."""
    print("render ...", file=sys.stderr, flush=True)
    places = [
        (session_module, name, RASTER)
        for name in ("target_maps", "reference_maps", "correspond", "part_of_match")
    ]
    places += [
        (RenderSession, "_attend_face", NETWORK), (RenderSession, "_attend_lips", NETWORK),
        (Painter, "_repair", NETWORK), (Renderer, "encode_textures", NETWORK),
        (Registration, "register", REGISTER), (RenderSession, "render", COMPOSE),
        (DecodedFrame, "rgb_region", COMPOSE), (DecodedFrame, "paste", COMPOSE),
    ]  # fmt: skip
    weights = easing(speaker.reasons, reader.index.count)
    frames = DubbedFrames(session, bench.dubber.lower, motion, speaker, weights)
    wanted = min(bench.frames + WARM_UP, reader.index.count)
    source = (StreamFrame(f.index, f, float(f.offset)) for f in reader.read_range(0, wanted))
    rendered = 0
    alone = mock.patch.object(RenderSession, "expect")  # nothing runs beside what is timed
    with alone, bench.timer.around(*places):
        for number, done in enumerate(frames.run(source)):
            if number == WARM_UP - 1:
                bench.timer.seconds |= dict.fromkeys((REGISTER, RASTER, NETWORK, COMPOSE), 0.0)
                rendered = 0
            elif not done.reason:
                rendered += 1
    for name in (REGISTER, RASTER, NETWORK, COMPOSE):
        bench.units[name] = rendered
    return rendered


def measure_encode(bench: Bench, reader: VideoReader, folder: Path) -> None:
    """The encoder alone, on frames that are decoded already."""
    options = DubOptions()
    held = list(reader.read_range(0, min(ENCODED, reader.index.count)))
    rounds = max(bench.frames // len(held), 1)
    step = max(held[-1].pts - held[0].pts, 1) * len(held) // max(len(held) - 1, 1) + 1
    with (
        bench.stage(ENCODE, rounds * len(held)),
        VideoWriter(
            folder / "encoded", reader.video, options.codec, crf=float(options.crf),
            preset=options.preset,
        ) as writer,
    ):  # fmt: skip
        for turn in range(rounds):
            for frame in held:
                writer.write(frame.frame, frame.pts + turn * step)


def run(bench: Bench, end_to_end: bool) -> dict[str, Any]:
    """Measure every stage; facts about the clip."""
    dubber = bench.dubber
    with VideoReader(bench.video) as reader, tempfile.TemporaryDirectory() as folder:
        count, seconds = reader.index.count, float(reader.index.duration)
        speaker = measure_analysis(bench, reader)
        model, mesh = dubber.model, dubber.mesh
        with bench.stage(BANK, count):
            persona = build_persona(
                reader, speaker, model, mesh, count, dubber.weights.hashes[MORPHABLE]
            )
            session = dubber.session(persona)
        motion = measure_speech(bench, persona, seconds, count)
        rendered = measure_render(bench, reader, session, motion, speaker, persona)
        measure_encode(bench, reader, Path(folder))
        use = GpuUse()
        if end_to_end:
            with bench.stage(END, count), gpu_use() as use:
                output = Path(folder) / "dubbed.mkv"
                dubber.dub(bench.video, bench.audio, output, DubOptions(length="video"))
        width, height = reader.video.display_size
        return {
            "video": bench.video.name, "width": width, "height": height, "frames": count,
            "seconds": round(seconds, 3), "face_px": round(float(_face_height(speaker))),
            "rendered_frames": rendered,
            **({f"gpu_{k}": v for k, v in asdict(use).items()} if use.samples else {}),
        }  # fmt: skip


def _face_height(speaker: SpeakerTrack) -> torch.Tensor:
    return 2 * speaker.fit.pose[:, 3].exp().median()


def machine_facts(device: torch.device, threads: int) -> dict[str, Any]:
    """What the figures belong to."""
    facts: dict[str, Any] = {
        "cpu": _cpu_name(), "cores": os.cpu_count(), "threads": threads,
        "system": platform.platform(), "python": platform.python_version(),
        "torch": torch.__version__, "pyav": av.__version__, "device": str(device),
    }  # fmt: skip
    if device.type == "cuda":
        facts["gpu"] = torch.cuda.get_device_name(device)
        facts["cuda"] = torch.version.cuda
    return facts


def _cpu_name() -> str:
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def table_of(bench: Bench) -> list[dict[str, Any]]:
    """One line per stage in the order of the work, and their sum."""
    rows: list[dict[str, Any]] = []
    order = (DECODE, DETECT, FIT, BANK, SPEECH, STAGE_1, REGISTER, RASTER, NETWORK, COMPOSE, ENCODE)
    for name in order:
        units, seconds = bench.units[name], bench.timer.seconds.get(name, 0.0)
        if units and seconds > 0:
            rows.append(_line(name, units, seconds))
    per_frame = sum(row["ms per frame"] for row in rows)
    rows.append({"stage": "all of these", "frames per second": round(1000 / per_frame, 2),
                 "ms per frame": round(per_frame, 2)})  # fmt: skip
    if END in bench.units:
        rows.append(_line(END, bench.units[END], bench.timer.seconds[END]))
    return rows


def _line(name: str, units: int, seconds: float) -> dict[str, Any]:
    return {"stage": name, "frames": units, "seconds": round(seconds, 3),
            "frames per second": round(units / seconds, 2),
            "ms per frame": round(1000 * seconds / units, 3)}  # fmt: skip


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("video", type=Path)
    parser.add_argument("audio", type=Path)
    parser.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"))
    parser.add_argument("--checkpoint", default="default", help="name or folder of a checkpoint")
    parser.add_argument(
        "--threads", type=int, default=0, help="torch and OpenCV threads (as `dub run`)"
    )
    parser.add_argument("--frames", type=int, default=100, help="frames rendered and encoded (100)")
    parser.add_argument("--output", type=Path, help="folder for bench.json and bench.md")
    parser.add_argument("--no-end-to-end", action="store_true", help="leave out the whole dub")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    """Exit status."""
    args = _parse(arguments)
    settle_threads()
    if args.threads:
        torch.set_num_threads(args.threads)
        cv2.setNumThreads(args.threads)
    try:
        dubber = Dubber.from_pretrained(args.checkpoint, device=args.device)
        timer = StageTimer(dubber.device)
        bench = Bench(dubber, args.video, args.audio, max(args.frames, 1), timer, {})
        clip = run(bench, not args.no_end_to_end)
    except DubbingError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    machine = machine_facts(dubber.device, torch.get_num_threads())
    rows = table_of(bench)
    text = "\n\n".join(
        [
            markdown(["stage", "frames", "seconds", "frames per second", "ms per frame"], rows),
            "clip: " + ", ".join(f"{k} {v}" for k, v in clip.items()),
            "machine: " + ", ".join(f"{k} {v}" for k, v in machine.items()),
        ]
    )
    print(text)
    if args.output:
        args.output.mkdir(parents=True, exist_ok=True)
        facts = {"machine": machine, "clip": clip, "stages": rows, "peak_mib": peak_memory_mib()}
        save_json(args.output / "bench.json", facts)
        save_bytes(args.output / "bench.md", (text + "\n").encode())
    return 0


if __name__ == "__main__":
    sys.exit(main())
