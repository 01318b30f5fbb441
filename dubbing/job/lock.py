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
    """Holds `path` locked (flock) until `release`. The file says who holds it.

    Raises:
        OutputBusy: another process holds it.
        OSError: the file can't be made.
    """

    def __init__(self, path: Path, target: Path):
        self.path = path
        self._file = self._taken(path, target)
        owner = {
            "pid": os.getpid(),
            "host": socket.gethostname(),
            "since": datetime.now().isoformat(timespec="seconds"),
        }
        os.ftruncate(self._file, 0)
        os.pwrite(self._file, json.dumps(owner).encode(), 0)

    @staticmethod
    def _taken(path: Path, target: Path) -> int:
        while True:
            file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if path.exists() and os.path.samestat(os.fstat(file), path.stat()):
                    return file
                os.close(file)  # its holder removed it between our opening and our locking it
                path.parent.mkdir(exist_ok=True)
            except OSError as error:
                owner = _owner(file)
                os.close(file)
                if error.errno not in (errno.EWOULDBLOCK, errno.EACCES):
                    raise
                raise OutputBusy(
                    f"another run is making it{owner}", path=target, hint="wait for it, or stop it"
                ) from error

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
