"""What a job is: everything that decides the bytes of its result."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

from dubbing.errors import UnfinishedJob
from dubbing.job.inputs import InputFile
from dubbing.options import DubOptions, from_dict

SCHEMA = 1
"""Of the state folder; another one is not understood."""

_NO_PART_IN_THE_RESULT = (
    "overwrite", "report", "resume", "clean", "style", "max_pixels", "max_duration"
)  # fmt: skip
"""Options that another run of the same job may have otherwise; `style` counts as an input file.
Inputs that the limits of this run refuse are refused before anything is compared."""


def library_versions() -> dict[str, str]:
    """Versions of the libraries that decode, render and encode."""
    return {name: version(name) for name in ("torch", "av", "numba")}


@dataclass(frozen=True)
class JobDescription:
    """Two jobs with equal descriptions have equal results on one machine.

    Attributes:
        inputs: the files that are read.
        options: values of `DubOptions`.
        persona: SHA-256 of the persona that was given, "" where the video itself is prepared.
        weights: {network: SHA-256 of its file}.
        device: "cpu" or "cuda".
        engine, libraries: versions.
    """

    inputs: tuple[InputFile, ...]
    options: dict[str, Any]
    persona: str
    weights: dict[str, str]
    device: str
    engine: str
    libraries: dict[str, str]
    schema: int = SCHEMA

    @property
    def dub_options(self) -> DubOptions:
        return from_dict(DubOptions, self.options)

    def input(self, role: str) -> InputFile | None:
        """The file with that role, None where the job has none."""
        return next((item for item in self.inputs if item.role == role), None)

    def check_inputs(self, whole: bool = False) -> None:
        """Make sure that every input is as it was (see `InputFile.check`).

        Raises:
            InputChanged: one is not.
        """
        for item in self.inputs:
            item.check(whole)

    def differences(self, now: JobDescription) -> list[str]:
        """What `now` has otherwise, one sentence each; empty where the job is the same."""
        found = []
        for role in sorted({item.role for item in (*self.inputs, *now.inputs)}):
            old, new = self.input(role), now.input(role)
            if old is None or new is None:
                found.append(f"{role} file: {'none' if old is None else old.path} before, "
                             f"{'none' if new is None else new.path} now")  # fmt: skip
            elif old.sha256 != new.sha256:
                found.append(f"{role}: {new.path} has another content")
        for name in sorted(set(self.options) | set(now.options)):
            if name not in _NO_PART_IN_THE_RESULT:
                old_value, new_value = self.options.get(name), now.options.get(name)
                found += _changed(f"--{name.replace('_', '-')}", old_value, new_value)
        if self.persona != now.persona:
            found.append("--persona: another one")
        for name in sorted(set(self.weights) | set(now.weights)):
            if self.weights.get(name) != now.weights.get(name):
                found.append(f"--checkpoint: {name} has other weights")
        found += _changed("--device", self.device, now.device)
        found += _changed("engine", self.engine, now.engine)
        for name in sorted(set(self.libraries) | set(now.libraries)):
            found += _changed(name, self.libraries.get(name), now.libraries.get(name))
        return found

    def to_json(self) -> str:
        return json.dumps(dataclasses.asdict(self), indent=2, ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str, path: object) -> JobDescription:
        """Read `to_json`'s text.

        Raises:
            UnfinishedJob: of another schema, or not a description.
        """
        try:
            values = json.loads(text)
            if values["schema"] != SCHEMA:
                raise UnfinishedJob(
                    f"the state has schema {values['schema']}, this engine knows {SCHEMA}",
                    path=str(path),
                    hint="remove it with --clean",
                )
            inputs = tuple(InputFile(**item) for item in values.pop("inputs"))
            return cls(inputs=inputs, **values)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise UnfinishedJob(
                "the state can't be read", path=str(path), hint="remove it with --clean"
            ) from error


def _changed(name: str, old: object, new: object) -> list[str]:
    return [] if old == new else [f"{name}: {old} before, {new} now"]
