"""Cases of the footage table: functions that make their own input, run the engine and check it.

A case takes a `Bench`, raises `CaseFailed` (through `check`) where the engine does not do what it
promises, `NotInThisBuild` where its input can't be made here, and returns the figure of its row.
`scripts/footage.py` prints all rows; `tests/footage` runs each case as a test.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import av

from dubbing.errors import OptionInvalid
from dubbing.media.encoders import check_encoder

if TYPE_CHECKING:
    from dubbing.dubber import Dubber
    from dubbing.persona import Persona


log = logging.getLogger(__name__)


class CaseFailed(AssertionError):
    """The engine does not do what the case asks for."""


class NotInThisBuild(Exception):
    """An encoder that the case's input needs is absent."""


def check(holds: bool, message: str) -> None:
    """Raise `CaseFailed` with `message` unless it `holds`."""
    if not holds:
        raise CaseFailed(message)


def need_encoder(name: str) -> None:
    """Raise `NotInThisBuild` unless PyAV's libraries can encode `name` on this machine."""
    try:
        av.Codec(name, "w")
    except ValueError as error:
        raise NotInThisBuild(f"no encoder {name}") from error
    if not name.endswith("_nvenc"):
        return
    try:
        check_encoder(name)
    except OptionInvalid as error:
        raise NotInThisBuild(f"no card for {name}") from error


class Bench:
    """What cases share: an empty folder for each, and one engine, loaded when first asked for."""

    def __init__(self, folder: Path):
        self._root = folder
        self._made = 0
        self.folder = folder

    def fresh(self) -> Bench:
        """The bench with a new, empty folder."""
        self._made += 1
        self.folder = self._root / f"case-{self._made:03d}"
        self.folder.mkdir()
        return self

    @cached_property
    def dubber(self) -> Dubber:
        """The engine with the shipped checkpoint, on the CPU."""
        from dubbing.dubber import Dubber

        return Dubber.from_pretrained(device="cpu")

    @cached_property
    def talker(self) -> Talker:
        """A short clip of a speaker, and a second of other speech."""
        from dubbing.evaluation.cases.puppets import write_speech, write_talker

        frames = 20
        video = write_talker(self._root / "talker.mp4", frames)
        speech = write_speech(self._root / "talker.flac", 0.4)
        return Talker(video, speech, self.dubber.prepare(video), frames)


@dataclass(frozen=True)
class Talker:
    """A puppet that speaks for `frames` frames at 25 per second, 320 x 320, and its persona."""

    video: Path
    speech: Path
    persona: Persona
    frames: int


CaseFunction = Callable[[Bench], str]


@dataclass(frozen=True)
class Case:
    """One row of the table. `long`: too slow for the everyday tests."""

    topic: str
    name: str
    run: CaseFunction
    long: bool = False


@dataclass(frozen=True)
class Row:
    """What came of a case: `status` is "pass", "FAIL" or "skip"; `figure` its figure or reason."""

    case: Case
    status: str
    figure: str
    seconds: float


_CASES: dict[tuple[str, str], Case] = {}


def case(topic: str, name: str, *, long: bool = False) -> Callable[[CaseFunction], CaseFunction]:
    """Decorator: enter a function into the table."""

    def enter(run: CaseFunction) -> CaseFunction:
        add(Case(topic, name, run, long))
        return run

    return enter


def add(item: Case) -> None:
    """Enter a case; its topic and name must be new."""
    key = (item.topic, item.name)
    if key in _CASES:
        raise ValueError(f"there is a case {item.topic}: {item.name} already")
    _CASES[key] = item


def entered() -> list[Case]:
    """All cases, in the order in which they were entered."""
    return list(_CASES.values())


def run_case(item: Case, bench: Bench) -> Row:
    """Run one case in a fresh folder; an unexpected exception is a failed row, not the end."""
    start = time.perf_counter()
    try:
        status, figure = "pass", item.run(bench.fresh())
    except CaseFailed as failure:
        status, figure = "FAIL", str(failure)
    except NotInThisBuild as absence:
        status, figure = "skip", str(absence)
    except Exception as error:
        log.debug("%s: %s", item.name, error, exc_info=True)
        status, figure = "FAIL", f"{type(error).__name__}: {error}"
    return Row(item, status, figure, time.perf_counter() - start)


def run_cases(items: Iterable[Case], bench: Bench) -> Iterable[Row]:
    """Rows of many cases, one after the other."""
    for item in items:
        yield run_case(item, bench)
