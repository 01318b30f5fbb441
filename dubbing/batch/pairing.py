"""Jobs from two folders: every video with its speech by name, or with every speech."""

from __future__ import annotations

import dataclasses
from pathlib import Path, PurePosixPath

from dubbing.batch import storage
from dubbing.batch.jobs import Faults, Job, check_names
from dubbing.errors import OptionInvalid
from dubbing.media.containers import CONTAINERS
from dubbing.options import DubOptions

PAIRINGS = ("stem", "product")
VIDEO = {".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".mxf", ".ts"}
SOUND = {".wav", ".flac", ".mp3", ".m4a", ".aac", ".ogg", ".opus", ".mka", ".aiff", ".aif"}


def pair_folders(
    videos: str | Path, sounds: str | Path, pairing: str, defaults: DubOptions | None = None
) -> list[Job]:
    """Jobs of a folder of videos and a folder of speech, in the order of names.

    "stem" pairs lesson.mp4 with lesson.wav, or with lesson.de.wav, lesson.fr.wav and so on, whose
    results are called lesson.mp4, lesson.de.mp4, lesson.fr.mp4. "product" pairs every video with
    every speech: lesson-de.mp4. Results keep the video's container where one can be written.

    Raises:
        InputNotFound: no such folder.
        BatchInvalid: a file without a partner, or two results of one name; each is told.
    """
    if pairing not in PAIRINGS:
        raise OptionInvalid(f"pair is {pairing!r}, which is none of {', '.join(PAIRINGS)}")
    videos, sounds = (storage.resolve(str(folder), ".") for folder in (videos, sounds))
    films = _with_suffix(videos, VIDEO)
    same = videos.rstrip("/") == sounds.rstrip("/")
    voices = _with_suffix(sounds, SOUND if same else SOUND | VIDEO)
    faults = Faults(f"{videos} and {sounds}")
    if not films:
        faults.add(0, f"{videos}: no video ({', '.join(sorted(VIDEO))})")
    if not voices:
        faults.add(0, f"{sounds}: no speech ({', '.join(sorted(SOUND))})")
    faults.check()
    if pairing == "product":
        pairs = [(f, v, f"{_stem(f)}-{_stem(v)}") for f in films for v in voices]
    else:
        pairs = _by_stem(films, voices, faults)
    options = dataclasses.replace(defaults or DubOptions(), style=None, report=None)
    style = storage.resolve(str(defaults.style), ".") if defaults and defaults.style else None
    jobs = [
        Job(film, voice, name + _suffix(film), style=style, options=options, line=number)
        for number, (film, voice, name) in enumerate(pairs, 1)
    ]
    check_names(jobs, faults)
    faults.check()
    return jobs


def _by_stem(films: list[str], voices: list[str], faults: Faults) -> list[tuple[str, str, str]]:
    pairs = []
    paired: set[str] = set()
    for voice in voices:
        name = _stem(voice)
        partners = [f for f in films if name == _stem(f) or name.startswith(f"{_stem(f)}.")]
        if not partners:
            faults.add(0, f"{voice}: no video of this name")
            continue
        film = max(partners, key=lambda f: len(_stem(f)))
        paired.add(film)
        pairs.append((film, voice, name))
    for film in films:
        if film not in paired:
            faults.add(0, f"{film}: no speech of this name")
    return sorted(pairs)


def _with_suffix(folder: str, suffixes: set[str]) -> list[str]:
    return [p for p in storage.list_files(folder) if PurePosixPath(p).suffix.lower() in suffixes]


def _stem(location: str) -> str:
    return PurePosixPath(storage.base_name(location)).stem


def _suffix(film: str) -> str:
    suffix = PurePosixPath(film).suffix.lower()
    return suffix if suffix in CONTAINERS else ".mp4"
