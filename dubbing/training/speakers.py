"""Who speaks in which prepared clip."""

from __future__ import annotations

import csv
import random
from collections.abc import Iterable
from pathlib import Path

from dubbing.errors import InputNotFound, OptionInvalid


def load_speakers(table: Path | None, names: Iterable[str]) -> dict[str, str]:
    """Speaker of every clip; without a table, or where it lacks a clip, the clip's own name.

    Args:
        table: CSV with the columns "file" (its stem is the clip's name) and "speaker".

    Raises:
        InputNotFound: no such file.
        OptionInvalid: one of the columns is missing.
    """
    speakers = {name: name for name in names}
    if table is None:
        return speakers
    if not table.is_file():
        raise InputNotFound("no such table of speakers", path=table)
    with table.open(newline="") as file:
        rows = csv.DictReader(file)
        if not {"file", "speaker"} <= set(rows.fieldnames or ()):
            raise OptionInvalid("a table of speakers needs the columns file and speaker",
                                path=table)  # fmt: skip
        told = {Path(row["file"]).stem: row["speaker"] for row in rows}
    return {name: told.get(name) or name for name in speakers}


def held_back(speakers: dict[str, str], share: float, seed: int) -> set[str]:
    """Clips of about `share` of the speakers, drawn at random: nobody is on both sides."""
    people = sorted(set(speakers.values()))
    count = round(len(people) * share)
    chosen = set(random.Random(seed).sample(people, count))
    return {name for name, person in speakers.items() if person in chosen}
