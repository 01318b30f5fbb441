"""The device that networks run on."""

from __future__ import annotations

import torch

from dubbing.errors import OptionInvalid
from dubbing.options import check_device_name


def choose_device(name: str) -> torch.device:
    """The device for "auto", "cpu" or "cuda".

    Raises:
        OptionInvalid: an unknown name, or CUDA where there is none.
    """
    check_device_name(name)
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if name == "cuda" and not torch.cuda.is_available():
        raise OptionInvalid("no CUDA device is usable here", hint="use --device cpu")
    return torch.device(name)
