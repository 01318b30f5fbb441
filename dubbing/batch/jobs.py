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
from dubbing.speaker_choice import mapped

NEEDED = ("video", "output")
MAP = "map"  # in place of audio, where several speakers are dubbed
FILES = ("video", "audio", "persona", "style", "mix")  # relative to the folder of the jobs file
NOT_HERE = ("resume", "clean")  # options of a single run; a batch has its own resume
OPTIONS = {item.name for item in dataclasses.fields(DubOptions)} - {"style", "report", *NOT_HERE}
WORDS = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}


@dataclass(frozen=True)
class Job:
    """One dub of a batch.

    Attributes:
        video, audio, persona, style, mix: local paths or URLs; see `dub run`. `audio` is None
            where several speakers are dubbed.
        speeches: {speaker: speech} of these, as `dub run --map` has them; the field "map".
        output, report: names below the batch's output folder, "/" between folders.
        options: everything else of a dub.
        line: where the job was read, for messages.
    """

    video: str
    audio: str | None
    output: str
    persona: str | None = None
    style: str | None = None
    mix: str | None = None
    speeches: dict[str, str] = field(default_factory=dict)
    report: str | None = None
    options: DubOptions = field(default_factory=DubOptions)
    line: int = 0

    def to_dict(self) -> dict[str, Any]:
        """JSON values; `from_dict` reads them."""
        values = {
            item.name: getattr(self, item.name)
            for item in dataclasses.fields(self)
            if item.name not in ("options", "line", "mix", "speeches")
        }
        # left out where a job has none, so that journals of older versions know their jobs
        values |= {"mix": self.mix} if self.mix else {}
        values |= {"speeches": dict(self.speeches)} if self.speeches else {}
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
        named = [place for name in FILES if (place := getattr(self, name))]
        return named + list(self.speeches.values())

    @property
    def sound(self) -> str:
        """What is heard in the result, as a person would name it."""
        return self.audio or self.mix or " + ".join(self.speeches.values())


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
    for name in sorted(set(values) - set(own) - set(texts) - {MAP}):
        known = ", ".join((*NEEDED, *FILES[1:], MAP, "report", *sorted(OPTIONS)))
        faults.add(line, f"unknown field {name!r}; known are {known}")
    for name in NEEDED:
        if texts.get(name) in (None, ""):
            faults.add(line, f"{name} is missing")
    if not texts.get("audio") and values.get(MAP) in (None, ""):
        faults.add(line, f"audio (or {MAP}, for several speakers) is missing")
    for name, value in texts.items():
        if value is not None and not isinstance(value, str):
            faults.add(line, f"{name} is {value!r}; it has to be text")
    speeches = _speeches(values.get(MAP), line, faults)
    if len(faults.found) > before:
        return None
    given: dict[str, str | None] = {k: v or None for k, v in texts.items()}
    _check_who(faults, line, given, speeches, own.get("adapt", defaults.adapt))
    for name in FILES:
        if place := given.get(name):
            given[name] = storage.resolve(place, base)
            _check(faults, line, storage.check_protocol, given[name])
    speeches = {who: storage.resolve(place, base) for who, place in speeches.items()}
    for place in speeches.values():
        _check(faults, line, storage.check_protocol, place)
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
    given.setdefault("audio", None)
    return Job(**given, speeches=speeches, options=options, line=line)  # type: ignore[arg-type]


def _speeches(value: Any, line: int, faults: Faults) -> dict[str, str]:
    """{speaker: speech} of the field "map": an object, a list of "SPEAKER=AUDIO", or these in one
    text with ";" between them."""
    if value is None or value == "":
        return {}
    items = value
    if isinstance(value, str):
        items = [part.strip() for part in value.split(";") if part.strip()]
    elif isinstance(value, dict):
        items = [f"{who}={place}" for who, place in value.items() if isinstance(place, str)]
        items = items if len(items) == len(value) else None
    if not isinstance(items, list) or not items or not all(isinstance(i, str) for i in items):
        faults.add(
            line, f"{MAP} is {value!r}; it has to say SPEAKER=AUDIO for one or several speakers"
        )
        return {}
    try:
        return mapped(items)
    except OptionInvalid as error:
        faults.add(line, str(error))
        return {}


def _check_who(
    faults: Faults, line: int, given: Mapping[str, str | None], speeches: object, adapt: object
) -> None:
    """A job is for one speaker or for several."""
    if speeches and given.get("audio"):
        faults.add(line, f"audio is for one speaker, {MAP} for several; give one of them")
    if given.get("mix") and not speeches:
        faults.add(line, f"mix is for several speakers, with {MAP}")
    if speeches and given.get("persona"):
        faults.add(line, f"persona is for one speaker; it can't be used with {MAP}")
    if speeches and adapt is True:
        faults.add(line, f"adapt is for one speaker; it can't be used with {MAP}")


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
                missing = [name for name in NEEDED if name not in names]
                missing += [] if {"audio", MAP} & set(names) else [f"audio or {MAP}"]
                if missing:
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
