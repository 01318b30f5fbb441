"""Exceptions of the engine: each says what went wrong, where, and what to do.

The command line maps every class to one exit code (`exit_code`). Library code raises these and
nothing else for conditions that a caller can meet with bad input; a bug stays a bug and surfaces
as the Python error that it is.
"""

from __future__ import annotations

from pathlib import Path


class DubbingError(Exception):
    """Base class. `exit_code` is the status with which the command line ends."""

    exit_code = 1

    def __init__(self, message: str, *, path: str | Path | None = None, hint: str | None = None):
        self.message = message
        self.path = str(path) if path is not None else None
        self.hint = hint
        super().__init__(str(self))

    def __str__(self) -> str:
        where = f"{self.path}: " if self.path else ""
        what = f"{where}{self.message}"
        return f"{what} ({self.hint})" if self.hint else what


class InputNotFound(DubbingError):
    """An input file does not exist or is not a regular file."""

    exit_code = 3


class NotAVideo(DubbingError):
    """The file holds no picture stream that can be decoded."""

    exit_code = 4


class NoAudioStream(DubbingError):
    """The file given as speech holds no sound stream that can be decoded."""

    exit_code = 5


class AudioUnusable(DubbingError):
    """The speech is empty, silent from end to end, or shorter than 0.2 s."""

    exit_code = 6


class NoFaceFound(DubbingError):
    """No frame of the video holds a usable face, or the chosen face does not exist."""

    exit_code = 7


class OutputUnwritable(DubbingError):
    """The output can't be written there, exists already, or is one of the inputs."""

    exit_code = 8


class CheckpointNotFound(DubbingError):
    """No checkpoint of that name is known and no such file exists."""

    exit_code = 9


class CheckpointCorrupt(DubbingError):
    """A checkpoint exists but can't be read, or does not fit the networks."""

    exit_code = 10


class DiskFull(DubbingError):
    """The disk had no room left for the result or a temporary file."""

    exit_code = 11


class MediaFailed(DubbingError):
    """Decoding, encoding or muxing failed part way; the message holds the tool's own words."""

    exit_code = 12


class OptionInvalid(DubbingError):
    """An option's value is outside its range or contradicts another."""

    exit_code = 13


class PersonaInvalid(DubbingError):
    """A persona file can't be read or was made for another speaker, engine or model."""

    exit_code = 14


class UnfinishedJob(DubbingError):
    """The state of an unfinished job stands in the way, or belongs to another job or machine."""

    exit_code = 15


class OutputBusy(DubbingError):
    """Another process is making this very output."""

    exit_code = 16


class InputChanged(DubbingError):
    """An input file was changed while the job read it."""

    exit_code = 17


class ExportFailed(DubbingError):
    """A network could not be exported, or the result does not do what the network does."""

    exit_code = 18


class InputTooLarge(DubbingError):
    """An input's pictures or its length are over the limits (--max-pixels, --max-duration)."""

    exit_code = 20


class BatchInvalid(DubbingError):
    """A jobs file, or the saved state of a batch, can't be used; the message lists every fault."""

    exit_code = 24


class StorageFailed(DubbingError):
    """A remote store refused or lost a file."""

    exit_code = 25


class WorkerDied(DubbingError):
    """A worker process of a batch ended in the middle of a job."""

    exit_code = 26


class Cancelled(DubbingError):
    """The caller's progress callback or a signal asked the job to stop."""

    exit_code = 130


class Terminated(Cancelled):
    """The process was asked to end (SIGTERM)."""

    exit_code = 143
