"""From rows to the tables of an evaluation: means, intervals, and what is worst."""

from __future__ import annotations

import os
import platform
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch

from dubbing.evaluation.evaluate import Evaluation, load_features
from dubbing.evaluation.frechet import frechet_distance
from dubbing.evaluation.intervals import Estimate, bootstrap
from dubbing.evaluation.metrics import METRICS, of_protocol
from dubbing.evaluation.protocol_names import PROTOCOLS, SILENCE, WITH_TRUTH

Row = dict[str, Any]
Table = dict[str, dict[str, Estimate]]
"""{system: {figure: mean with its interval}}"""


@dataclass(frozen=True)
class ProtocolTable:
    """Every system on one protocol; `cases` are those that were asked for."""

    protocol: str
    cases: int
    systems: Table


def tables_of(evaluation: Evaluation, rows: Sequence[Row]) -> list[ProtocolTable]:
    """One table per protocol that has rows, systems in the order of the rows."""
    found = []
    for protocol in PROTOCOLS:
        some = [row for row in rows if row["protocol"] == protocol]
        if not some:
            continue
        names = list(dict.fromkeys(row["system"] for row in some))
        systems = {n: _estimates(evaluation, protocol, n, some) for n in names}
        found.append(ProtocolTable(protocol, len({r["case"] for r in some}), systems))
    return found


def _estimates(
    evaluation: Evaluation, protocol: str, system: str, rows: Sequence[Row]
) -> dict[str, Estimate]:
    own = [row for row in rows if row["system"] == system]
    found = {}
    for metric in of_protocol(protocol):
        known = [row for row in own if row.get(metric.name) is not None]
        estimate = bootstrap([r[metric.name] for r in known], [r["speaker"] for r in known])
        if estimate is not None:
            found[metric.name] = estimate
    paths = [evaluation.features(system, r["case"]) for r in own if r["success"]]
    features = load_features(paths)
    if features is not None:
        distance = frechet_distance(*features)
        if distance is not None:
            found["frechet"] = Estimate(distance, distance, distance, len(paths))
    return found


def badness(row: Row) -> float:
    """By what the worst cases are found: failures, then LMD where there is a truth, leaking lips
    in silence, and the sync distance elsewhere."""
    if not row["success"]:
        return float("inf")
    if row["protocol"] in WITH_TRUTH:
        return float(row.get("lmd") or 0.0)
    if row["protocol"] == SILENCE:
        return float(row.get("leak") or 0.0)
    return float(row.get("sync dist") or 0.0)


def machine() -> dict[str, Any]:
    """What the seconds were taken on."""
    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "GPU": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "torch": torch.__version__,
        "load average": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
    }


def _processor() -> str:
    try:
        with open("/proc/cpuinfo") as file:
            names = [line.partition(":")[2].strip() for line in file if "model name" in line]
    except OSError:
        names = []
    return names[0] if names else platform.processor()


def facts(
    evaluation: Evaluation, rows: Sequence[Row], tables: Sequence[ProtocolTable]
) -> dict[str, Any]:
    """Everything as JSON values."""
    protocol = evaluation.protocol
    return {
        "protocol": protocol.name,
        "protocol digest": protocol.digest(),
        "judges": evaluation.judges.versions,
        "missing": evaluation.judges.missing,
        "frames per video": evaluation.options.frames,
        "machine": machine(),
        "definitions": [asdict(metric) for metric in METRICS],
        "tables": [
            {
                "protocol": t.protocol,
                "cases": t.cases,
                "systems": {
                    name: {figure: asdict(e) for figure, e in column.items()}
                    for name, column in t.systems.items()
                },
            }
            for t in tables
        ],
        "rows": list(rows),
    }
