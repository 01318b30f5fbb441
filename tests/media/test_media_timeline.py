from __future__ import annotations

from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import pytest
from media_samples import TB_24000, VFR_PTS, make_video

from dubbing.errors import OptionInvalid
from dubbing.media.index import RelativeTimes
from dubbing.media.reader import VideoReader
from dubbing.media.timeline import OutputPlan, iter_plan, plan_output

TIMES = RelativeTimes(VFR_PTS, TB_24000)
END = TIMES[-1] + Fraction(1001, 24000)


def edges(plan: OutputPlan) -> list[Fraction]:
    return [*plan.source_times, plan.source_duration]


@pytest.mark.parametrize("factor", ["1/50", "1/3", "1", "1001/1000", "3/2", "2", "27/10", "7"])
def test_ping_pong_never_jumps_and_ends_within_one_frame(factor: str) -> None:
    wanted = END * Fraction(factor)
    plan = plan_output(TIMES, END, wanted, "audio")
    frames = list(plan.frames())
    assert [frame.number for frame in frames] == list(range(plan.count))
    assert frames[0].source == 0 and frames[0].time == 0
    for before, after in pairwise(frames):
        assert abs(after.source - before.source) == 1  # always the neighbour, never the same
        assert after.time == before.time + before.duration
    bounds = edges(plan)
    for frame in frames:
        assert frame.duration == bounds[frame.source + 1] - bounds[frame.source]
    first_pass = frames[: len(TIMES)]
    assert [frame.time for frame in first_pass] == list(TIMES)[: len(first_pass)]
    end = frames[-1].time + frames[-1].duration
    assert plan.duration == end
    assert end >= wanted > end - frames[-1].duration
    assert [plan.frame(number) for number in range(plan.count)] == frames


def test_the_direction_turns_at_both_ends() -> None:
    times = [Fraction(i, 25) for i in range(4)]
    plan = plan_output(times, Fraction(4, 25), Fraction(12, 25))
    assert [f.source for f in plan.frames()] == [0, 1, 2, 3, 2, 1, 0, 1, 2, 3, 2, 1]
    assert [s.step for s in plan.segments] == [1, -1, 1, -1]


def test_length_chooses_between_speech_and_picture() -> None:
    times, end = [Fraction(i, 25) for i in range(10)], Fraction(10, 25)
    counts = {
        (length, audio): plan_output(times, end, Fraction(audio, 25), length).count
        for length in ("audio", "video", "shortest", "longest")
        for audio in (4, 16)
    }
    assert counts == {
        ("audio", 4): 4,
        ("audio", 16): 16,
        ("video", 4): 10,
        ("video", 16): 10,
        ("shortest", 4): 4,
        ("shortest", 16): 10,
        ("longest", 4): 10,
        ("longest", 16): 16,
    }
    with pytest.raises(OptionInvalid, match="loud"):
        plan_output(times, end, end, "loud")  # type: ignore[arg-type]


def test_a_single_frame_repeats_and_two_frames_alternate() -> None:
    still = plan_output([Fraction(0)], Fraction(1, 25), Fraction(1))
    assert [f.source for f in still.frames()] == [0] * 25
    assert [f.time for f in still.frames()] == [Fraction(i, 25) for i in range(25)]
    two = plan_output([Fraction(0), Fraction(1, 10)], Fraction(2, 10), Fraction(1, 2))
    assert [f.source for f in two.frames()] == [0, 1, 0, 1, 0]


def test_two_hours_are_planned_without_listing_them() -> None:
    times = RelativeTimes(range(0, 2 * 3600 * 30), Fraction(1, 30))
    plan = plan_output(times, Fraction(7200), Fraction(100_000))
    assert plan.count == 3_000_000
    assert len(plan.segments) == 14
    assert plan.frame(216_000).source == 215_998


def test_iter_plan_decodes_the_planned_frames(tmp_path: Path) -> None:
    path = make_video(tmp_path / "vfr.mp4", VFR_PTS, TB_24000, options={"g": "6", "crf": "10"})
    with VideoReader(path) as reader:
        index = reader.index
        shots = [frame.frame.to_ndarray().tobytes() for frame in reader]
        plan = plan_output(index.times, index.duration, index.duration * Fraction(23, 10))
        placed = list(iter_plan(reader, plan))
    assert [f.source.index for f in placed] == [f.source for f in plan.frames()]
    assert [f.source.frame.to_ndarray().tobytes() for f in placed] == [
        shots[f.source] for f in plan.frames()
    ]
    assert [f.pts for f in placed[:20]] == VFR_PTS
    assert all(b.pts > a.pts for a, b in pairwise(placed))
    assert [f.time for f in placed] == [f.time for f in plan.frames()]
