"""Loops over pixels and moments, compiled for this machine's processor (numba).

The first call compiles, which takes a second or two; the result is kept beside the source, or in
the user's cache folder where the package can't be written. Compiled functions let other threads
run, and add up in the order that is written (no fast-math), so that results are the same bits in
every run. On CUDA the torch counterparts of those over pixels are used.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

import numba

Kernel = TypeVar("Kernel", bound=Callable[..., Any])


def compiled(function: Kernel) -> Kernel:
    """A function of numpy arrays and numbers as machine code."""
    made: Any
    try:
        made = numba.njit(cache=True, nogil=True, error_model="numpy")(function)
    except RuntimeError:  # there is no folder that a cache could be written to
        made = numba.njit(nogil=True, error_model="numpy")(function)
    return cast(Kernel, made)
