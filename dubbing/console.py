"""Progress events shown to a person: a bar on a terminal, plain lines anywhere else."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn

from dubbing.progress import ProgressCallback, ProgressEvent

PLAIN_INTERVAL_S = 5.0

STAGE_WORDS = {
    "analyse": "looking at the faces",
    "fit": "fitting the face model",
    "speech": "listening to the speech",
    "geometry": "moving the lips",
    "render": "painting the frames",
    "mux": "joining picture and sound",
}


@contextmanager
def shown_progress(stream: TextIO, *, quiet: bool = False) -> Iterator[ProgressCallback | None]:
    """A progress callback that shows its events on `stream` while the block runs.

    None is given where `quiet`, so that nothing is shown and nothing is computed for it.
    """
    if quiet:
        yield None
        return
    console = Console(file=stream)
    if not console.is_terminal:
        yield PlainLines(stream)
        return
    columns = (
        TextColumn("{task.description:<26}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[speed]}"),
    )
    with Progress(*columns, console=console) as progress:
        yield Bar(progress)


class Bar:
    """One bar per stage on a terminal."""

    def __init__(self, progress: Progress):
        self._progress = progress
        self._tasks: dict[str, TaskID] = {}

    def __call__(self, event: ProgressEvent) -> None:
        stage = event["stage"]
        if stage not in self._tasks:
            words = STAGE_WORDS.get(stage, stage)
            self._tasks[stage] = self._progress.add_task(words, total=event["total"], speed="")
        self._progress.update(
            self._tasks[stage],
            completed=event["done"],
            total=event["total"],
            speed=speed_words(event),
        )


class PlainLines:
    """One line when a stage begins, then one about every five seconds."""

    def __init__(self, stream: TextIO, interval_s: float = PLAIN_INTERVAL_S):
        self._stream = stream
        self._interval_s = interval_s
        self._stage = ""
        self._last = 0.0

    def __call__(self, event: ProgressEvent) -> None:
        now = time.monotonic()
        new_stage = event["stage"] != self._stage
        if not new_stage and now - self._last < self._interval_s:
            return
        self._stage, self._last = event["stage"], now
        words = STAGE_WORDS.get(event["stage"], event["stage"])
        if new_stage:
            line = f"{event['stage']}: {words}"
        else:
            of = f" of {event['total']}" if event["total"] is not None else ""
            line = f"{event['stage']}: {event['done']}{of}, {speed_words(event)}"
        self._stream.write(line + "\n")
        self._stream.flush()


def speed_words(event: ProgressEvent) -> str:
    """Speed and time left, for example "12.5 fps, 0:41 left"; empty before the first unit."""
    if event["fps"] <= 0:
        return ""
    speed = f"{event['fps']:.1f} fps"
    if event["eta_s"] is None:
        return speed
    minutes, seconds = divmod(round(event["eta_s"]), 60)
    hours, minutes = divmod(minutes, 60)
    left = f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"
    return f"{speed}, {left} left"
