"""One process at a time makes an output: an advisory lock that the kernel drops with its owner."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import socket
from datetime import datetime
from pathlib import Path

from dubbing.closing import Closing
from dubbing.errors import OutputBusy


class OutputLock(Closing):
    """Holds `path` locked (flock) from `take` to `close`. The file says who holds it.

    An exception at any point, also one that a signal raises, leaves nothing locked that `close`
    does not release: the descriptor is the object's before it is locked.
    """

    def __init__(self, path: Path, target: Path):
        self.path = path
        self._target = target
        self._file = -1

    def take(self) -> None:
        """Lock the file and write into it who does.

        Raises:
            OutputBusy: another process holds it.
            OSError: the file can't be made.
        """
        while not self._taken():
            self.close()  # its holder removed it between our opening and our locking it
            self.path.parent.mkdir(exist_ok=True)
        owner = {
            "pid": os.getpid(),
            "host": socket.gethostname(),
            "since": datetime.now().isoformat(timespec="seconds"),
        }
        os.ftruncate(self._file, 0)
        os.pwrite(self._file, json.dumps(owner).encode(), 0)

    def _taken(self) -> bool:
        """Whether what is locked now is the file that lies at `path`."""
        self._file = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            owner = _owner(self._file)
            self.close()
            if error.errno not in (errno.EWOULDBLOCK, errno.EACCES):
                raise
            raise OutputBusy(
                f"another run is making it{owner}",
                path=self._target,
                hint="wait for it, or stop it",
            ) from error
        try:
            return os.path.samestat(os.fstat(self._file), self.path.stat())
        except FileNotFoundError:
            return False

    def close(self) -> None:
        """Let others in. The file itself is removed with the state, or stays with it."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1


def _owner(file: int) -> str:
    """ " (process 12 on host since ...)", or "" where the file does not say."""
    try:
        facts = json.loads(os.pread(file, 4096, 0))
        return f" (process {facts['pid']} on {facts['host']} since {facts['since']})"
    except (OSError, ValueError, KeyError, TypeError):
        return ""
