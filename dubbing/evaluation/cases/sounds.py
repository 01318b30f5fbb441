"""The given sound: copied packet by packet, or encoded once at its own rate and layout."""

from __future__ import annotations

import functools
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from dubbing.evaluation.cases.chain import run_chain
from dubbing.evaluation.cases.clips import ClipRecipe, ffmpeg_clip, make_clip, make_sound, tone
from dubbing.evaluation.cases.memory import ProgramMemory
from dubbing.evaluation.cases.registry import (
    Bench,
    Case,
    NotInThisBuild,
    add,
    case,
    check,
)
from dubbing.media.audio import SPEECH_RATE, audio_duration, check_speech, load_speech
from dubbing.media.mux import mux
from dubbing.media.probe import probe, require_audio

TOPIC = "sound"
ADTS_HEADER = 7
"""Bytes."""


def packets(path: Path) -> list[bytes]:
    """Payloads of the first sound stream."""
    with av.open(str(path)) as container:
        return [bytes(p) for p in container.demux(container.streams.audio[0]) if p.size]


def picture(bench: Bench, frames: int = 30) -> Path:
    """A clip to put sound under."""
    return make_clip(bench.folder / "in.mp4", ClipRecipe(pts=range(frames)))


def muxed(bench: Bench, sound: Path, suffix: str) -> str:
    """`sound` under a clip; checks rate, channels and that a copy is one. The figure says how."""
    output = bench.folder / f"out-{sound.stem}-{sound.suffix[1:]}{suffix}"
    made = run_chain(picture(bench), sound, output, codec="libx264", patch=False).mixed
    before, after = require_audio(sound).audio[0], require_audio(output).audio[0]
    check(after.channels == before.channels, f"{after.channels} of {before.channels} channels")
    if made.audio_action == "copied":
        check(after.sample_rate == before.sample_rate, f"{after.sample_rate} Hz")
        given, got = packets(sound), packets(output)
        if before.codec.startswith("pcm"):  # its packets are cut anew
            given, got = [b"".join(given)], [b"".join(got)]
        if sound.suffix == ".aac":  # a header before each packet, which containers don't hold
            given = [packet[ADTS_HEADER:] for packet in given]
        check(given == got, "packets differ")
    elif made.audio_codec != "opus":  # which knows 48 kHz only
        limit = 96000 if made.audio_codec == "aac" else 655350
        check(after.sample_rate == min(before.sample_rate, limit), f"{after.sample_rate} Hz")
    speech = load_speech(output)
    heard = float(audio_duration(sound))
    check(abs(speech.size / SPEECH_RATE - heard) < 0.1, f"{speech.size / SPEECH_RATE:.2f} s")
    return f"{before.codec} {made.audio_action} as {made.audio_codec} in {suffix}"


def _layout(bench: Bench, channels: int) -> str:
    sound = make_sound(bench.folder / "s.flac", "flac", tone(1.0, 48000, channels), 48000)
    figures = [muxed(bench, sound, suffix) for suffix in (".mp4", ".mkv", ".mov")]
    return "; ".join(figures)


for _channels, _name in (
    (1, "mono"),
    (2, "stereo"),
    (3, "2.1"),
    (4, "quad"),
    (6, "5.1"),
    (8, "7.1"),
):
    add(Case(TOPIC, _name, functools.partial(_layout, channels=_channels)))


def _rate(bench: Bench, rate: int) -> str:
    sound = make_sound(bench.folder / "s.wav", "pcm_s16le", tone(1.0, rate, 2), rate)
    speech = load_speech(sound)
    check(abs(speech.size - SPEECH_RATE) <= 2, f"{speech.size} samples at 16 kHz")
    figures = [muxed(bench, sound, suffix) for suffix in (".mp4", ".mkv")]
    return "; ".join(figures)


for _hertz in (8000, 11025, 22050, 44100, 96000, 192000):
    add(Case(TOPIC, f"{_hertz} Hz", functools.partial(_rate, rate=_hertz)))

KINDS = {
    ".mp3": ("libmp3lame", 44100, (".mp4", ".mkv")),
    ".m4a": ("aac", 44100, (".mp4", ".mov", ".mkv")),
    ".aac": ("aac", 44100, (".mp4", ".mkv")),
    ".ogg": ("libopus", 48000, (".mkv", ".mp4")),
    ".flac": ("flac", 44100, (".mkv", ".mp4")),
    ".wav": ("pcm_s24le", 48000, (".mov", ".mkv", ".mp4")),
    ".mka": ("ac3", 48000, (".mp4", ".mkv")),
}
"""Encoder, rate and results of each kind of sound file."""


def _kind(bench: Bench, suffix: str) -> str:
    codec, rate, results = KINDS[suffix]
    sound = make_sound(bench.folder / f"s{suffix}", codec, tone(1.0, rate, 2), rate)
    return "; ".join(muxed(bench, sound, result) for result in results)


for _suffix in KINDS:
    add(Case(TOPIC, f"{_suffix[1:].upper()} file", functools.partial(_kind, suffix=_suffix)))


@case(TOPIC, "cover art in the sound file")
def cover_art(bench: Bench) -> str:
    plain = make_sound(bench.folder / "plain.mp3", "libmp3lame", tone(1.0, 44100, 2), 44100)
    cover = make_clip(
        bench.folder / "cover.jpg", ClipRecipe("mjpeg", "yuvj420p", pts=[0], options={"q": "3"})
    )
    sound = ffmpeg_clip(
        bench.folder / "s.mp3", "-i", str(plain), "-i", str(cover), "-map", "0", "-map", "1",
        "-c", "copy", "-id3v2_version", "3", "-disposition:v", "attached_pic",
    )  # fmt: skip
    info = probe(sound)
    check(info.video is None, "the cover counts as a picture")
    check([s.type for s in info.other_streams] == ["cover"], "there is no cover")
    return muxed(bench, sound, ".mp4")


@case(TOPIC, "two sound tracks: the first is used, whole")
def two_tracks(bench: Bench) -> str:
    low, high = tone(1.0, 16000), tone(1.0, 16000)[:, ::-1].copy()
    names = []
    for name, samples in (("a.flac", low), ("b.flac", high)):
        names += ["-i", str(make_sound(bench.folder / name, "flac", samples, 16000))]
    both = ffmpeg_clip(bench.folder / "s.mka", *names, "-map", "0", "-map", "1", "-c", "copy")
    check(len(probe(both).audio) == 2, "there are not two tracks")
    speech = load_speech(both)
    check(bool(np.allclose(speech, low[0], atol=1e-3)), "not the first track is heard")
    return muxed(bench, both, ".mkv")


@case(TOPIC, "a clip's own two sound tracks give way to the new sound")
def own_tracks(bench: Bench) -> str:
    silent = picture(bench)
    old = make_sound(bench.folder / "old.m4a", "aac", tone(1.2, 44100), 44100)
    source = ffmpeg_clip(
        bench.folder / "two.mp4", "-i", str(silent), "-i", str(old), "-i", str(old),
        "-map", "0", "-map", "1", "-map", "2", "-c", "copy",
    )  # fmt: skip
    new = make_sound(bench.folder / "new.flac", "flac", tone(1.2, 16000), 16000)
    output = bench.folder / "out.mp4"
    run_chain(source, new, output, codec="libx264", patch=False)
    tracks = probe(output).audio
    check([t.codec for t in tracks] == ["flac"], f"tracks are {[t.codec for t in tracks]}")
    return "one track, the new one"


@case(TOPIC, "DC offset and clipping")
def extreme_levels(bench: Bench) -> str:
    base = tone(1.0, 48000, 2)
    offset = make_sound(bench.folder / "dc.wav", "pcm_s16le", base * 0.2 + 0.5, 48000)
    speech = load_speech(offset)
    check(abs(float(speech[800:-800].mean()) - 0.5) < 0.01, "the offset changed")
    check_speech(speech)
    loud = make_sound(bench.folder / "loud.wav", "pcm_f32le", base * 20, 48000)
    speech = load_speech(loud)
    check(bool(np.isfinite(speech).all()), "not finite")
    check_speech(speech)
    return "; ".join([muxed(bench, offset, ".mkv"), muxed(bench, loud, ".mkv")])


@case(TOPIC, "sound longer than the picture is cut with it")
def cut_with_picture(bench: Bench) -> str:
    sound = make_sound(bench.folder / "s.wav", "pcm_s16le", tone(3.0, 44100, 2), 44100)
    worst = Fraction(0)
    for suffix in (".mp4", ".mkv", ".mov"):
        output = bench.folder / f"out{suffix}"
        made = run_chain(picture(bench), sound, output, codec="libx264", patch=False)
        worst = max(worst, abs(audio_duration(output) - made.plan.duration))
    check(worst < Fraction(2 * 1024, 44100), f"{float(worst):.3f} s off")
    return f"ends within {float(worst) * 1000:.1f} ms of the picture"


_MEASURE = """
import sys
from pathlib import Path
from dubbing.media.audio import load_speech

def peak():
    # not getrusage, which counts what the parent had before it started this process
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:"))

before = peak()
speech = load_speech(sys.argv[1])
print(speech.size, peak() - before)
"""


def _long_sound(bench: Bench, rate: int, channels: int, seconds: int = 3600) -> Path:
    """Ten seconds as FLAC, over and over."""
    if not Path("/proc/self/status").exists():
        raise NotInThisBuild("peak memory is read from /proc")
    part = make_sound(bench.folder / "m.flac", "flac", tone(10.0, rate, channels), rate)
    names = "".join(f"file '{part.name}'\n" for _ in range(seconds // 10))
    (bench.folder / "list.txt").write_text(names)
    return ffmpeg_clip(
        bench.folder / "hour.mka", "-f", "concat", "-i", str(bench.folder / "list.txt"),
        "-c", "copy",
    )  # fmt: skip


def _hour(bench: Bench, rate: int, channels: int) -> str:
    """Memory of loading one hour: the 16-kHz mono result and little else."""
    sound = _long_sound(bench, rate, channels)
    done = subprocess.run(
        [sys.executable, "-c", _MEASURE, str(sound)], capture_output=True, text=True, check=True
    )
    count, grown = (int(word) for word in done.stdout.split())
    result = 4 * count / 2**20
    mebi = grown / 1024
    check(abs(count / SPEECH_RATE - 3600) < 1, f"{count / SPEECH_RATE:.1f} s were heard")
    check(mebi < 1.25 * result + 60, f"{mebi:.0f} MiB for {result:.0f} MiB of speech")
    whole = rate * channels * 4 * 3600 / 2**20
    return f"{mebi:.0f} MiB at peak for {result:.0f} MiB of speech (decoded: {whole:.0f} MiB)"


@case(TOPIC, "1 hour, 48 kHz stereo", long=True)
def hour_stereo(bench: Bench) -> str:
    return _hour(bench, 48000, 2)


@case(TOPIC, "1 hour, 192 kHz, 7.1", long=True)
def hour_surround(bench: Bench) -> str:
    return _hour(bench, 192000, 8)


@case(TOPIC, "5 minutes, 192 kHz, 7.1: copied, and encoded once", long=True)
def long_muxed(bench: Bench) -> str:
    sound = _long_sound(bench, 192000, 8, 300)
    recipe = ClipRecipe(time_base=Fraction(1), pts=range(300), options={"preset": "ultrafast"})
    film = make_clip(bench.folder / "film.mp4", recipe)
    figures = []
    for name, codec, wanted in (("out.mkv", "auto", "copied"), ("out.mp4", "aac", "encoded")):
        with ProgramMemory() as program:
            made = mux(film, sound, film, bench.folder / name, audio_codec=codec)
        check(made.audio_action == wanted, f"the sound was {made.audio_action}")
        check(0 < program.peak_mib < 150, f"ffmpeg took {program.peak_mib:.0f} MiB")
        after = require_audio(bench.folder / name).audio[0]
        check(after.channels == 8, f"{after.channels} channels")
        figures.append(f"{wanted} with {program.peak_mib:.0f} MiB in ffmpeg")
    return "; ".join(figures)
