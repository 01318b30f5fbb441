"""Makes dubbing/assets/demo_speech.flac: how the demo's speech was synthesised.

Needs `flite` (Debian: apt-get install flite) with its voice "slt", an open statistical voice built
from the recordings of CMU ARCTIC. The result is shipped, so that nobody needs to run this.

    python scripts/make_demo_speech.py [OUTPUT.flac]
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import av
import numpy as np

TEXT = (
    "Hello! I am a portrait, and I have just learned to speak. "
    "The words are new, but the face and the smile are still my own."
)
VOICE = "slt"
DURATION_STRETCH = 1.04  # the voice's own pace is a little hurried
PEAK = 0.7  # -3 dBFS
LEAD_S, TAIL_S = 0.3, 0.4  # the mouth rests before the first and after the last word
QUIET = 0.003  # of full scale: below this the voice is silent
OUTPUT = Path(__file__).resolve().parents[1] / "dubbing" / "assets" / "demo_speech.flac"


def synthesise(text: str) -> tuple[np.ndarray, int]:
    """Speech as float32 samples [N] in -1..1, and its sample rate."""
    if shutil.which("flite") is None:
        raise SystemExit("error: flite is not installed (Debian: apt-get install flite)")
    with tempfile.TemporaryDirectory() as folder:
        wave = Path(folder) / "speech.wav"
        stretch = f"duration_stretch={DURATION_STRETCH}"
        command = ["flite", "-voice", VOICE, "--setf", stretch, "-t", text, "-o", str(wave)]
        subprocess.run(command, check=True)
        with av.open(str(wave)) as source:
            rate = source.streams.audio[0].rate
            parts = [frame.to_ndarray().reshape(-1) for frame in source.decode(audio=0)]
    return np.concatenate(parts).astype(np.float32) / 32768, rate


def trimmed(samples: np.ndarray, rate: int) -> np.ndarray:
    """The speech at its peak level between rests of the chosen length."""
    loud = np.flatnonzero(np.abs(samples) > QUIET)
    speech = samples[loud[0] : loud[-1] + 1]
    lead, tail = (np.zeros(round(seconds * rate), np.float32) for seconds in (LEAD_S, TAIL_S))
    return np.concatenate([lead, speech * (PEAK / np.abs(speech).max()), tail])


def write_flac(path: Path, samples: np.ndarray, rate: int) -> None:
    """16-bit mono FLAC."""
    with av.open(str(path), "w") as sink:
        stream = sink.add_stream("flac", rate=rate)
        stream.format = "s16"
        stream.layout = "mono"
        whole = np.rint(samples * 32767).astype(np.int16)
        for start in range(0, len(whole), 4096):
            block = np.ascontiguousarray(whole[None, start : start + 4096])
            frame = av.AudioFrame.from_ndarray(block, format="s16", layout="mono")
            frame.sample_rate = rate
            frame.pts = start
            sink.mux(stream.encode(frame))
        sink.mux(stream.encode(None))


def main() -> None:
    path = Path(sys.argv[1]) if len(sys.argv) > 1 else OUTPUT
    samples, rate = synthesise(TEXT)
    samples = trimmed(samples, rate)
    write_flac(path, samples, rate)
    print(f"{path}: {len(samples) / rate:.2f} s at {rate} Hz, {path.stat().st_size} bytes")


if __name__ == "__main__":
    main()
