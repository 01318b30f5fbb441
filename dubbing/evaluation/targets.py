"""Demands on figures, and whether they are met."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Target:
    """One demand.

    Attributes:
        name: what is asked for, in words; value: what was measured, None where nothing could be.
        low, high: the range that meets it, both ends included.
    """

    name: str
    value: float | None
    low: float = -math.inf
    high: float = math.inf

    @property
    def met(self) -> bool:
        """Whether the value lies in the range; what was not measured does not."""
        return self.value is not None and self.low <= self.value <= self.high

    def __str__(self) -> str:
        shown = "not measured" if self.value is None else f"{self.value:.4f}"
        return f"{'ok    ' if self.met else 'MISSED'} {self.name}: {shown}"
