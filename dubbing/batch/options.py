"""Options of a batch: plain data, light to import."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from dubbing.options import check_fields, option

ENGINES = ("local", "ray")


@dataclass(frozen=True)
class BatchOptions:
    """What a caller can choose about a batch as a whole. Values are checked on construction.

    Raises:
        OptionInvalid: a value outside its range, or none of its choices.
    """

    engine: str = option(
        "Where the workers run: 'local' processes of this machine, or a 'ray' cluster.",
        "local",
        reason="one machine needs nothing else installed",
        choices=ENGINES,
    )
    workers: int = option(
        "Worker processes, each with the networks loaded once; 0 takes as many as memory and "
        "cores allow.",
        0,
        reason="memory is what runs out first on machines with many cores",
        low=0,
    )
    threads: int = option(
        "Processor threads per worker; 0 shares the cores out.",
        0,
        reason="small networks gain little from more than one thread each",
        low=0,
    )
    address: str | None = option(
        "Ray: address of a running cluster ('auto' finds the one this machine belongs to). "
        "Default: Ray is started on this machine and stopped at the end.",
        None,
    )
    gpus_per_worker: float = option(
        "Ray: share of a GPU that each worker takes, 0.25 puts four workers on one; 0 is the CPU.",
        0.0,
        low=0.0,
        high=1.0,
    )
    retries: int = option(
        "How often a job is tried again after a failure that may pass (a worker that died, "
        "storage, a full disk). Bad inputs are not tried again.",
        2,
        low=0,
        high=20,
    )
    backoff: float = option(
        "Seconds before the first further try; each one after it waits twice as long.",
        5.0,
        reason="storage that throttles recovers within seconds",
        low=0.0,
        high=3600.0,
    )
    segment_minutes: float | None = option(
        "Results longer than this are rendered by several workers, segment by segment. Default: "
        "those longer than the mean share of a worker. 0 shares all.",
        None,
        reason="one long video should not keep one worker busy while the others have nothing to do",
        low=0.0,
        high=100_000.0,
    )
    resume: bool = option(
        "Go on with the batch that was begun in the output folder: what is done and unchanged is "
        "kept, what failed or was cut off is done again.",
        False,
        reason="a second batch in the same folder is more often a typing error",
    )
    state_dir: Path | None = option(
        "Local folder for the journal, needed where the output folder is a URL. Default: the "
        "output folder.",
        None,
    )

    def __post_init__(self) -> None:
        if isinstance(self.state_dir, str):
            object.__setattr__(self, "state_dir", Path(self.state_dir))
        check_fields(self)

    def wait_before(self, attempt: int) -> float:
        """Seconds to wait before try number `attempt`, which counts from 1."""
        return 0.0 if attempt < 2 else self.backoff * 2.0 ** (attempt - 2)
