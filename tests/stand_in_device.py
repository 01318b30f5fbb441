"""A CPU that behaves like a CUDA card, for machines without one.

Tensors on it are computed by the CPU, but refuse what a card refuses: to meet tensors of the CPU in
one operation, and to become arrays. Autocast works as asked for. Whatever a program on a card waits
for, a copy between it and the host or a size that only the card knows, is counted. What it can't
show is speed, and what the card's own arithmetic does differently. A module that moves to it gets
new parameters (to a card it keeps them), so an optimiser has to be told.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_map

CARD = torch.device("cuda", 0)
MOVES = {"to", "cuda", "cpu", "type_as"}
TOLD = {"tolist", "item", "__float__", "__int__", "__bool__", "__index__", "equal", "allclose"}
"""Their result is for the host."""
SIZED = {"nonzero", "masked_select", "unique", "unique_consecutive"}
"""The size of their result is known to the card only."""


class CardTensor(Tensor):
    """A tensor on the stand-in: its values are `near`, it has none of its own."""

    __torch_function__ = torch._C._disabled_torch_function_impl
    near: Tensor

    @staticmethod
    def __new__(cls, near: Tensor) -> CardTensor:
        with torch.inference_mode(False), torch.no_grad():
            shape = torch.empty_strided(near.size(), near.stride(), dtype=near.dtype, device="meta")
            self = Tensor._make_subclass(cls, shape, False)
        self.near = near
        return self

    @property
    def device(self) -> torch.device:  # type: ignore[override]
        return CARD

    @property
    def is_cuda(self) -> bool:  # type: ignore[override]
        return True

    def __repr__(self, **_: Any) -> str:  # type: ignore[override]
        return f"CardTensor({self.near})"


class StandInCard(TorchFunctionMode):
    """While it is entered, this thread has a card.

    Attributes:
        waits: {kind of wait: how often}.
    """

    def __init__(self) -> None:
        super().__init__()
        self.waits: Counter[str] = Counter()

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        kwargs = dict(kwargs or {})
        name = getattr(func, "__name__", "")
        if name == "_has_compatible_shallow_copy_type":
            return isinstance(args[0], CardTensor) == isinstance(args[1], CardTensor)
        if name in MOVES:
            return self._moved(name, args[0], list(args[1:]), kwargs)
        tensors = _tensors_of((args, kwargs))
        here = [t for t in tensors if isinstance(t, CardTensor)]
        if _is_card(kwargs.get("device")):
            kwargs["device"] = torch.device("cpu")
            self.waits["up"] += name in ("tensor", "as_tensor")
            return CardTensor(func(*_near(args), **_near(kwargs)))
        if not here:
            return func(*args, **kwargs)
        if name in ("numpy", "__array__"):
            raise TypeError("can't convert cuda:0 device type tensor to numpy")
        self._check(name, args, tensors)
        self.waits["told"] += name in TOLD
        self.waits["size"] += name in SIZED or _size_is_unknown(name, args, kwargs)
        self.waits["up"] += name == "new_tensor"
        asked = torch.is_autocast_enabled("cuda")
        with torch.autocast("cpu", torch.get_autocast_dtype("cuda"), enabled=asked):
            out = func(*_near(args), **_near(kwargs))
        known = {id(t.near): t for t in here}  # in place: the same tensor comes back

        def placed(value: Any) -> Any:
            if not isinstance(value, Tensor):
                return value
            return known[id(value)] if id(value) in known else CardTensor(value)

        return tree_map(placed, out)

    def _check(self, name: str, args: Any, tensors: list[Tensor]) -> None:
        """Raises RuntimeError where tensors of both places meet. Numbers (0-dim) may come along;
        indices too, at the price of a copy."""
        strangers = [t for t in tensors if not isinstance(t, CardTensor) and t.ndim > 0]
        if not strangers:
            return
        of_card = isinstance(args[0], CardTensor)
        value = args[2] if name == "__setitem__" else None
        if name in ("__getitem__", "__setitem__") and of_card and value is not strangers[0]:
            self.waits["up"] += 1
        elif name == "copy_":
            self.waits["up" if of_card else "down"] += 1
        else:
            raise RuntimeError(f"{name}: expected all tensors to be on the same device")

    def _moved(self, name: str, tensor: Tensor, rest: list[Any], kwargs: dict[str, Any]) -> Tensor:
        """Tensor.to and its kin."""
        goal = isinstance(tensor, CardTensor)
        if name in ("cuda", "cpu"):
            goal, rest = name == "cuda", []
        rest += [kwargs.pop(word) for word in ("device", "other") if kwargs.get(word) is not None]
        dtypes = []
        for value in rest:
            if isinstance(value, Tensor):
                goal = isinstance(value, CardTensor)
                dtypes.append(value.dtype)
            elif isinstance(value, (torch.device, str)):
                goal = _is_card(value)
            elif isinstance(value, torch.dtype):
                dtypes.append(value)
        kwargs = {k: v for k, v in kwargs.items() if k != "non_blocking" and v is not None}
        near = tensor.near if isinstance(tensor, CardTensor) else tensor
        out = near.to(*dtypes, **kwargs) if dtypes or kwargs else near
        if goal == isinstance(tensor, CardTensor):
            return tensor if out is near else CardTensor(out) if goal else out
        self.waits["up" if goal else "down"] += 1
        return CardTensor(out.clone()) if goal else out.clone()


@contextmanager
def stand_in_card(monkeypatch: pytest.MonkeyPatch) -> Iterator[StandInCard]:
    """A card for the block, that `torch.cuda` knows of."""
    with monkeypatch.context() as patch, StandInCard() as card:
        patch.setattr(torch.cuda, "is_available", lambda: True)
        yield card


def _near(values: Any) -> Any:
    return tree_map(lambda v: v.near if isinstance(v, CardTensor) else v, values)


def _tensors_of(values: Any) -> list[Tensor]:
    found: list[Tensor] = []
    tree_map(lambda v: found.append(v) if isinstance(v, Tensor) else None, values)
    return found


def _is_card(device: Any) -> bool:
    if isinstance(device, torch.device):
        return device.type == "cuda"
    return isinstance(device, str) and device.split(":")[0] == "cuda"


def _size_is_unknown(name: str, args: Any, kwargs: Mapping[str, Any]) -> bool:
    """Whether the result's size depends on values."""
    if name in ("__getitem__", "__setitem__"):
        index = args[1] if isinstance(args[1], tuple) else (args[1],)
        return any(isinstance(i, Tensor) and i.dtype == torch.bool for i in index)
    if name == "repeat_interleave":
        return isinstance(args[1], Tensor) and "output_size" not in kwargs
    return False
