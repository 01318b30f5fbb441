"""The number format in which the renderer's convolutions run."""

from __future__ import annotations

import torch


def fast_convolutions(device: torch.device) -> torch.autocast:
    """A block in which convolutions run in the device's `convolution_dtype`."""
    dtype = convolution_dtype(device)
    return torch.autocast(device.type, dtype, enabled=dtype is not None)


def convolution_dtype(device: torch.device) -> torch.dtype | None:
    """float16 on CUDA; bfloat16 on a CPU that computes in it (twice as fast there); else None,
    which means float32.

    Only convolutions use it: what they make is a correction of at most some hundredths, so the
    eight bits of bfloat16 stay below half a code value of the picture.
    """
    if device.type == "cuda":
        return torch.float16
    if device.type == "cpu" and torch.cpu.get_capabilities().get("avx512_bf16"):
        return torch.bfloat16
    return None
