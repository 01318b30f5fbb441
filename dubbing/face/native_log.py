"""MediaPipe's C++ side writes start-up chatter straight to the process's stderr; this mutes it."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

# mediapipe 0.10.14 reads its results with a function that protobuf 4 calls deprecated
warnings.filterwarnings("ignore", message=r"SymbolDatabase\.GetPrototype", category=UserWarning)


@contextmanager
def muted_start() -> Iterator[None]:
    """Send what native code writes to stderr to nowhere while a network is built and warmed up.

    Python exceptions pass as ever. The redirection holds for the whole process, so the block
    should be short: construction and one picture.
    """
    sys.stderr.flush()
    kept = os.dup(2)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)
