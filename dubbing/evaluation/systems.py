"""Whatever dubs: the engine, a folder of finished videos, or any program with a command line."""

from __future__ import annotations

import hashlib
import os
import shlex
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from dubbing.dubber import Dubber
from dubbing.errors import InputNotFound, MediaFailed, OptionInvalid
from dubbing.evaluation.clips import SUFFIXES
from dubbing.evaluation.protocol_file import Case, file_hash
from dubbing.job.finishing import peak_memory_mib
from dubbing.options import DubOptions
from dubbing.persona import Persona

PLACES = ("{video}", "{audio}", "{output}")
LOG_TAIL = 400  # characters of a program's own words in an error


@dataclass(frozen=True)
class Work:
    """One dub to make.

    Attributes:
        case: what for; video, audio: inputs (audio is 16-kHz mono WAV); output: the mp4 to write.
    """

    case: Case
    video: Path
    audio: Path
    output: Path


@dataclass(frozen=True)
class Making:
    """A finished dub.

    Attributes:
        path: the video; seconds: wall-clock time it took, peak_mib: largest resident memory; None
            where nobody watched.
    """

    path: Path
    seconds: float | None = None
    peak_mib: float | None = None


class System(Protocol):
    """Something that dubs."""

    @property
    def name(self) -> str:
        """Column in the tables, and folder of its videos."""

    def key(self, case: Case) -> str:
        """Identity of what it would make: changes when its result may change."""

    def make(self, work: Work) -> Making:
        """Dub.

        Raises:
            DubbingError: it failed.
        """


@dataclass(frozen=True)
class EngineSystem:
    """The engine in this process. Seconds are those of the job with its networks loaded; peak
    memory is that of this process during the job, judges included.

    Attributes:
        version: what identifies it beside its checkpoint; persona: where a prepared persona comes
            from, None to prepare it as part of the job.
    """

    name: str
    dubber: Dubber
    version: str = ""
    persona: Callable[[Path, str], Persona] | None = None

    def key(self, case: Case) -> str:
        return f"{self.version} {self.dubber.version} {sorted(self.dubber.weights.hashes.items())}"

    def make(self, work: Work) -> Making:
        persona = None if self.persona is None else self.persona(work.video, work.case.speaker)
        forget_peak()
        # what an evaluation that was stopped left is not gone on with: the time is the whole job's
        options = DubOptions(overwrite=True, clean=True, audio_codec="aac")
        report = self.dubber.dub(work.video, work.audio, work.output, options, persona)
        return Making(work.output, report.total_seconds, peak_memory_mib())


@dataclass(frozen=True)
class FolderSystem:
    """Videos that another system made earlier: FOLDER/CASE.mp4 (or another video suffix)."""

    name: str
    folder: Path

    def key(self, case: Case) -> str:
        found = self._find(case)
        return "missing" if found is None else file_hash(found)

    def make(self, work: Work) -> Making:
        """Raises: InputNotFound: the folder holds no video of the case."""
        found = self._find(work.case)
        if found is None:
            raise InputNotFound(f"no video named {work.case.id}", path=self.folder)
        return Making(found)

    def _find(self, case: Case) -> Path | None:
        if not self.folder.is_dir():
            raise InputNotFound("no such folder of videos", path=self.folder)
        named = (p for p in sorted(self.folder.iterdir()) if p.stem == case.id)
        return next((p for p in named if p.suffix.lower() in SUFFIXES), None)


@dataclass(frozen=True)
class CommandSystem:
    """A program that is started once per case.

    Attributes:
        template: its command line with the places {video}, {audio} and {output}; it is split like
            a shell would, but no shell runs it. Seconds and peak memory are those of the process
            with all it starts.
        timeout: seconds after which it is ended and counts as failed.
    """

    name: str
    template: str
    timeout: float = 3600.0

    def __post_init__(self) -> None:
        if missing := [p for p in PLACES if p not in self.template]:
            raise OptionInvalid(
                f"the command of {self.name} has no {', '.join(missing)}",
                hint='as in --command "NAME=other-tool {video} {audio} {output}"',
            )

    def key(self, case: Case) -> str:
        return hashlib.sha256(self.template.encode()).hexdigest()[:16]

    def make(self, work: Work) -> Making:
        """Raises: MediaFailed: it can't be started, fails, or leaves no video."""
        places = {"video": work.video, "audio": work.audio, "output": work.output}
        words = [
            word.format(**{k: str(v) for k, v in places.items()})
            for word in shlex.split(self.template)
        ]
        work.output.unlink(missing_ok=True)
        log = work.output.with_suffix(".log")
        start = time.perf_counter()
        with log.open("wb") as out:
            try:
                process = subprocess.Popen(
                    words, stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT,
                    start_new_session=True,
                )  # fmt: skip
            except OSError as error:
                raise MediaFailed(f"{self.name} can't be started: {error}") from error
            status, peak = self._wait(process)
        seconds = time.perf_counter() - start
        if status != 0 or not work.output.is_file():
            said = log.read_text(errors="replace")[-LOG_TAIL:].strip()
            what = f"ended with status {status}" if status else "left no video"
            raise MediaFailed(f"{self.name} {what}: {said}", path=work.output)
        return Making(work.output, seconds, peak)

    def _wait(self, process: subprocess.Popen[bytes]) -> tuple[int, float]:
        """Exit status and peak memory in MiB of the process and its children."""
        end = time.monotonic() + self.timeout
        while True:
            done, status, usage = os.wait4(process.pid, os.WNOHANG)
            if done:
                process.returncode = os.waitstatus_to_exitcode(status)
                return process.returncode, usage.ru_maxrss / 1024
            if time.monotonic() > end:
                os.killpg(process.pid, signal.SIGKILL)
                os.wait4(process.pid, 0)
                process.returncode = -signal.SIGKILL
                raise MediaFailed(f"{self.name} was ended after {self.timeout:.0f} s")
            time.sleep(0.02)


def named(values: list[str], what: str) -> list[tuple[str, str]]:
    """(NAME, VALUE) of options NAME=VALUE.

    Raises:
        OptionInvalid: one has no name.
    """
    found = []
    for value in values:
        name, mark, rest = value.partition("=")
        if not mark or not name or not rest or "/" in name:
            raise OptionInvalid(f"--{what} {value!r} has to be NAME={what.upper()}")
        found.append((name, rest))
    return found


def forget_peak() -> None:
    """Let the peak of this process's memory start anew, where the system can."""
    place = Path("/proc/self/clear_refs")
    if place.exists():
        place.write_text("5")
