"""Reading safetensors files that anybody may have made: what they say is checked before it is used.

Nothing is unpickled and nothing runs. A tensor's size is known from the header, and the header
can't promise more than the file holds.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields
from pathlib import Path
from typing import Any, TypeVar, get_type_hints

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

LARGEST_FACTOR = 4
"""How many times larger than ours a network of a checkpoint may be in any one of its sizes."""

LARGEST_FLOAT = 1000.0
FLOATS = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
INTEGERS = {"I64": torch.int64, "I32": torch.int32, "U8": torch.uint8}

Config = TypeVar("Config")


class BadFileError(ValueError):
    """What is wrong with the file, in words."""


@dataclass(frozen=True)
class TensorFile:
    """A safetensors file in memory."""

    metadata: dict[str, str]
    tensors: dict[str, Tensor]


def read_tensor_file(path: Path) -> TensorFile:
    """Read a safetensors file.

    Raises:
        BadFileError: not safetensors, cut short, or tensors of a type or with values that are not
            numbers to compute with.
    """
    try:
        with safe_open(path, "pt") as file:
            names = list(file.keys())
            for name in names:
                kind = file.get_slice(name).get_dtype()
                if kind not in FLOATS and kind not in INTEGERS:
                    raise BadFileError(f"tensor {name} is of type {kind}")
            # copies: a file that is mapped and then cut short would end the process
            tensors = {name: file.get_tensor(name).clone() for name in names}
            metadata = dict(file.metadata() or {})
    except (SafetensorError, OSError, UnicodeError, OverflowError, MemoryError) as error:
        raise BadFileError(f"not a readable safetensors file: {error}") from error
    for name, value in tensors.items():
        if value.is_floating_point() and not bool(torch.isfinite(value).all()):
            raise BadFileError(f"tensor {name} holds values that are not finite")
    return TensorFile(metadata, tensors)


def json_object(text: str | None) -> dict[str, Any]:
    """The JSON object in `text`.

    Raises:
        BadFileError: there is none.
    """
    try:
        value = json.loads(text or "")
    except (ValueError, RecursionError) as error:
        raise BadFileError("its description is not JSON") from error
    if not isinstance(value, dict):
        raise BadFileError("its description is not a JSON object")
    return value


def read_config(kind: type[Config], values: Mapping[str, Any]) -> Config:
    """Build the dataclass of a network's sizes, each of them within reason.

    A whole number has to lie between 0 and LARGEST_FACTOR times the default, so that the network
    can be built at all before its tensors are compared with the file's.

    Raises:
        BadFileError: an unknown field, a value of the wrong type, or out of range.
    """
    hints = get_type_hints(kind)
    known = {item.name: item.default for item in fields(kind)}  # type: ignore[arg-type]
    for name, value in values.items():
        if name not in known:
            raise BadFileError(f"its sizes are not understood: unknown size {name!r}")
        default = known[name]
        if not _allowed(value, hints[name], default):
            raise BadFileError(f"its sizes are not understood: {name} is {value!r}")
    try:
        return kind(**values)
    except (TypeError, ValueError, ZeroDivisionError) as error:
        raise BadFileError(f"its sizes are not understood: {error}") from error


def _allowed(value: Any, hint: Any, default: Any) -> bool:
    if hint is int:
        top = LARGEST_FACTOR * max(int(default), 1) if default is not MISSING else 2**16
        return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= top
    if hint is float:
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        return number and math.isfinite(value) and 0 <= value <= LARGEST_FLOAT
    return isinstance(value, hint)


def expect(
    tensors: Mapping[str, Tensor], name: str, shape: tuple[int | str, ...], sizes: dict[str, int],
    dtype: torch.dtype | None = None,
) -> Tensor:  # fmt: skip
    """The tensor `name`, of that shape: a letter stands for one size throughout a file.

    Args:
        sizes: sizes of letters that are known; new ones are added.
        dtype: exact type; None for any floating-point type.

    Raises:
        BadFileError: missing, or another shape or type.
    """
    value = tensors.get(name)
    if value is None:
        raise BadFileError(f"tensor {name} is missing")
    right_type = value.dtype == dtype if dtype is not None else value.is_floating_point()
    if not right_type:
        raise BadFileError(f"tensor {name} is of type {value.dtype}")
    wanted = [sizes.get(s, s) if isinstance(s, str) else s for s in shape]
    fits = value.dim() == len(shape) and all(
        isinstance(want, str) or want == size
        for want, size in zip(wanted, value.shape, strict=True)
    )
    if not fits:
        raise BadFileError(f"tensor {name} is {list(value.shape)}, expected {wanted}")
    sizes |= {s: n for s, n in zip(shape, value.shape, strict=True) if isinstance(s, str)}
    return value


def within(value: Tensor, name: str, low: int, high: int) -> None:
    """Make sure that whole numbers lie in `low` ... `high - 1`.

    Raises:
        BadFileError: one does not.
    """
    if value.numel() and not (low <= int(value.min()) and int(value.max()) < high):
        raise BadFileError(f"tensor {name} holds numbers outside {low} to {high - 1}")
