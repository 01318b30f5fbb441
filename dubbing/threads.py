"""How many threads one step of a dub runs on."""

from __future__ import annotations

import os

import torch


def settle_threads() -> None:
    """Run every tensor operation of this process on one thread, unless OMP_NUM_THREADS is set.

    The operations are small: on two cores a second thread makes a dub a fifth slower, because it
    waits busily and takes the cores from decoding, encoding and the other steps, which have
    threads of their own. Training is another matter.
    """
    if "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(1)
