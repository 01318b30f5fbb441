"""Limits of what is dubbed, and the reasons for what is not."""

from __future__ import annotations

from dataclasses import dataclass

NO_FACE = "no face found"
AWAY = "the speaker is not in the picture"
UNSURE = "face tracked badly"
BLURRED = "face blurred"
COVERED = "mouth covered"
OVERLAPPED = "another face may be before it"
DISSOLVE = "dissolve between shots"
FLASH = "flash, or a shot of a few frames"


@dataclass(frozen=True)
class FaceLimits:
    """Limits of a frame that is dubbed.

    Attributes:
        max_yaw: degrees of head turn to either side.
        min_face: pixels, the longer side of the box around the face.
        min_confidence: 0..1, see `dubbing.face.faults.confidence`.
        min_sharpness: 0..1, see `dubbing.face.appearance.sharpness`.
        min_visible: -1..1, see `dubbing.face.appearance.FaceSampler.visibility`.
    """

    max_yaw: float = 50.0
    min_face: float = 48.0
    min_confidence: float = 0.5
    min_sharpness: float = 0.35
    min_visible: float = 0.5

    @property
    def too_small(self) -> str:
        return f"face smaller than {self.min_face:g} px"

    @property
    def turned(self) -> str:
        return f"face turned beyond {self.max_yaw:g} degrees"
