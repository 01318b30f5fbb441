"""The files that a job reads, recognised by content, so that a changed one is noticed."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from dubbing.checksums import file_sha256
from dubbing.errors import InputChanged, InputNotFound


@dataclass(frozen=True)
class InputFile:
    """An input as it was when the job was planned.

    Attributes:
        role: what the job uses it for: "video", "audio" or "style".
        path: absolute; size in bytes; mtime_ns: time of its last change.
        sha256: hex digest of its content.
    """

    role: str
    path: str
    size: int
    mtime_ns: int
    sha256: str

    @classmethod
    def read(cls, role: str, path: str | Path) -> InputFile:
        """Look at a file.

        Raises:
            InputNotFound: it can't be read.
        """
        place = Path(path).absolute()
        try:
            facts = place.stat()
            digest = file_sha256(place)
        except OSError as error:
            raise InputNotFound(f"can't be read: {error.strerror}", path=path) from error
        return cls(role, str(place), facts.st_size, facts.st_mtime_ns, digest)

    def check(self, whole: bool = False) -> None:
        """Make sure that the file is still the same.

        Size and time of change are looked at; the content where the time differs (a copy or a
        `touch` changes nothing), or always with `whole`.

        Raises:
            InputChanged: it is gone, or holds something else.
        """
        place = Path(self.path)
        try:
            facts = place.stat()
            same = facts.st_size == self.size
            if same and (whole or facts.st_mtime_ns != self.mtime_ns):
                same = file_sha256(place) == self.sha256
        except OSError as error:
            raise InputChanged(
                f"the {self.role} can't be read any more: {error.strerror}", path=self.path
            ) from error
        if not same:
            raise InputChanged(
                f"the {self.role} was changed while the job read it",
                path=self.path,
                hint="no result was written; start again when nothing writes to it",
            )
