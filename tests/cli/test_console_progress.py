"""Progress on a terminal is a bar; anywhere else it is plain lines; quiet is nothing."""

from __future__ import annotations

import io

import pytest
from rich.console import Console
from rich.progress import Progress, TextColumn

from dubbing.cli import _cancellable
from dubbing.console import Bar, PlainLines, shown_progress, speed_words
from dubbing.errors import Cancelled
from dubbing.progress import ProgressEvent, StageProgress


def event(stage: str, done: int, total: int | None, fps: float, eta: float | None) -> ProgressEvent:
    return ProgressEvent(stage=stage, done=done, total=total, fps=fps, eta_s=eta)


def test_plain_is_one_line_per_stage_within_the_interval() -> None:
    stream = io.StringIO()
    with shown_progress(stream) as callback:
        for stage in ("analyse", "render"):
            progress = StageProgress(callback, stage, total=50, interval_s=0.0)
            for _ in range(50):
                progress.advance()
            progress.finish()
    assert stream.getvalue() == "analyse: looking at the faces\nrender: painting the frames\n"


def test_plain_line_after_the_interval_has_counts_speed_and_time_left() -> None:
    stream = io.StringIO()
    lines = PlainLines(stream, interval_s=0.0)
    lines(event("render", 0, 200, 0.0, None))
    lines(event("render", 50, 200, 12.5, 12.0))
    lines(event("render", 60, None, 12.5, None))
    assert stream.getvalue().splitlines()[1:] == [
        "render: 50 of 200, 12.5 fps, 0:12 left",
        "render: 60, 12.5 fps",
    ]


def test_time_left_over_an_hour() -> None:
    assert speed_words(event("render", 1, 9, 2.0, 3725.0)) == "2.0 fps, 1:02:05 left"
    assert speed_words(event("render", 0, 9, 0.0, None)) == ""


def test_terminal_shows_stage_and_speed() -> None:
    stream = io.StringIO()
    console = Console(file=stream, force_terminal=True, width=100)
    columns = (TextColumn("{task.description}"), TextColumn("{task.fields[speed]}"))
    with Progress(*columns, console=console) as progress:
        bar = Bar(progress)
        bar(event("render", 0, None, 0.0, None))
        bar(event("render", 5, 10, 2.5, 2.0))
        assert (progress.tasks[0].completed, progress.tasks[0].total) == (5, 10)
    assert "painting the frames" in stream.getvalue()
    assert "2.5 fps, 0:02 left" in stream.getvalue()


def test_quiet_gives_no_callback() -> None:
    stream = io.StringIO()
    with shown_progress(stream, quiet=True) as callback:
        assert callback is None
    assert stream.getvalue() == ""


def test_keyboard_interrupt_becomes_exit_code_130() -> None:
    def command() -> None:
        raise KeyboardInterrupt

    with pytest.raises(Cancelled, match="keyboard") as caught:
        _cancellable(command)()
    assert caught.value.exit_code == 130
