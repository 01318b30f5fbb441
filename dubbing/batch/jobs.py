"""The jobs of a batch: JSON Lines or CSV, every fault reported with its line before work starts."""

from __future__ import annotations

import csv
import dataclasses
import hashlib
import io
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, get_args, get_type_hints

from dubbing.batch import storage
from dubbing.errors import BatchInvalid, OptionInvalid
from dubbing.media.containers import CONTAINERS
from dubbing.options import DubOptions, from_dict, to_dict

NEEDED = ("video", "audio", "output")
FILES = ("video", "audio", "persona", "style")  # inputs, relative to the folder of the jobs file
NOT_HERE = ("resume", "clean")  # options of a single run; a batch has its own resume
OPTIONS = {item.name for item in dataclasses.fields(DubOptions)} - {"style", "report", *NOT_HERE}
WORDS = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}


@dataclass(frozen=True)
class Job:
    """One dub of a batch.

    Attributes:
        video, audio, persona, style: local paths or URLs; see `dub run`.
        output, report: names below the batch's output folder, "/" between folders.
        options: everything else of a dub.
        line: where the job was read, for messages.
    """

    video: str
    audio: str
    output: str
    persona: str | None = None
    style: str | None = None
    report: str | None = None
    options: DubOptions = field(default_factory=DubOptions)
    line: int = 0

    def to_dict(self) -> dict[str, Any]:
        """JSON values; `from_dict` reads them."""
        values = {
            item.name: getattr(self, item.name)
            for item in dataclasses.fields(self)
            if item.name not in ("options", "line")
        }
        return values | {"options": to_dict(self.options)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Job:
        rest = dict(values)
        return cls(options=from_dict(DubOptions, rest.pop("options")), **rest)

    @property
    def digest(self) -> str:
        """16 hex digits that tell this job from any other; `overwrite` changes no result."""
        values = self.to_dict()
        for name in ("overwrite", *NOT_HERE):
            del values["options"][name]
        text = json.dumps(values, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    @property
    def inputs(self) -> list[str]:
        """Locations that are read."""
        return [place for name in FILES if (place := getattr(self, name))]


class Faults:
    """Collects what is wrong, so that all of it is told at once."""

    def __init__(self, source: str):
        self.source = source
        self.found: list[tuple[int, str]] = []

    def add(self, line: int, what: str) -> None:
        self.found.append((line, what))

    def check(self) -> None:
        """Raises:
        BatchInvalid: with every fault, if there is any.
        """
        if not self.found:
            return
        lines = [f"  line {n}: {what}" if n else f"  {what}" for n, what in sorted(self.found)]
        count = "1 fault" if len(lines) == 1 else f"{len(lines)} faults"
        raise BatchInvalid("\n".join([f"{count}, nothing was started", *lines]), path=self.source)


def read_jobs(location: str | Path, defaults: DubOptions | None = None) -> list[Job]:
    """Jobs of a file: CSV where its name ends in .csv, else JSON Lines.

    Args:
        location: path or URL. Relative inputs in it are relative to its folder.
        defaults: options of jobs that say nothing about them.

    Raises:
        InputNotFound, StorageFailed: the file can't be read.
        BatchInvalid: it has faults; each is told with its line.
    """
    location = str(location)
    faults = Faults(location)
    try:
        text = storage.read_bytes(location).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise BatchInvalid("the jobs file is not UTF-8 text", path=location) from error
    rows = _csv_rows if location.lower().endswith(".csv") else _json_rows
    base = storage.parent(location)
    jobs = []
    for line, values in rows(text, faults):
        job = make_job(values, line, base, defaults or DubOptions(), faults)
        if job is not None:
            jobs.append(job)
    if not jobs and not faults.found:
        faults.add(0, "no jobs in the file")
    check_names(jobs, faults)
    faults.check()
    return jobs


def make_job(
    values: Mapping[str, Any], line: int, base: str, defaults: DubOptions, faults: Faults
) -> Job | None:
    """A job of one row of the file; None where it has faults."""
    before = len(faults.found)
    own = {k: v for k, v in values.items() if k in OPTIONS}
    texts = {k: v for k, v in values.items() if k in (*FILES, "output", "report")}
    for name in sorted(set(values) - set(own) - set(texts)):
        known = ", ".join((*NEEDED, "persona", "style", "report", *sorted(OPTIONS)))
        faults.add(line, f"unknown field {name!r}; known are {known}")
    for name in NEEDED:
        if texts.get(name) in (None, ""):
            faults.add(line, f"{name} is missing")
    for name, value in texts.items():
        if value is not None and not isinstance(value, str):
            faults.add(line, f"{name} is {value!r}; it has to be text")
    if len(faults.found) > before:
        return None
    given: dict[str, str | None] = {k: v or None for k, v in texts.items()}
    for name in FILES:
        if place := given.get(name):
            given[name] = storage.resolve(place, base)
            _check(faults, line, storage.check_protocol, given[name])
    _check_name(faults, line, "output", str(given["output"]), tuple(CONTAINERS))
    if given.get("report"):
        _check_name(faults, line, "report", str(given["report"]), (".json",))
    for name, value in own.items():
        _check(faults, line, from_dict, DubOptions, {name: value})
    if len(faults.found) > before:
        return None
    options = dataclasses.replace(defaults, **own)
    if defaults.style is not None:
        given.setdefault("style", storage.resolve(str(defaults.style), "."))
    options = dataclasses.replace(options, style=None, report=None)
    return Job(**given, options=options, line=line)  # type: ignore[arg-type]


def check_names(jobs: Iterable[Job], faults: Faults) -> None:
    """No two files of a batch may have one name."""
    seen: dict[str, int] = {}
    for job in jobs:
        for name in filter(None, (job.output, job.report)):
            place = str(PurePosixPath(name))
            if place in seen:
                faults.add(job.line, f"{name} is also the name in line {seen[place]}")
            seen.setdefault(place, job.line)


def _check(faults: Faults, line: int, check: Any, *values: Any) -> None:
    try:
        check(*values)
    except OptionInvalid as error:
        faults.add(line, str(error))


def _check_name(faults: Faults, line: int, what: str, name: str, endings: tuple[str, ...]) -> None:
    place = PurePosixPath(name)
    if storage.is_url(name) or place.is_absolute() or ".." in place.parts:
        faults.add(line, f"{what} is {name!r}; it has to be a name below the output folder")
    elif any(part.startswith(".") for part in place.parts):
        faults.add(line, f"{what} is {name!r}; hidden names belong to the batch itself")
    if place.suffix.lower() not in endings:
        faults.add(line, f"{what} is {name!r}; it has to end in {', '.join(sorted(endings))}")


def _json_rows(text: str, faults: Faults) -> Iterator[tuple[int, dict[str, Any]]]:
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            values = json.loads(line)
        except ValueError as error:
            faults.add(number, f"not JSON: {error}")
            continue
        if isinstance(values, dict):
            yield number, values
        else:
            faults.add(number, "not a JSON object")


def _csv_rows(text: str, faults: Faults) -> Iterator[tuple[int, dict[str, Any]]]:
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    names: list[str] | None = None
    try:
        for cells in reader:
            line = reader.line_num
            if not cells:
                continue
            if names is None:
                names = [name.strip() for name in cells]
                if missing := [name for name in NEEDED if name not in names]:
                    faults.add(line, f"no column {', '.join(missing)}")
                    return
            elif len(cells) != len(names):
                faults.add(line, f"{len(cells)} cells, the header has {len(names)}")
            else:
                yield line, _typed(dict(zip(names, cells, strict=True)), line, faults)
    except csv.Error as error:
        faults.add(reader.line_num, f"not CSV: {error}")


def _typed(cells: dict[str, str], line: int, faults: Faults) -> dict[str, Any]:
    """Cells as values of their option's type; empty ones are left out."""
    hints = get_type_hints(DubOptions)
    values: dict[str, Any] = {}
    for name, cell in cells.items():
        if cell == "":
            continue
        hint = hints.get(name, str) if name in OPTIONS else str
        kinds = get_args(hint) or (hint,)
        try:
            if bool in kinds:
                values[name] = WORDS[cell.strip().lower()]
            elif int in kinds:
                values[name] = int(cell)
            elif float in kinds:
                values[name] = float(cell)
            else:
                values[name] = cell
        except (KeyError, ValueError):
            wanted = "true or false" if bool in kinds else "a number"
            faults.add(line, f"{name} is {cell!r}; it has to be {wanted}")
    return values
