"""What is evaluated: a list of cases in a file, with the hash of everything they name."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from itertools import pairwise
from pathlib import Path
from typing import Any

from dubbing.checksums import file_sha256
from dubbing.errors import InputNotFound, OptionInvalid
from dubbing.evaluation.clips import Clip, other_speaker
from dubbing.evaluation.protocol_names import (
    CROSS,
    LONG,
    PROTOCOLS,
    SAME,
    SELF,
    SILENCE,
    WITH_TRUTH,
)
from dubbing.evaluation.tables import save_json

FORMAT = 1
LONG_S = 60.0  # seconds of speech of a long case
LONG_CASES = 2


@dataclass(frozen=True)
class Case:
    """One dub to make and judge.

    Attributes:
        id: name of the case and of its result; protocol: one of PROTOCOLS.
        source: video to dub; audio: file with the speech; truth: video that shows how the lips
            really moved with that speech, None where there is none. Relative to the root.
        hashes: {file: SHA-256} of these.
        speaker: who is in the source; voice: who speaks.
        seconds: the speech is repeated to that length; None leaves it.
    """

    id: str
    protocol: str
    source: str
    audio: str
    truth: str | None
    hashes: dict[str, str]
    speaker: str
    voice: str
    seconds: float | None = None

    @property
    def files(self) -> list[str]:
        """Every file of the case, once."""
        named = [self.source, self.audio, *([self.truth] if self.truth else [])]
        return list(dict.fromkeys(named))


@dataclass(frozen=True)
class EvaluationProtocol:
    """A named list of cases; `root` is the folder that their files are relative to."""

    name: str
    root: Path
    cases: list[Case]

    def path(self, name: str) -> Path:
        """A file of a case."""
        return self.root / name

    def digest(self) -> str:
        """Identity of the list: 16 hex digits."""
        text = json.dumps([asdict(c) for c in self.cases], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def check(self, cases: Sequence[Case] | None = None) -> None:
        """Make sure that the files are those the protocol was written for.

        Raises:
            InputNotFound: a file is missing.
            OptionInvalid: a file's content is another.
        """
        known: dict[str, str] = {}
        for case in self.cases if cases is None else cases:
            for name in case.files:
                if name not in known:
                    known[name] = file_hash(self.path(name))
                if known[name] != case.hashes.get(name):
                    raise OptionInvalid(
                        f"{self.path(name)}: its content is not what the protocol was written for",
                        hint="figures of other files can't be compared; write a new protocol",
                    )

    def save(self, path: Path) -> None:
        """Write the file; names stay relative to `root`."""
        values = {
            "format": FORMAT,
            "name": self.name,
            "root": str(self.root),
            "cases": [asdict(c) for c in self.cases],
        }
        save_json(path, values)


def load_protocol(path: Path, root: Path | None = None) -> EvaluationProtocol:
    """Read a protocol file.

    Args:
        root: folder of the clips, where it is not the one the protocol was written with. A
            relative one in the file counts from the file's own folder.

    Raises:
        InputNotFound: no such file.
        OptionInvalid: not a protocol.
    """
    if not path.is_file():
        raise InputNotFound("no such protocol file", path=path, hint="'dub protocol' writes one")
    try:
        values = json.loads(path.read_text())
        cases = [_case(entry) for entry in values["cases"]]
        folder = root or path.parent / values["root"]
        if values["format"] != FORMAT:
            raise ValueError(f"format {values['format']}")
    except (ValueError, KeyError, TypeError) as error:
        raise OptionInvalid(
            f"{path}: not a protocol file: {error}", hint="'dub protocol' writes one"
        ) from error
    return EvaluationProtocol(str(values["name"]), folder, cases)


def _case(entry: dict[str, Any]) -> Case:
    known = {f.name for f in fields(Case)}
    if not set(entry) <= known:
        raise ValueError(f"unknown {', '.join(sorted(set(entry) - known))}")
    case = Case(**entry)
    if case.protocol not in PROTOCOLS:
        raise ValueError(f"case {case.id} is of protocol {case.protocol!r}")
    return case


def make_protocol(clips: Sequence[Clip], root: Path, name: str) -> EvaluationProtocol:
    """Every protocol over some clips.

    Self-dub: each clip with its own sound. Same speaker: each clip with the sound of the speaker's
    next clip. Cross-speaker: each clip with the sound of the next clip of another speaker. Silence:
    as cross-speaker, two seconds of digital silence put into the speech and after it. Long: two
    clips with the sound of another speaker, repeated to a minute.

    Raises:
        OptionInvalid: the clips are of one speaker.
    """
    hashes = {clip: file_hash(clip.path) for clip in clips}
    cases: list[Case] = []

    def add(kind: str, clip: Clip, speech: Clip, seconds: float | None = None) -> None:
        source, audio = (str(c.path.relative_to(root)) for c in (clip, speech))
        truth = audio if kind in WITH_TRUTH else None
        cases.append(
            Case(
                f"{kind}-{clip.path.stem}", kind, source, audio, truth,
                {source: hashes[clip], audio: hashes[speech]}, clip.speaker, speech.speaker,
                seconds,
            )
        )  # fmt: skip

    for clip in clips:
        add(SELF, clip, clip)
    for clip, speech in _next_of_speaker(clips):
        add(SAME, clip, speech)
    for clip in clips:
        add(CROSS, clip, other_speaker(clips, clip))
    for clip in clips:
        add(SILENCE, clip, other_speaker(clips, clip))
    for clip in clips[:: max(len(clips) // LONG_CASES, 1)][:LONG_CASES]:
        add(LONG, clip, other_speaker(clips, clip), LONG_S)
    return EvaluationProtocol(name, root, cases)


def _next_of_speaker(clips: Sequence[Clip]) -> list[tuple[Clip, Clip]]:
    groups: dict[str, list[Clip]] = {}
    for clip in clips:
        groups.setdefault(clip.speaker, []).append(clip)
    found = []
    for group in groups.values():
        if len(group) > 1:
            found += list(pairwise([*group, group[0]]))
    return found


def file_hash(path: Path) -> str:
    """SHA-256 of a file.

    Raises:
        InputNotFound: no such file.
    """
    if not path.is_file():
        raise InputNotFound("no such file", path=path)
    return file_sha256(path)
