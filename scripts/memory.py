"""Whether peak memory grows with length: one clip at 720p, made 10 s and 120 s long, dubbed twice.

    python scripts/memory.py VIDEO AUDIO [--lengths 10 120] [--limit 1.15] [--device ...]
                             [--output DIR]

The clip is played forwards and backwards in turn (a jump would be a shot cut), scaled into
1280 x 720, with the speech repeated to the same length. Each length is dubbed in a process of its
own, whose largest resident memory is printed. The exit status is 1 if the longest takes more than
--limit times the memory of the shortest.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import wave
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
from numpy.typing import NDArray

from dubbing.errors import DubbingError
from dubbing.evaluation.tables import markdown, save_json
from dubbing.media.audio import SPEECH_RATE, check_speech, load_speech
from dubbing.media.reader import VideoReader
from dubbing.media.timeline import iter_plan, plan_output

SIZE = (1280, 720)
CLOCK = Fraction(1, 90_000)  # s, tick of the clip that is made


def make_clip(video: Path, seconds: float, path: Path, size: tuple[int, int] = SIZE) -> int:
    """Write `seconds` of `video`, ping-pong, scaled into `size`; the number of frames."""
    with VideoReader(video) as reader, av.open(str(path), "w") as sink:
        length = Fraction(seconds).limit_denominator(1000)
        plan = plan_output(reader.index.times, reader.index.duration, length, "audio")
        rate = reader.video.average_rate or Fraction(25)
        stream = sink.add_stream("libx264", rate=rate.limit_denominator(60_000))
        stream.width, stream.height, stream.pix_fmt = *size, "yuv420p"
        stream.options = {"crf": "16", "preset": "veryfast"}
        stream.codec_context.time_base = CLOCK
        for placed in iter_plan(reader, plan):
            frame = av.VideoFrame.from_ndarray(fitted(placed.source.rgb(), size), "rgb24")
            frame.pts, frame.time_base = round(placed.time / CLOCK), CLOCK
            sink.mux(stream.encode(frame))
        sink.mux(stream.encode(None))
        return plan.count


def fitted(rgb: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    """A picture [H, W, 3] scaled into `size` (width, height) with black beside it."""
    height, width = rgb.shape[:2]
    scale = min(size[0] / width, size[1] / height)
    inner = (round(width * scale), round(height * scale))
    method = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    out = np.zeros((size[1], size[0], 3), np.uint8)
    left, top = (size[0] - inner[0]) // 2, (size[1] - inner[1]) // 2
    out[top : top + inner[1], left : left + inner[0]] = cv2.resize(rgb, inner, interpolation=method)
    return out


def make_speech(audio: Path, seconds: float, path: Path) -> None:
    """Write the speech of `audio`, repeated to `seconds`, as 16-kHz WAV."""
    samples = load_speech(audio)
    check_speech(samples, audio)
    whole = np.rint(samples * 32767).clip(-32768, 32767).astype("<i2")
    with wave.open(str(path), "wb") as sink:
        sink.setnchannels(1)
        sink.setsampwidth(2)
        sink.setframerate(SPEECH_RATE)
        sink.writeframes(np.resize(whole, round(seconds * SPEECH_RATE)).tobytes())


def dub_once(video: Path, audio: Path, output: Path, args: argparse.Namespace) -> dict[str, Any]:
    """Dub in this process; its figures."""
    import torch

    from dubbing.dubber import Dubber
    from dubbing.job.finishing import peak_memory_mib
    from dubbing.options import DubOptions

    if args.threads:
        torch.set_num_threads(args.threads)
        cv2.setNumThreads(args.threads)
    dubber = Dubber.from_pretrained(args.checkpoint, device=args.device)
    loaded = peak_memory_mib()
    report = dubber.dub(video, audio, output, DubOptions(length="video", preset=args.preset))
    return {"frames": report.output.frames, "dubbed": report.frames_dubbed, "fps": report.fps,
            "loaded_mib": loaded, "peak_mib": peak_memory_mib()}  # fmt: skip


def measure(seconds: float, args: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Make the clip of that length and dub it in a fresh process.

    Raises:
        SystemExit: the process failed.
    """
    clip, speech, output = (folder / f"{seconds:g}{end}" for end in (".mp4", ".wav", ".mkv"))
    print(f"{seconds:g} s: making the clip ...", file=sys.stderr, flush=True)
    make_clip(args.video, seconds, clip)
    make_speech(args.audio, seconds, speech)
    print(f"{seconds:g} s: dubbing ...", file=sys.stderr, flush=True)
    command = [sys.executable, __file__, str(clip), str(speech), "--child", str(output),
               "--device", args.device, "--checkpoint", args.checkpoint,
               "--threads", str(args.threads), "--preset", args.preset]  # fmt: skip
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"error: dubbing {seconds:g} s ended with status {done.returncode}")
    for path in (clip, speech, output):
        path.unlink()
    figures: dict[str, Any] = json.loads(done.stdout)
    return {"seconds": seconds, **figures}


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("video", type=Path)
    parser.add_argument("audio", type=Path)
    parser.add_argument("--lengths", type=float, nargs="+", default=[10.0, 120.0], metavar="S")
    parser.add_argument("--limit", type=float, default=1.15, help="longest / shortest (1.15)")
    parser.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"))
    parser.add_argument("--checkpoint", default="default", help="name or folder of a checkpoint")
    parser.add_argument("--threads", type=int, default=0, help="torch and OpenCV threads (all)")
    parser.add_argument("--preset", default="veryfast", help="effort of the encoder (veryfast)")
    parser.add_argument("--output", type=Path, help="folder for memory.json")
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    """Exit status: 0 if memory stays within the limit."""
    args = _parse(arguments)
    try:
        if args.child:
            print(json.dumps(dub_once(args.video, args.audio, args.child, args)))
            return 0
        lengths = sorted(set(args.lengths))
        with tempfile.TemporaryDirectory() as folder:
            rows = [measure(seconds, args, Path(folder)) for seconds in lengths]
    except DubbingError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    columns = ["seconds", "frames", "dubbed", "fps", "loaded_mib", "peak_mib"]
    print(markdown(columns, rows))
    ratio = rows[-1]["peak_mib"] / rows[0]["peak_mib"]
    kept = ratio <= args.limit
    verdict = "ok" if kept else "FAILED"
    print(f"\nlongest / shortest: {ratio:.3f} (limit {args.limit:g}): {verdict}")
    if args.output:
        args.output.mkdir(parents=True, exist_ok=True)
        save_json(args.output / "memory.json", {"rows": rows, "ratio": ratio, "ok": kept})
    return 0 if kept else 1


if __name__ == "__main__":
    sys.exit(main())
