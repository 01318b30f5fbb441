"""What the lips do where the picture goes on after the new speech has ended."""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass
from fractions import Fraction

from dubbing.media.timeline import OutputPlan

AFTER_SPEECH = "after the new speech"
EASE_FRAMES = 4


@dataclass(frozen=True)
class Tail:
    """`first` is the first output frame that starts when the speech is over; None: the dub goes
    on to the end, at rest."""

    first: int | None = None

    @classmethod
    def original(cls, plan: OutputPlan, speech_end: Fraction) -> Tail:
        """The original lips come back after `speech_end`, in seconds of the result."""
        return cls(bisect_left(range(plan.count), speech_end, key=lambda k: plan.frame(k).time))

    def share(self, number: int) -> float:
        """Weight of the dub in output frame `number`: 1, and after the speech down to 0 in
        EASE_FRAMES frames."""
        if self.first is None or number < self.first:
            return 1.0
        return max(0.0, 1.0 - (number - self.first + 1) / (EASE_FRAMES + 1))
