"""Typer options made from a documented dataclass, so that help and API can't disagree."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Collection
from dataclasses import MISSING, Field, fields
from typing import Any, get_type_hints

import typer


def with_options(
    kind: type,
    parameter: str = "options",
    *,
    only: Collection[str] | None = None,
    leave_out: Collection[str] = (),
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Decorator: give a command one option per field of the dataclass `kind`.

    The command takes the built instance as its keyword argument `parameter`. Fields without a
    default become required options; those that are not in `only`, or in `leave_out`, keep their
    default. Types and ranges beyond int, float, bool and path are the dataclass's own business: it
    raises OptionInvalid when it is built.
    """
    hints = get_type_hints(kind)
    offered = [
        item
        for item in fields(kind)
        if (only is None or item.name in only) and item.name not in leave_out
    ]
    names = [item.name for item in offered]

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(command)
        def run(**values: Any) -> None:
            options = kind(**{name: values.pop(name) for name in names})
            command(**values, **{parameter: options})

        own = inspect.signature(command, eval_str=True).parameters.values()
        kept = [p for p in own if p.name != parameter]
        made = [
            inspect.Parameter(
                item.name,
                inspect.Parameter.KEYWORD_ONLY,
                default=_typer_option(item, hints[item.name]),
                annotation=hints[item.name],
            )
            for item in offered
        ]
        params = [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in kept] + made
        run.__signature__ = inspect.Signature(params)  # type: ignore[attr-defined]
        run.__annotations__ = {p.name: p.annotation for p in params}
        del run.__wrapped__
        return run

    return decorate


def _typer_option(item: Field[Any], hint: Any) -> Any:
    choices = item.metadata.get("choices", ())
    flag = f"--{item.name.replace('_', '-')}"
    if hint is bool and item.default is True:
        flag = f"{flag}/--no-{item.name.replace('_', '-')}"
    return typer.Option(
        ... if item.default is MISSING else item.default,
        flag,
        help=item.metadata["help"],
        metavar="|".join(choices) or None,
    )
