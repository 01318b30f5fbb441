"""Frame rates, broken and odd time stamps, and whether sound stays with the picture."""

from __future__ import annotations

import functools
import re
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import numpy as np

from dubbing.evaluation.cases.chain import Chained, run_chain, same_times
from dubbing.evaluation.cases.clips import ClipRecipe, ffmpeg_clip, grey, make_clip, make_sound
from dubbing.evaluation.cases.clips import tone as make_tone
from dubbing.evaluation.cases.registry import Bench, Case, add, case, check
from dubbing.media.audio import audio_start, decoded_frames
from dubbing.media.planes import plane_view
from dubbing.media.reader import VideoReader

TOPIC = "times"
RATES = {
    "23.976": (1001, 24000),
    "25": (1, 25),
    "29.97": (1001, 30000),
    "50": (1, 50),
    "59.94": (1001, 60000),
    "120": (1, 120),
}
TB_24000 = Fraction(1, 24000)
VARIABLE = [12000 + 1001 * i + 300 * (i % 3 == 0) + 4000 * (i > 9) for i in range(20)]


def speech(bench: Bench, seconds: float = 0.8) -> Path:
    """A short sound for the chain."""
    return make_sound(bench.folder / "speech.flac", "flac", make_tone(seconds, 16000), 16000)


def through(bench: Bench, source: Path, suffix: str = ".mp4", codec: str = "libx264") -> Chained:
    """`source` through the chain, with a short sound."""
    output = bench.folder / f"out-{source.stem}-{source.suffix[1:]}{suffix}"
    return run_chain(source, speech(bench), output, codec=codec)


def _constant_rate(bench: Bench, step: int, clock: int) -> str:
    recipe = ClipRecipe(pts=[step * i for i in range(24)], time_base=Fraction(1, clock))
    source = make_clip(bench.folder / "in.mp4", recipe)
    same_times(through(bench, source, ".mkv"))
    same_times(through(bench, source, ".mov"))
    return same_times(through(bench, source))


for _name, (_step, _clock) in RATES.items():
    add(
        Case(
            TOPIC,
            f"{_name} frames per second",
            functools.partial(_constant_rate, step=_step, clock=_clock),
        )
    )


@case(TOPIC, "variable rate, first frame at 0.5 s")
def variable_rate(bench: Bench) -> str:
    source = make_clip(bench.folder / "in.mp4", ClipRecipe(pts=VARIABLE, time_base=TB_24000))
    same_times(through(bench, source, ".mkv"))
    return same_times(through(bench, source))


@case(TOPIC, "variable rate in Matroska")
def variable_matroska(bench: Bench) -> str:
    source = make_clip(bench.folder / "in.mkv", ClipRecipe(pts=VARIABLE, time_base=TB_24000))
    same_times(through(bench, source, ".mkv"))
    return same_times(through(bench, source))


@case(TOPIC, "edit list: the film starts inside a group of pictures")
def edit_list(bench: Bench) -> str:
    options = {"crf": "10", "g": "12", "bf": "2", "sc_threshold": "0"}
    whole = make_clip(bench.folder / "whole.mp4", ClipRecipe(pts=range(40), options=options))
    cut = ffmpeg_clip(bench.folder / "in.mp4", "-ss", "0.6", "-i", str(whole), "-c", "copy")
    with VideoReader(whole) as before, VideoReader(cut) as after:
        shots = [frame.frame.to_ndarray().tobytes() for frame in before]
        kept = [frame.frame.to_ndarray().tobytes() for frame in after]
        check(kept == shots[15:], f"{len(kept)} frames shown, not the 25 after the cut")
        again = [f.frame.to_ndarray().tobytes() for f in after.iter_reverse(0, len(kept), 7)]
        check(again == kept[::-1], "backwards other frames come")
    return same_times(through(bench, cut))


@case(TOPIC, "edit list: empty edit before the film")
def empty_edit(bench: Bench) -> str:
    recipe = ClipRecipe(pts=[24000 + 1001 * i for i in range(12)], time_base=TB_24000)
    made = through(bench, make_clip(bench.folder / "in.mov", recipe), ".mov")
    check(made.video.start_time == 1, f"the source starts at {made.video.start_time}")
    return same_times(made)


def _mended(bench: Bench, source: Path, count: int) -> str:
    """All frames survive, their times increase, and the result has exactly these times."""
    with VideoReader(source) as reader:
        index = reader.index
        check(index.count == count, f"{index.count} of {count} frames were read")
        check(all(b > a for a, b in pairwise(index.pts)), "times do not increase")
        seconds = float(index.duration)
        check(0.5 * count / 25 <= seconds <= 2 * count / 25, f"{count} frames last {seconds:.2f} s")
        shots = [frame.frame.to_ndarray().tobytes() for frame in reader]
        back = [f.frame.to_ndarray().tobytes() for f in reader.iter_reverse(0, count, 7)]
        check(back == shots[::-1], "backwards other frames come")
    same_times(through(bench, source, ".mkv"))
    return same_times(through(bench, source))


@case(TOPIC, "no PTS at all (raw H.264)")
def no_pts(bench: Bench) -> str:
    options = {"crf": "10", "g": "8", "bf": "2"}
    raw = make_clip(bench.folder / "in.h264", ClipRecipe(pts=range(24), options=options))
    return _mended(bench, raw, 24)


@case(TOPIC, "PTS missing, DTS only (AVI)")
def dts_only(bench: Bench) -> str:
    recipe = ClipRecipe("mpeg4", pts=range(24), options={"g": "8", "bf": "2", "q": "3"})
    return _mended(bench, make_clip(bench.folder / "in.avi", recipe), 24)


def _restamped(bench: Bench, times: list[int]) -> Path:
    """A Motion-JPEG Matroska file whose blocks bear `times` in milliseconds.

    No muxer writes such files, so the time stamps are exchanged in the file's bytes: a block starts
    with the track's number, two bytes of time and one of flags, and a JPEG starts with ff d8.
    """
    path = bench.folder / "in.mkv"
    recipe = ClipRecipe("mjpeg", "yuvj420p", pts=range(len(times)), options={"q": "3"})
    make_clip(path, recipe)
    stamps = iter(times)

    def restamp(block: re.Match[bytes]) -> bytes:
        return b"\x81" + next(stamps).to_bytes(2, "big", signed=True) + block[1]

    data = path.read_bytes()
    path.write_bytes(re.sub(rb"\x81..([\x00\x80]\xff\xd8)", restamp, data, flags=re.DOTALL))
    check(next(stamps, None) is None, "not every block was found")
    return path


@case(TOPIC, "PTS repeat")
def repeated_pts(bench: Bench) -> str:
    times = [40 * (i - 1 if i in (5, 11) else i) for i in range(20)]
    return _mended(bench, _restamped(bench, times), 20)


@case(TOPIC, "PTS out of order")
def disordered_pts(bench: Bench) -> str:
    times = [40 * (i - 3 if i in (8, 9) else i) for i in range(20)]
    return _mended(bench, _restamped(bench, times), 20)


@case(TOPIC, "all PTS equal")
def equal_pts(bench: Bench) -> str:
    return _mended(bench, _restamped(bench, [0] * 20), 20)


@case(TOPIC, "time jumps back: two transport streams joined")
def joined_streams(bench: Bench) -> str:
    parts = [
        make_clip(
            bench.folder / f"{k}.ts",
            ClipRecipe(
                pts=[3600 * i for i in range(k, k + 12)],
                time_base=Fraction(1, 90000),
                options={"crf": "10", "bf": "0"},
            ),
        )
        for k in (100, 0)
    ]
    joined = bench.folder / "in.ts"
    joined.write_bytes(b"".join(part.read_bytes() for part in parts))
    return _mended(bench, joined, 24)


@case(TOPIC, "last packet cut off")
def truncated(bench: Bench) -> str:
    options = {"crf": "1", "g": "8", "bf": "0"}
    figures = []
    for suffix in (".mkv", ".ts", ".mp4"):
        whole = make_clip(
            bench.folder / f"whole{suffix}", ClipRecipe(pts=range(20), options=options)
        )
        data = whole.read_bytes()
        if suffix == ".mp4":  # the index comes first: the packets are cut, not the index
            front = ffmpeg_clip(
                bench.folder / "front.mp4", "-i", str(whole), "-c", "copy", "-movflags", "faststart"
            )
            data = front.read_bytes()
        cut = bench.folder / f"cut{suffix}"
        cut.write_bytes(data[: len(data) - 150])
        with VideoReader(whole) as before, VideoReader(cut) as after:
            given, kept = before.index, after.index
            check(19 <= kept.count <= 20, f"{suffix}: {kept.count} of 20 frames are left")
            check(kept.times[:] == given.times[: kept.count], f"{suffix}: times moved")
            figures.append(str(kept.count))
        same_times(through(bench, cut, suffix if suffix == ".mkv" else ".mp4"))
    return f"{', '.join(figures)} of 20 frames kept"


FLASH_EVERY = 2400
"""Frames from one white picture to the next."""


def _sync(bench: Bench, pts: list[int], clock: int) -> str:
    """Ten minutes with white pictures, and a click in the new sound at each: how far apart?"""
    flashes = [*range(FLASH_EVERY, len(pts), FLASH_EVERY), len(pts) - 3]
    recipe = ClipRecipe(
        size=(32, 32),
        pts=pts,
        time_base=Fraction(1, clock),
        options={"preset": "ultrafast", "crf": "30", "g": "600"},
        painter=grey(lambda index: 230 if index in set(flashes) else 30),
    )
    source = make_clip(bench.folder / "in.mp4", recipe)
    rate = 48000
    seconds = float(Fraction(pts[-1] - pts[0], clock)) + 0.5
    sound = np.zeros((1, round(seconds * rate)), np.float32)
    for index in flashes:
        at = round(Fraction(pts[index] - pts[0], clock) * rate)
        sound[:, at : at + 240] = 0.9
    worst, worst_of = Fraction(0), ""
    for codec, name, suffix in (
        ("aac", "s.m4a", ".mp4"),
        ("libopus", "s.ogg", ".mkv"),
        ("flac", "s.flac", ".mp4"),
        ("pcm_s16le", "s.wav", ".mp4"),  # becomes AAC
    ):
        speech = make_sound(bench.folder / name, codec, sound, rate)
        output = bench.folder / f"out-{codec}{suffix}"
        made = run_chain(source, speech, output, codec="libx264", crf=30, patch=False)
        same_times(made)
        seen, heard = _white(output), _clicks(output, rate)
        check(len(seen) == len(heard) == len(flashes), f"{len(seen)} flashes, {len(heard)} clicks")
        off = max(abs(a - b) for a, b in zip(seen, heard, strict=True))
        frame = Fraction(960 if codec == "libopus" else 1024, rate)
        check(off < frame, f"{codec}: {float(off) * 1000:.1f} ms off")
        if off >= worst:
            worst, worst_of = off, f"{codec} in {suffix}"
    return f"{float(worst) * 1000:.2f} ms at most ({worst_of}), after {seconds:.0f} s"


def _white(path: Path) -> list[Fraction]:
    with VideoReader(path) as reader:
        return [f.time for f in reader if int(plane_view(f.frame, 0)[16, 16]) > 130]


def _clicks(path: Path, rate: int) -> list[Fraction]:
    """Times at which the sound rises over half of full scale, in the file's clock."""
    found: list[Fraction] = []
    place, start = 0, audio_start(path)
    for frame in decoded_frames(path):
        block = frame.to_ndarray().reshape(-1)
        full = 1.0 if block.dtype.kind == "f" else 2.0 ** (8 * block.dtype.itemsize - 1)
        for sample in np.flatnonzero(np.abs(block) > 0.45 * full):
            time = start + Fraction(place + int(sample), rate)
            if not found or time - found[-1] > Fraction(1, 10):
                found.append(time)
        place += frame.samples
    return found


@case(TOPIC, "sync at the end of 10 minutes at 29.97", long=True)
def sync_constant(bench: Bench) -> str:
    return _sync(bench, [1001 * i for i in range(17982)], 30000)


@case(TOPIC, "sync at the end of 10 minutes at a variable rate", long=True)
def sync_variable(bench: Bench) -> str:
    steps = np.random.default_rng(0).integers(1500, 6000, 14400)
    return _sync(bench, [9000, *(9000 + np.cumsum(steps)).tolist()], 90000)
