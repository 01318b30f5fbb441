"""The working folder beside an output: the state from which an interrupted job goes on."""

from __future__ import annotations

import hashlib
import logging
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from dubbing.errors import (
    AudioUnusable,
    CheckpointCorrupt,
    CheckpointNotFound,
    InputNotFound,
    InputTooLarge,
    NoAudioStream,
    NoFaceFound,
    NotAVideo,
    OptionInvalid,
    OutputBusy,
    OutputUnwritable,
    PersonaInvalid,
    UnfinishedJob,
)
from dubbing.job.description import JobDescription
from dubbing.job.lock import OutputLock
from dubbing.media.output import disk_errors
from dubbing.report import save_bytes

log = logging.getLogger(__name__)

BAD_INPUT = (
    AudioUnusable,
    CheckpointCorrupt,
    CheckpointNotFound,
    InputNotFound,
    InputTooLarge,
    NoAudioStream,
    NoFaceFound,
    NotAVideo,
    OptionInvalid,
    PersonaInvalid,
)
"""Failures that another attempt meets again: before the first segment they leave no state."""

_OURS = re.compile(
    r"lock|job\.json|sound\.wav|(persona|findings|motion)(-\d+)?\.safetensors|segment-\d{5}\.(video|json)|result\..+"
    r"|report\.json|\..*|.*\.part"
)
_NAME_BYTES = 255  # of one file name, on every usual file system


def state_path(output: str | Path) -> Path:
    """The folder that holds the state of a job with that output."""
    target = Path(output).absolute()
    name = f".{target.name}.dub"
    if len(os.fsencode(name)) > _NAME_BYTES:
        name = f".{hashlib.sha256(os.fsencode(target.name)).hexdigest()}.dub"
    return target.with_name(name)


class JobFolder:
    """Paths inside the state folder of one output, and what may be removed there.

    `job.json` is written last, when analysis and motion lie beside it: a folder without it holds
    nothing worth keeping.
    """

    def __init__(self, path: Path):
        self.path = path
        self.job = path / "job.json"
        self.persona = path / "persona.safetensors"
        self.findings = path / "findings.safetensors"
        self.motion = path / "motion.safetensors"
        self.sound = path / "sound.wav"
        self.report = path / "report.json"
        self.lock = path / "lock"

    def voice(self, number: int) -> tuple[Path, Path, Path]:
        """Persona, findings and motion of a speaker, of several."""
        if number == 0:
            return self.persona, self.findings, self.motion
        names = (f"{name}-{number}.safetensors" for name in ("persona", "findings", "motion"))
        first, second, third = (self.path / name for name in names)
        return first, second, third

    def segment(self, number: int) -> Path:
        """The encoded pictures of a segment."""
        return self.path / f"segment-{number:05d}.video"

    def record(self, number: int) -> Path:
        """What is known of a finished segment; written after its pictures."""
        return self.path / f"segment-{number:05d}.json"

    @property
    def planned(self) -> bool:
        """Whether a job can go on from here."""
        return self.job.is_file()

    @property
    def has_segments(self) -> bool:
        return any(self.path.glob("segment-*.json"))

    def save_job(self, description: JobDescription) -> None:
        """Mark the job as planned: everything else lies here already.

        Raises:
            OutputUnwritable, DiskFull: see `save_bytes`.
        """
        save_bytes(self.job, description.to_json().encode())

    def clear(self) -> None:
        """Remove everything but the lock."""
        self._remove(keep={self.lock.name})

    def clear_parts(self) -> None:
        """Remove what was left half written."""
        for path in [*self.path.glob("*.part"), *self.path.glob(".*"), *self.path.glob("result.*")]:
            path.unlink(missing_ok=True)

    def remove(self) -> None:
        """Remove the folder; what is not of the engine's making stays, and the folder with it."""
        self._remove(keep=set())
        try:
            self.path.rmdir()
        except FileNotFoundError:
            return
        except OSError as error:
            log.warning("%s: not removed: %s", self.path, error.strerror)

    def _remove(self, keep: set[str]) -> None:
        # the description first: without it the rest counts as nothing. The report last but for the
        # lock: it knows that the result is at its place
        order = {self.job.name: -1, self.report.name: 1, self.lock.name: 2}
        with suppress(FileNotFoundError):
            for name in sorted(os.listdir(self.path), key=lambda name: (order.get(name, 0), name)):
                if _OURS.fullmatch(name) and name not in keep:
                    (self.path / name).unlink(missing_ok=True)


@contextmanager
def held_state(target: Path, *, resume: bool = False, clean: bool = False) -> Iterator[JobFolder]:
    """The locked state folder of `target`; removed when the block ends well.

    When it ends by an exception the state stays where another attempt can use it, and the
    exception gets a note that says how; else it is removed.

    Raises:
        OutputBusy: another process makes this output.
        UnfinishedJob: there is the state of an unfinished job, and neither `resume` nor `clean`.
        OutputUnwritable: the folder can't be made.
    """
    folder = JobFolder(state_path(target))
    try:
        with _locked(folder, target):
            try:
                if clean or not folder.planned:
                    folder.clear()
                elif not resume:
                    raise UnfinishedJob(
                        "an unfinished job left its state here",
                        path=folder.path,
                        hint="--resume (resume=True) goes on with it, --clean (clean=True) "
                        "starts anew",
                    )
                folder.clear_parts()
                yield folder
            except BaseException as error:
                _keep_or_remove(folder, target, error)
                raise
            folder.remove()
    except OutputBusy:
        raise
    except BaseException:
        if not folder.planned:  # stopped between the lock and the first line of the work
            with suppress(OutputBusy):
                clean_state(target)
        raise


def clean_state(output: str | Path) -> bool:
    """Remove the state of an unfinished job; False where there is none.

    Raises:
        OutputBusy: a process is at work on it.
    """
    folder = JobFolder(state_path(output))
    if not folder.path.is_dir():
        return False
    with _locked(folder, Path(output)):
        folder.remove()
    return True


@contextmanager
def _locked(folder: JobFolder, target: Path) -> Iterator[None]:
    with OutputLock(folder.lock, target) as lock:
        try:
            with disk_errors(folder.path):
                folder.path.mkdir(exist_ok=True)
                lock.take()
        except OSError as error:
            raise OutputUnwritable(
                f"the state can't be kept beside it: {error.strerror}", path=folder.path
            ) from error
        yield


def _keep_or_remove(folder: JobFolder, target: Path, error: BaseException) -> None:
    worth = folder.planned and (folder.has_segments or not isinstance(error, BAD_INPUT))
    if not worth:
        folder.remove()
    elif not isinstance(error, UnfinishedJob):
        error.add_note(
            f"the work so far is kept in {folder.path}: run the same command with --resume to go "
            f"on, or 'dub clean {target}' to remove it"
        )
