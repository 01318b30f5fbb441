"""What is done with a damaged file: the engine's own entry points, in a process of their own."""

from __future__ import annotations

import resource
from collections.abc import Callable
from pathlib import Path
from typing import Any

from dubbing.errors import DubbingError
from dubbing.evaluation.cases.chain import run_chain
from dubbing.media.audio import audio_duration, check_speech, load_speech
from dubbing.media.limits import Limits
from dubbing.media.probe import require_audio, require_video
from dubbing.media.reader import VideoReader

MEMORY = 6 * 2**30
"""Bytes of address space of a worker: a header that asks for more must not get it."""

LIMITS = Limits(pixels=2_000_000, seconds=60)
FRAMES = 40
"""Most frames that are looked at in each direction."""


def limit_memory() -> None:
    """Hold this process to `MEMORY`."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))


def read_picture(path: Path) -> None:
    """Decode a video forwards and backwards, as pictures."""
    require_video(path, LIMITS)
    with VideoReader(path, threads=1, limits=LIMITS) as reader:
        count = reader.index.count
        for frame in reader.read_range(0, min(count, FRAMES)):
            frame.rgb()
        for frame in reader.iter_reverse(max(0, count - FRAMES), count, 8):
            frame.rgb_region(0, 0, min(8, frame.size[0]), min(8, frame.size[1]))


def read_sound(path: Path) -> None:
    """Decode speech as the engine does."""
    require_audio(path, LIMITS)
    check_speech(load_speech(path, LIMITS), path)
    audio_duration(path, LIMITS)


def read_media(path: Path, folder: Path, good_sound: Path, good_video: Path) -> list[str]:
    """Read a damaged file as video, as sound, and send it through the media chain as either."""
    outcomes = [_outcome(read_picture, path), _outcome(read_sound, path)]
    if outcomes[0] == "read":
        outcomes.append(_chained(path, good_sound, folder))
    if outcomes[1] == "read":
        outcomes.append(_chained(good_video, path, folder))
    return outcomes


def _chained(video: Path, sound: Path, folder: Path) -> str:
    output = folder / "result.mp4"
    output.unlink(missing_ok=True)
    before = set(folder.iterdir())
    outcome = _outcome(
        lambda: run_chain(video, sound, output, codec="libx264", crf=30, length="shortest")
    )
    left = set(folder.iterdir()) - before - ({output} if outcome == "read" else set())
    return f"left behind {sorted(p.name for p in left)}" if left else outcome


def read_weights(path: Path) -> list[str]:
    """Load a persona, or the checkpoint part that the file's name says."""
    from dubbing.evaluation.cases.weight_files import LOADERS
    from dubbing.persona import Persona

    kind = path.stem.split("-")[0]
    return [_outcome(LOADERS.get(kind, Persona.load), path)]


def _outcome(action: Callable[..., Any], *arguments: Any) -> str:
    """ "read", or the name of the engine's own error; any other exception gets through."""
    try:
        action(*arguments)
    except DubbingError as error:
        return type(error).__name__
    return "read"


class DubTarget:
    """A whole dub with a damaged video, speech or persona; loads the engine when first used."""

    def __init__(self) -> None:
        self._dubber: Any = None

    def __call__(self, video: Path, speech: Path, persona: Path | None, folder: Path) -> list[str]:
        from dubbing.dubber import Dubber
        from dubbing.options import DubOptions
        from dubbing.persona import Persona

        if self._dubber is None:
            self._dubber = Dubber.from_pretrained(device="cpu")
        output = folder / "result.mp4"
        output.unlink(missing_ok=True)
        before = set(folder.iterdir())
        options = DubOptions(
            length="shortest", max_pixels=LIMITS.pixels, max_duration=LIMITS.seconds
        )

        def dub() -> None:
            speaker = Persona.load(persona) if persona else None
            self._dubber.dub(video, speech, output, options, speaker)

        outcome = _outcome(dub)
        left = set(folder.iterdir()) - before - ({output} if outcome == "read" else set())
        return [f"left behind {sorted(p.name for p in left)}" if left else outcome]
