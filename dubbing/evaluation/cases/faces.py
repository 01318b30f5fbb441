"""Frames whose mouth can't be dubbed, and people who come before one another."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
from numpy.typing import NDArray

from dubbing.demo import demo_pose
from dubbing.evaluation.cases.clips import ClipRecipe, make_clip
from dubbing.evaluation.cases.people import Picture, covering, crossing, landmarks_of, small_puppet
from dubbing.evaluation.cases.puppets import write_speech
from dubbing.evaluation.cases.registry import Bench, Case, add, check
from dubbing.face.limits import AWAY, COVERED, NO_FACE, OVERLAPPED
from dubbing.media.planes import plane_view
from dubbing.media.reader import VideoReader
from dubbing.options import DubOptions
from dubbing.report import DubReport

TOPIC = "faces"
FRAMES = 26
HIDDEN = range(9, 18)
"""Frames whose mouth is covered, or that show no face."""

OUTLINE = 16.0
"""Pixels beside a face 130 px high in which a dub may change what is behind it."""

EASED = 5
"""Frames beside these that may be dubbed in part, or not."""


def dubbed(
    bench: Bench, pictures: Sequence[Picture], options: DubOptions, seconds: float = 1.0
) -> tuple[DubReport, list[NDArray[np.bool_]]]:
    """Dub a clip of these pictures; its report, and where each frame's luma is not the source's."""
    source, output = bench.folder / "in.mkv", bench.folder / "out.mkv"
    height, width = pictures[0].shape[:2]

    def show(index: int, fmt: str, width: int, height: int) -> av.VideoFrame:
        frame = av.VideoFrame.from_ndarray(pictures[index], "rgb24")
        return frame.reformat(width, height, fmt, dst_colorspace=1, dst_color_range=1)

    recipe = ClipRecipe(
        codec="ffv1", size=(width, height), time_base=Fraction(1, 25), pts=range(len(pictures)),
        options={}, painter=show,
    )  # fmt: skip
    make_clip(source, recipe)
    speech = write_speech(bench.folder / "speech.flac", seconds)
    lossless = replace(options, codec="ffv1", length="video")
    report = bench.dubber.dub(source, speech, output, lossless)
    before, after = lumas(source), lumas(output)
    check(len(before) == len(after) == len(pictures), f"{len(after)} of {len(pictures)} frames")
    return report, [a != b for a, b in zip(before, after, strict=True)]


def lumas(path: Path) -> list[NDArray[np.uint8]]:
    with VideoReader(path) as reader:
        return [plane_view(frame.frame, 0).copy() for frame in reader]


def reasons(report: DubReport) -> dict[int, str]:
    """{frame: why it passed through}."""
    return {
        frame: interval.reason
        for interval in report.passed_through
        for frame in range(interval.start_frame, interval.stop_frame)
    }


def _passes(
    report: DubReport, changed: Sequence[NDArray[np.bool_]], hidden: Sequence[int], why: set[str]
) -> str:
    """Hidden frames equal the source for one of these reasons, the others are dubbed."""
    told = reasons(report)
    for frame in hidden:
        check(told.get(frame) in why, f"frame {frame}: {told.get(frame, 'dubbed')}")
    for frame in told:
        check(not changed[frame].any(), f"frame {frame} passed through, but was changed")
    away = [min(abs(frame - h) for h in hidden) for frame in range(len(changed))]
    for frame, distance in enumerate(away):
        if distance > EASED:
            check(bool(changed[frame].any()), f"frame {frame} was not dubbed")
    names = ", ".join(sorted(set(told.values())))
    return f"{len(told)} of {len(changed)} frames equal the source ({names}), the others are dubbed"


def _covered(bench: Bench, kind: str) -> str:
    """It rises from below, stays before the mouth, and leaves."""
    puppet = small_puppet()
    shown = [puppet.frame(demo_pose(0.1 * k)) for k in range(FRAMES)]
    points = landmarks_of(shown[0])
    pictures = [covering(kind, p, points) if k in HIDDEN else p for k, p in enumerate(shown)]
    report, changed = dubbed(bench, pictures, DubOptions())
    return _passes(report, changed, HIDDEN, {COVERED, NO_FACE})


for _kind, _name in (
    ("hand", "a hand before the mouth"),
    ("microphone", "a microphone before the mouth"),
    ("sheet", "a sheet of paper before the mouth"),
):
    add(Case(TOPIC, _name, functools.partial(_covered, kind=_kind)))


def _absent(bench: Bench) -> str:
    puppet = small_puppet()
    pictures = [puppet.frame(demo_pose(0.1 * k)) for k in range(FRAMES)]
    gone = [0, 1, *range(10, 14), FRAMES - 1]
    for frame in gone:
        pictures[frame] = np.full_like(pictures[frame], 90)
    report, changed = dubbed(bench, pictures, DubOptions())
    told = reasons(report)
    for frame in gone:
        check(frame in told, f"frame {frame} counts as dubbed")
        check(not changed[frame].any(), f"frame {frame} was changed")
    inside = [frame for frame in range(FRAMES) if frame not in told]
    check(all(changed[frame].any() for frame in inside), "a frame with a face was not dubbed")
    return f"{len(told)} frames equal the source, {len(inside)} are dubbed"


add(Case(TOPIC, "no face in the first, last and middle frames", _absent))


def _crossing(bench: Bench, front: int) -> str:
    """The speaker comes from the left, somebody else from the right; `front` passes in front."""
    film = crossing(44, front)
    options = DubOptions(speaker="120,120@0")
    report, changed = dubbed(bench, film.pictures, options, seconds=1.7)
    told = reasons(report)
    farthest, touched = 0.0, 0
    for frame, where in enumerate(changed):
        speaker, other = (head > 0.5 for head in film.heads[frame])
        away = cv2.distanceTransform((~speaker).astype(np.uint8), cv2.DIST_L2, 5)
        farthest = max(farthest, float(away[where & other].max(initial=0)))
        touched += bool((where & speaker).any())
        if frame in told:
            check(not where.any(), f"frame {frame} passed through, but was changed")
    if front == 0:
        check(touched >= 42, f"the speaker is in front in all frames, {touched} are dubbed")
    else:
        apart = [k for k in range(44) if abs(film.middles[k][0][0] - film.middles[k][1][0]) > 190]
        check(all(changed[k].any() for k in apart if k not in told), "a frame was not dubbed")
        left = [k for k in apart if k in told and not 22 <= k < 39]  # found again by then
        check(not left, f"frames {left} were not dubbed")
        why = {COVERED, NO_FACE, AWAY, OVERLAPPED}
        check(set(told.values()) <= why, f"reasons are {set(told.values())}")
    # the dub may move the jaw's outline; behind somebody there is no outline
    check(farthest <= (OUTLINE if front == 0 else 0), f"the other one, {farthest:.0f} px away")
    return f"{touched} of 44 frames dubbed, the other one untouched beyond {farthest:.0f} px"


for _front, _name in (
    (0, "the speaker passes before somebody"),
    (1, "somebody passes before the speaker"),
):
    add(Case(TOPIC, _name, functools.partial(_crossing, front=_front)))
