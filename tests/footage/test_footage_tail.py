from __future__ import annotations

from fractions import Fraction

import pytest

from dubbing.errors import OptionInvalid
from dubbing.media.timeline import plan_output
from dubbing.options import DubOptions
from dubbing.tail import EASE_FRAMES, Tail


def test_the_dub_fades_after_the_speech() -> None:
    times = [Fraction(k, 25) for k in range(40)]
    plan = plan_output(times, Fraction(40, 25), Fraction(1), "video")
    tail = Tail.original(plan, Fraction(1))
    shares = [tail.share(k) for k in range(plan.count)]
    assert shares[:25] == [1.0] * 25
    assert shares[25:29] == pytest.approx([0.8, 0.6, 0.4, 0.2])
    assert shares[29:] == [0.0] * 11
    assert EASE_FRAMES == 4


def test_speech_that_ends_inside_a_frame_is_dubbed_to_its_end() -> None:
    times = [Fraction(k, 25) for k in range(40)]
    plan = plan_output(times, Fraction(40, 25), Fraction("1.01"), "video")
    assert Tail.original(plan, Fraction("1.01")).first == 26


def test_without_a_tail_all_is_dubbed() -> None:
    assert {Tail().share(k) for k in range(1000)} == {1.0}
    plan = plan_output([Fraction(0), Fraction(1)], Fraction(2), Fraction(9), "audio")
    assert Tail.original(plan, Fraction(9)).first == plan.count


def test_the_option_has_two_values() -> None:
    assert DubOptions().tail == "rest"
    with pytest.raises(OptionInvalid, match="original"):
        DubOptions(tail="loop")
