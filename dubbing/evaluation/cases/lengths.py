"""Speech longer or shorter than the picture."""

from __future__ import annotations

import functools
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from dubbing.evaluation.cases.chain import run_chain
from dubbing.evaluation.cases.clips import ClipRecipe, make_clip, make_sound, tone
from dubbing.evaluation.cases.registry import Bench, Case, add, case, check
from dubbing.media.audio import audio_duration
from dubbing.media.planes import plane_view
from dubbing.media.reader import VideoReader
from dubbing.media.timeline import Length
from dubbing.options import DubOptions
from dubbing.tail import AFTER_SPEECH, EASE_FRAMES

TOPIC = "length"
FRAMES = 10
PACKET = Fraction(1024, 16000)

EXPECTED: dict[tuple[Length, int], list[int]] = {
    ("audio", 4): [0, 1, 2, 3],
    ("audio", 23): [*range(10), *range(8, -1, -1), 1, 2, 3, 4],
    ("video", 4): list(range(10)),
    ("video", 23): list(range(10)),
    ("shortest", 4): [0, 1, 2, 3],
    ("shortest", 23): list(range(10)),
    ("longest", 4): list(range(10)),
    ("longest", 23): [*range(10), *range(8, -1, -1), 1, 2, 3, 4],
}
"""Source frames of the result by --length and frames of speech, for a picture of 10 frames."""


def _length(bench: Bench, length: Length) -> str:
    source = make_clip(bench.folder / "in.mp4", ClipRecipe(pts=range(FRAMES)))
    figures = []
    for frames in (4, 23):
        seconds = frames / 25
        sound = make_sound(bench.folder / f"{frames}.wav", "pcm_s16le", tone(seconds, 16000), 16000)
        output = bench.folder / f"{frames}.mkv"
        made = run_chain(source, sound, output, length=length, patch=False)
        with VideoReader(source) as before, VideoReader(output) as after:
            shots = {_content(f.frame): f.index for f in before}
            shown = [shots.get(_content(f.frame), -1) for f in after]
        check(shown == EXPECTED[length, frames], f"{frames} frames of speech: shows {shown}")
        heard = min(audio_duration(sound), made.plan.duration)
        more = audio_duration(output) - heard  # copied sound ends with the packet at the cut
        check(0 <= more < PACKET, f"the sound is {float(more):.4f} s longer")
        figures.append(f"{frames} -> {len(shown)}")
    return f"picture 10 frames, speech {', '.join(figures)} frames"


def _content(frame: Any) -> bytes:
    return plane_view(frame, 0).tobytes()


_LENGTHS: tuple[Length, ...] = ("audio", "video", "shortest", "longest")
for _kind in _LENGTHS:
    add(Case(TOPIC, f"--length {_kind}", functools.partial(_length, length=_kind)))


@case(TOPIC, "a single frame under longer speech")
def single_frame(bench: Bench) -> str:
    source = make_clip(bench.folder / "in.mkv", ClipRecipe("ffv1", pts=[0], options={}))
    sound = make_sound(bench.folder / "s.wav", "pcm_s16le", tone(1.0, 16000), 16000)
    made = run_chain(source, sound, bench.folder / "out.mkv", length="audio", patch=False)
    with VideoReader(made.output) as reader:
        count, seconds = reader.index.count, float(reader.index.duration)
        check(abs(seconds - 1.0) <= 0.041, f"{seconds:.3f} s")
    return f"{count} frames"


def _planes(path: Path) -> list[list[np.ndarray[Any, Any]]]:
    with VideoReader(path) as reader:
        return [[plane_view(f.frame, k).astype(np.int16) for k in range(3)] for f in reader]


def _dubbed(bench: Bench, tail: str) -> tuple[list[float], dict[str, int]]:
    """Share of changed samples per frame, and the frames that passed through by reason."""
    talker = bench.talker
    output = bench.folder / f"{tail}.mkv"
    options = DubOptions(length="video", tail=tail, codec="ffv1")
    report = bench.dubber.dub(talker.video, talker.speech, output, options, talker.persona)
    changes = [
        float(np.mean([np.abs(a - b).mean() for a, b in zip(old, new, strict=True)]))
        for old, new in zip(_planes(talker.video), _planes(output), strict=True)
    ]
    return changes, report.pass_through_counts


@case(TOPIC, "--tail original: the source's frames come back after the speech")
def tail_original(bench: Bench) -> str:
    changes, passed = _dubbed(bench, "original")
    frames = bench.talker.frames
    first = 10  # 0.4 s of speech at 25 frames per second
    after = changes[first + EASE_FRAMES :]
    check(max(after) == 0, "frames after the speech differ from the source")
    check(min(changes[first : first + EASE_FRAMES]) > 0, "the change back is not eased")
    check(changes[first + 3] < changes[first], "the dub does not fade")
    check(passed == {AFTER_SPEECH: frames - first - EASE_FRAMES}, f"reported: {passed}")
    return f"{len(after)} of {frames} frames equal the source, {EASE_FRAMES} eased"
