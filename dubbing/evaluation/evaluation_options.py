"""Options of `dub evaluate`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from dubbing.errors import OptionInvalid
from dubbing.evaluation.protocol_names import PROTOCOLS
from dubbing.options import check_fields, option


@dataclass(frozen=True)
class EvaluateOptions:
    """What `dub evaluate` can be told. Values are checked on construction.

    Raises:
        OptionInvalid: a value outside its range.
    """

    output: Path = option("Folder for report, videos and figures; a later run goes on there.")
    root: Path | None = option("Folder of the clips, if they have moved.", None)
    protocols: str = option(
        f"Comma-separated protocols to run: {', '.join(PROTOCOLS)}; 'all' for all.", "all"
    )
    only: str | None = option("Comma-separated cases (or their clips' stems) to run.", None)
    ours: bool = option("Evaluate this engine, with the checkpoint given.", True)
    baselines: bool = option("Also evaluate the built-in baselines.", True)
    perceptual: Path | None = option(
        "ST-LPIPS weights: the wheel stlpips-pytorch 0.0.2, or its alex_shift_tolerant.pth.", None
    )
    syncnet: Path | None = option("SyncNet weights (syncnet_v2.model) for LSE-C and LSE-D.", None)
    inception: Path | None = option(
        "Inception weights (pt_inception-2015-12-05) for FID; without them the Fréchet distance is "
        "taken in the trunk of ST-LPIPS.",
        None,
    )
    frames: int = option(
        "Pictures per video that are looked at closely.", 12, reason="errors vary slowly", low=2,
        high=1000,
    )  # fmt: skip
    players: int = option(
        "Worst cases per protocol that the page shows with players and sheets.", 6, low=0, high=200
    )
    timeout: float = option(
        "Seconds after which a command counts as failed.", 3600.0, low=1.0, high=1e6
    )

    def __post_init__(self) -> None:
        check_fields(self)
        if unknown := sorted(set(self.wanted) - set(PROTOCOLS)):
            raise OptionInvalid(
                f"no protocol {', '.join(unknown)}", hint=f"there are {', '.join(PROTOCOLS)}"
            )

    @property
    def wanted(self) -> list[str]:
        """The protocols asked for."""
        if self.protocols == "all":
            return list(PROTOCOLS)
        return [name.strip() for name in self.protocols.split(",")]

    @property
    def names(self) -> set[str] | None:
        """The cases asked for, None for all."""
        return None if self.only is None else {name.strip() for name in self.only.split(",")}
