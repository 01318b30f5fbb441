"""Runs systems over a protocol, one case at a time, and keeps what is finished."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dubbing import sync
from dubbing.errors import Cancelled, DubbingError, InputNotFound, OptionInvalid
from dubbing.evaluation.case_audio import CaseSpeech, case_speech, write_wav
from dubbing.evaluation.case_figures import CaseJudge, Judged, Subject
from dubbing.evaluation.clips import Clip
from dubbing.evaluation.evaluation_options import EvaluateOptions
from dubbing.evaluation.protocol_file import Case, EvaluationProtocol
from dubbing.evaluation.studio import Studio, makers_digest
from dubbing.evaluation.systems import Making, System, Work
from dubbing.evaluation.tables import save_json
from dubbing.evaluation.video_judges import VideoJudges

Row = dict[str, Any]

TRUTH = "truth"


@dataclass(frozen=True)
class TruthSystem:
    """The real video: what a perfect system would give. Cases without a truth have no such row."""

    protocol: EvaluationProtocol
    name: str = TRUTH

    def key(self, case: Case) -> str:
        return "truth"

    def make(self, work: Work) -> Making:
        if work.case.truth is None:
            raise InputNotFound(f"case {work.case.id} has no truth")
        return Making(self.protocol.path(work.case.truth))


@dataclass
class Evaluation:
    """A protocol at work.

    Attributes:
        studio: prepares the real videos; judges: look at the results.
        note: is told of every step.
    """

    protocol: EvaluationProtocol
    studio: Studio
    judges: VideoJudges
    options: EvaluateOptions
    note: Callable[[str], None] = field(default=lambda text: None)

    @property
    def folder(self) -> Path:
        return self.options.output

    def cases(self) -> list[Case]:
        """The cases asked for.

        Raises:
            OptionInvalid: none is left.
        """
        names = self.options.names
        found = [c for c in self.protocol.cases if c.protocol in self.options.wanted]
        if names is not None:
            found = [c for c in found if {c.id, Path(c.source).stem} & names]
        if not found:
            raise OptionInvalid(
                "no case of the protocol is left", hint="see --protocols and --only"
            )
        return found

    def run(self, systems: Sequence[System]) -> list[Row]:
        """One row per case and system; what fails is a row too.

        Raises:
            InputNotFound, OptionInvalid: the protocol's files are not there, or are others.
        """
        cases = self.cases()
        self.protocol.check(cases)
        names = [system.name for system in systems]
        if twice := sorted({n for n in names if names.count(n) > 1}):
            raise OptionInvalid(f"more than one system is called {', '.join(twice)}")
        rows = []
        for number, case in enumerate(cases):
            shown = [s for s in systems if s.name != TRUTH or case.truth is not None]
            job = _CaseJob(self, case)
            for system in shown:
                self.note(f"{number + 1}/{len(cases)} {case.id}: {system.name}")
                rows.append(job.row(system))
                if error := rows[-1].get("error"):
                    self.note(f"{case.id}: {system.name} failed: {error}")
        return rows

    def video(self, system: str, case: str) -> Path:
        """Where a system's result for a case lies."""
        return self.folder / "videos" / slug(system) / f"{case}.mp4"

    def features(self, system: str, case: str) -> Path:
        """Where the features of its crops lie."""
        return self.folder / "cases" / slug(system) / f"{case}.npz"


class _CaseJob:
    """One case for every system; the real videos are loaded when first needed."""

    def __init__(self, evaluation: Evaluation, case: Case):
        self._at, self._case = evaluation, case
        self._judge: CaseJudge | None = None
        self._speech: CaseSpeech | None = None

    def row(self, system: System) -> Row:
        """The row of a system, from an earlier run where nothing has changed."""
        kept = self._at.folder / "cases" / slug(system.name) / f"{self._case.id}.json"
        key = self._key(system)
        if kept.is_file():
            known: Row = json.loads(kept.read_text())
            if known["key"] == key:
                row: Row = known["row"]
                return row
        row = self._new(system)
        kept.parent.mkdir(parents=True, exist_ok=True)
        save_json(kept, {"key": key, "row": row})
        return row

    def _key(self, system: System) -> str:
        """Changes with everything that the row depends on."""
        at = self._at
        facts = [
            asdict(self._case), system.key(self._case), at.judges.versions, at.options.frames,
            code_digest(),
        ]  # fmt: skip
        return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()

    def _new(self, system: System) -> Row:
        case = self._case
        row: Row = {
            "case": case.id, "protocol": case.protocol, "system": system.name,
            "speaker": case.speaker, "success": 0.0,
        }  # fmt: skip
        judge = self._case_judge()
        try:
            making = self._made(system)
            judged = judge.judge(making.path, real=system.name == TRUTH)
        except Cancelled:
            raise
        except DubbingError as error:
            return row | {"error": f"{type(error).__name__}: {error}"}
        row |= {"success": 1.0, "video": str(making.path), **judged.row}
        if making.seconds is not None:
            row["speed"] = making.seconds / judged.row["seconds"]
        row["memory"] = making.peak_mib
        if judged.notes:
            row["notes"] = judged.notes
        self._keep(system, judged)
        row["curve"] = _curve(judged)
        if judge.truth is not None:
            row["true curve"] = _thinned(judge.truth.motion.curve)
        return row

    def _keep(self, system: System, judged: Judged) -> None:
        if judged.made is not None and judged.real is not None:
            path = self._at.features(system.name, self._case.id)
            path.parent.mkdir(parents=True, exist_ok=True)
            np.savez_compressed(path, made=judged.made, real=judged.real)

    def _made(self, system: System) -> Making:
        """The video, from an earlier run where the system would make the same."""
        at, case = self._at, self._case
        output = at.video(system.name, case.id)
        facts = output.with_suffix(".json")
        key = f"{system.key(case)} {sorted(case.hashes.items())} {case.seconds}"
        if facts.is_file():
            known = json.loads(facts.read_text())
            path = Path(known["path"])
            if known["key"] == key and path.is_file():
                return Making(path, known["seconds"], known["peak_mib"])
        output.parent.mkdir(parents=True, exist_ok=True)
        making = system.make(Work(case, at.protocol.path(case.source), self._sound(), output))
        save_json(
            facts,
            {
                "key": key, "path": str(making.path), "seconds": making.seconds,
                "peak_mib": making.peak_mib,
            },
        )  # fmt: skip
        return making

    def _sound(self) -> Path:
        """The speech as a file, the same for every system."""
        path = self._at.folder / "sounds" / f"{self._case.id}.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        write_wav(path, self._case_speech().samples)
        return path

    def _case_speech(self) -> CaseSpeech:
        if self._speech is None:
            self._speech = case_speech(self._at.protocol, self._case)
        return self._speech

    def _case_judge(self) -> CaseJudge:
        if self._judge is None:
            case, at = self._case, self._at
            source = self._subject(case.source, case.speaker)
            truth = None if case.truth is None else self._subject(case.truth, case.voice)
            style = self._subject(self._other_clip(), case.speaker)
            self._judge = CaseJudge(
                case, source, truth, style, self._case_speech(), at.judges, at.options.frames
            )
        return self._judge

    def _other_clip(self) -> str:
        """Another clip of the source's speaker in the protocol, or the source itself."""
        known = [c.source for c in self._at.protocol.cases if c.speaker == self._case.speaker]
        return next((name for name in known if name != self._case.source), self._case.source)

    def _subject(self, name: str, speaker: str) -> Subject:
        return Subject(self._at.studio, Clip(self._at.protocol.path(name), speaker))


def _curve(judged: Judged) -> dict[str, list[float]]:
    return _thinned(judged.curve)


def _thinned(curve: Any) -> dict[str, list[float]]:
    """Lip opening over time, rounded, for the page."""
    return {
        "times": [round(float(t), 3) for t in curve.times],
        "opening": [round(float(v), 4) for v in curve.opening],
    }


def load_features(paths: Sequence[Path]) -> tuple[NDArray[np.float64], NDArray[np.float64]] | None:
    """Features of many cases together: of the results, and of the real crops."""
    made, real = [], []
    for path in paths:
        if path.is_file():
            with np.load(path) as file:
                made.append(file["made"])
                real.append(file["real"])
    return (np.concatenate(made), np.concatenate(real)) if made else None


def slug(name: str) -> str:
    """A system's name as a folder's."""
    return "".join(c if c.isalnum() or c in "-_." else "-" for c in name)


@cache
def code_digest() -> str:
    """Hash of the code that measures: figures of other code are not taken over."""
    digest = hashlib.sha256(makers_digest().encode())
    for file in [*sorted(Path(__file__).parent.glob("*.py")), Path(sync.__file__)]:
        digest.update(file.read_bytes())
    return digest.hexdigest()[:16]
