"""The state of a batch: an append-only file of JSON lines, written by one process at a time."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import time
from pathlib import Path
from typing import Any

from dubbing.closing import Closing
from dubbing.errors import BatchInvalid, DiskFull, OutputUnwritable

Record = dict[str, Any]


class Journal(Closing):
    """Appends records; each is on the disk when `append` returns.

    A process killed while writing leaves a torn last line: it is ignored by readers and cut off by
    the next writer. Use as a context manager.

    Raises:
        OutputUnwritable: another process holds the journal, or the folder can't be written.
    """

    def __init__(self, path: Path):
        self.path = path
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o644)
        except OSError as error:
            reason = error.strerror or str(error)
            raise OutputUnwritable(f"can't be written: {reason}", path=path) from error
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(self._file)
            raise OutputUnwritable(
                "another batch is at work here", path=path, hint="wait for it, or stop it"
            ) from error
        self._cut_torn_line()

    def close(self) -> None:
        os.close(self._file)

    def append(self, kind: str, **facts: Any) -> Record:
        """Write one record, with the time of day in seconds as `time`; it is returned.

        Raises:
            DiskFull: no room left.
        """
        record = {"time": round(time.time(), 3), "kind": kind, **facts}
        line = json.dumps(record, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"
        try:
            while line:
                line = line[os.write(self._file, line) :]
            os.fsync(self._file)
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise DiskFull("no room left for the journal", path=self.path) from error
            raise
        return record

    def _cut_torn_line(self) -> None:
        content = self.path.read_bytes()
        whole = content.rfind(b"\n") + 1
        if whole < len(content):
            os.ftruncate(self._file, whole)
            os.fsync(self._file)


def read_journal(path: Path) -> list[Record]:
    """The records, oldest first; a torn last line is left out. Empty where there is no journal.

    Raises:
        BatchInvalid: a line before the last is not a record.
    """
    if not path.is_file():
        return []
    *lines, _torn = path.read_bytes().split(b"\n")
    records: list[Record] = []
    for number, line in enumerate(lines, 1):
        try:
            record = json.loads(line)
        except ValueError as error:
            raise BatchInvalid(
                f"line {number} of the journal is damaged",
                path=path,
                hint="restore the file, or begin anew in another folder",
            ) from error
        records.append(record)
    return records
