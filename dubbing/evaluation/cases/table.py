"""The whole table: importing a module of cases enters them."""

from __future__ import annotations

from importlib import import_module

from dubbing.evaluation.cases.registry import Case, entered

MODULES = (
    "times",
    "pictures",
    "hdr",
    "alpha",
    "codecs",
    "sounds",
    "lengths",
    "extras",
    "faces",
    "hostile",
    "weight_files",
)
"""Modules of this package that enter cases, in the order of the table."""


def all_cases() -> list[Case]:
    """Every case of the table."""
    for name in MODULES:
        import_module(f"dubbing.evaluation.cases.{name}")
    return entered()
