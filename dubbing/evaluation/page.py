"""One self-contained HTML page: tables, curves, sheets and players; it loads nothing."""

from __future__ import annotations

import base64
import importlib.resources
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2

from dubbing.errors import DubbingError
from dubbing.evaluation.evaluate import Evaluation, slug
from dubbing.evaluation.evaluation_tables import badness
from dubbing.evaluation.previews import write_preview
from dubbing.evaluation.protocol_file import Case
from dubbing.evaluation.protocol_names import PROTOCOLS
from dubbing.evaluation.sheets import contact_sheet
from dubbing.report import save_bytes

Row = dict[str, Any]

SHEET_FRAMES = 5
JPEG_QUALITY = 82


def save_page(
    evaluation: Evaluation,
    path: Path,
    facts: dict[str, Any],
    judged: Sequence[str],
    baselines: Sequence[str],
) -> None:
    """Write the page.

    Args:
        facts: of `evaluation_tables.facts`; judged: names of the systems whose videos are shown,
            the first decides which cases are worst; baselines: names of the others.

    Raises:
        OutputUnwritable, DiskFull: see `save_bytes`.
    """
    rows: list[Row] = facts["rows"]
    close = [
        _close(evaluation, case, judged, rows)
        for protocol in PROTOCOLS
        for case in _worst(evaluation, protocol, rows, judged)
    ]
    values = facts | {"close": close, "baselines": list(baselines)}
    text = json.dumps(values, ensure_ascii=False, allow_nan=False)
    # "</script" inside a string would end the element that holds the data
    safe = text.replace("<", "\\u003c")
    template = importlib.resources.files("dubbing") / "assets" / "evaluation.html"
    save_bytes(path, template.read_text().replace("__DATA__", safe).encode())


def _worst(
    evaluation: Evaluation, protocol: str, rows: Sequence[Row], judged: Sequence[str]
) -> list[Case]:
    """The cases of a protocol with the worst results of the first judged system."""
    if not judged:
        return []
    own = [r for r in rows if r["protocol"] == protocol and r["system"] == judged[0]]
    order = sorted(own, key=lambda r: -badness(r))[: evaluation.options.players]
    cases = {case.id: case for case in evaluation.protocol.cases}
    return [cases[row["case"]] for row in order]


def _close(
    evaluation: Evaluation, case: Case, judged: Sequence[str], rows: Sequence[Row]
) -> dict[str, Any]:
    """Players and a contact sheet of one case; what can't be made is left out."""
    source = evaluation.protocol.path(case.source)
    shown: list[tuple[str, Path]] = [("source", source)]
    for name in judged:
        row = next((r for r in rows if r["case"] == case.id and r["system"] == name), None)
        if row is not None and row["success"]:
            shown.append((name, Path(row["video"])))
    if case.truth is not None and case.truth != case.source:
        shown.append(("truth", evaluation.protocol.path(case.truth)))
    players = []
    for name, video in shown:
        preview = evaluation.folder / "previews" / slug(name) / f"{case.id}.webm"
        try:
            if not preview.is_file() or preview.stat().st_mtime < video.stat().st_mtime:
                preview.parent.mkdir(parents=True, exist_ok=True)
                write_preview(video, preview)
        except DubbingError as error:
            evaluation.note(f"no player of {name} for {case.id}: {error}")
            continue
        players.append({"name": name, "src": _data("video/webm", preview.read_bytes())})
    made = next((video for name, video in shown if name in judged), None)
    return {
        "case": case.id,
        "protocol": case.protocol,
        "players": players,
        "sheet": None if made is None else _sheet(source, made),
    }


def _sheet(source: Path, made: Path) -> str:
    sheet = contact_sheet(source, made, frames=SHEET_FRAMES)
    _, jpeg = cv2.imencode(
        ".jpg", cv2.cvtColor(sheet, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY]
    )
    return _data("image/jpeg", jpeg.tobytes())


def _data(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"
