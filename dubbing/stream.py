"""Frames through the renderer in order: each is dubbed or passes through unchanged."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from dubbing.analysis import SpeakerTrack, easing
from dubbing.errors import OptionInvalid
from dubbing.face.faults import frame_faults
from dubbing.face.follower import FaceFollower
from dubbing.face.limits import NO_FACE
from dubbing.geometry.fit import fit_track
from dubbing.motion import RATE, Motion, merged_vertices
from dubbing.persona import Persona
from dubbing.render.mouths import Moments
from dubbing.render.pictures import FacePicture
from dubbing.render.references import N_FACE
from dubbing.render.scene import face_windows
from dubbing.render.session import RenderSession
from dubbing.render.window import window_rect
from dubbing.shot_sessions import ShotSessions
from dubbing.tail import AFTER_SPEECH

AHEAD = N_FACE // 2  # frames decoded ahead: the face references are centred on the frame
EARLY = 1  # further ones, which are registered beside the drawing of the frame
CHUNK = 50  # frames of an in-memory stream that are fitted together


class Picture(Protocol):
    """A frame in upright coordinates, decoded from a file or held in memory."""

    @property
    def index(self) -> int: ...

    @property
    def size(self) -> tuple[int, int]: ...

    @property
    def frame(self) -> Any: ...

    def rgb_region(self, x: int, y: int, width: int, height: int) -> NDArray[np.uint8]: ...

    def paste(
        self, rgb: NDArray[np.float32], alpha: NDArray[np.float32], x: int, y: int
    ) -> Any: ...


@dataclass(frozen=True)
class StreamFrame:
    """A source frame at its place in the result: `time` in seconds of the new speech, `pts` and
    `duration` (seconds) for the encoder, `share` of the dub (see `dubbing.tail`)."""

    number: int
    source: Any
    time: float
    pts: int = 0
    duration: Fraction = Fraction(0)
    share: float = 1.0


@dataclass(frozen=True)
class DoneFrame:
    """A finished frame: `frame` is what the picture's `paste` gave, or the source's own picture;
    `reason` says why it passed through, "" where it was dubbed."""

    frame: Any
    source: StreamFrame
    reason: str


class DubbedFrames:
    """Renders the frames of one plan with a sliding window of face references.

    Args:
        session: renderer of the speaker.
        lower: [L] the vertices that `motion` displaces, on the CPU.
        motion: generated lower-face motion over the time of the result.
        speaker: the speaker's track in the source frames.
        weights: [source frames] share of the dub per frame (see `analysis.easing`).
        shots: renderers of shots with references of their own, in place of `session`.
    """

    def __init__(
        self,
        session: RenderSession,
        lower: torch.Tensor,
        motion: Motion,
        speaker: SpeakerTrack,
        weights: NDArray[np.float32],
        shots: ShotSessions | None = None,
    ):
        self.shots = shots
        self.session, self.lower, self.motion = session, lower, motion
        self.speaker, self.weights = speaker, weights
        self._drawn: tuple[int, RenderSession] | None = None  # track and renderer of the last frame

    def run(
        self, frames: Iterable[StreamFrame], start: int = 0, stop: int | None = None
    ) -> Iterator[DoneFrame]:
        """Finished frames in the order of `frames`; at most N_FACE + EARLY are held.

        Frames whose number lies outside `start` ... `stop - 1` serve as references only: with
        AHEAD of them on either side, a piece comes out as it does within the whole.
        """
        waiting: deque[tuple[StreamFrame, FacePicture | None]] = deque()
        current = 0  # place in `waiting` of the next frame to render

        def wanted() -> bool:
            number = waiting[current][0].number
            return number >= start and (stop is None or number < stop)

        for frame in frames:
            picture = self._picture(frame.source)
            waiting.append((frame, picture))
            if picture is not None and frame.share > 0:
                self._expect(frame.source, picture)
            if len(waiting) - current > AHEAD + EARLY:
                if wanted():
                    yield self._finish(waiting, current)
                current += 1
            while current > AHEAD:
                waiting.popleft()
                current -= 1
        while current < len(waiting):
            if wanted():
                yield self._finish(waiting, current)
            current += 1

    def _picture(self, source: Picture) -> FacePicture | None:
        row = self.speaker.position.get(source.index)
        if row is None or source.index in self.speaker.reasons:
            return None
        pose = self.speaker.fit.pose[row]
        window = face_windows(self.session.mesh, pose[None])[0]
        x, y, width, height = window_rect(window.numpy(), source.size)
        if width < 8 or height < 8:
            return None
        pixels = source.rgb_region(x, y, width, height)
        return FacePicture(pixels, (x, y), self.speaker.fit.beta[row], pose)

    def _expect(self, source: Picture, picture: FacePicture) -> None:
        """Let the last frame's renderer begin with a reference of the frames to come, unless these
        belong to another shot."""
        if self._drawn is not None and self.speaker.part[source.index] == self._drawn[0]:
            self._drawn[1].expect(source.index, picture)

    def _finish(
        self, waiting: deque[tuple[StreamFrame, FacePicture | None]], current: int
    ) -> DoneFrame:
        frame, picture = waiting[current]
        source = frame.source
        if picture is None:
            reason = self.speaker.reasons.get(source.index, NO_FACE)
            return DoneFrame(source.frame, frame, reason)
        if frame.share <= 0:
            return DoneFrame(source.frame, frame, AFTER_SPEECH)
        near = range(max(current - AHEAD, 0), min(current + AHEAD + 1, len(waiting)))
        references = {}
        for k in near:
            other, seen = waiting[k]
            same = self.speaker.part.get(other.source.index) == self.speaker.part[source.index]
            if seen is not None and same:
                references[other.source.index] = seen
        lower = self.motion.around(frame.time)
        beta = picture.beta.to(lower).expand(len(lower), -1)
        moved = merged_vertices(self.session.model, beta, self.lower, lower)
        track = self.speaker.part[source.index]
        session = self.session if self.shots is None else self.shots.of(track)
        self._drawn = track, session
        patch = session.render(
            source.index,
            picture,
            moved[len(moved) // 2],
            list(references.items()),
            min(float(self.weights[source.index]), frame.share),
            Moments(moved, self._poses(waiting, current, len(moved))),
        )
        if patch.alpha.size == 0:
            return DoneFrame(source.frame, frame, NO_FACE)
        return DoneFrame(source.paste(patch.rgb, patch.alpha, patch.x, patch.y), frame, "")

    def _poses(
        self, waiting: deque[tuple[StreamFrame, FacePicture | None]], current: int, count: int
    ) -> torch.Tensor:
        """Poses [count, 6] of the head at the moments of `Motion.around` a frame, taken from the
        source frames there as if these lay evenly; where none is known, the frame's own."""
        own = waiting[current][0]
        first = waiting[max(current - AHEAD, 0)][0]
        last = waiting[min(current + AHEAD, len(waiting) - 1)][0]
        rate = (last.source.index - first.source.index) / max(last.time - first.time, 1e-6)
        speaker, here = self.speaker, own.source.index
        rows = []
        for k in range(-(count // 2), count // 2 + 1):
            frame = here + round(k * rate / RATE)
            same = speaker.part.get(frame) == speaker.part[here]
            rows.append(speaker.position[frame if same else here])
        return speaker.fit.pose[rows]


@dataclass(frozen=True)
class ArrayPicture:
    """A frame held in memory: [H, W, 3] uint8 RGB."""

    index: int
    frame: NDArray[np.uint8]

    @property
    def size(self) -> tuple[int, int]:
        """(width, height)."""
        return self.frame.shape[1], self.frame.shape[0]

    def rgb_region(self, x: int, y: int, width: int, height: int) -> NDArray[np.uint8]:
        """A rectangle of the frame."""
        return self.frame[y : y + height, x : x + width]

    def paste(
        self, rgb: NDArray[np.float32], alpha: NDArray[np.float32], x: int, y: int
    ) -> NDArray[np.uint8]:
        """A new frame with `rgb` (0..255) blended in at (x, y)."""
        out = self.frame.copy()
        height, width = alpha.shape
        part = out[y : y + height, x : x + width]
        share = alpha[..., None]
        mixed = part + (rgb - part) * share
        part[...] = np.where(share > 0, np.rint(mixed).clip(0, 255), part).astype(np.uint8)
        return out


def dub_stream(
    frames: Iterable[tuple[Fraction | float, NDArray[np.uint8]]],
    session: RenderSession,
    lower: torch.Tensor,
    motion: Motion,
    persona: Persona,
) -> Iterator[NDArray[np.uint8]]:
    """See `Dubber.dub_frames`.

    Raises:
        OptionInvalid: a frame is not [H, W, 3] uint8.
    """
    model = session.model
    with FaceFollower() as follower:
        for chunk in _chunks(frames):
            seen: dict[int, NDArray[np.float32]] = {}
            for k, (_, picture) in enumerate(chunk):
                points = follower.landmarks(picture)
                if points is not None:
                    seen[k] = points
            if not seen:
                yield from (picture for _, picture in chunk)
                continue
            landmarks = torch.from_numpy(np.stack(list(seen.values())))
            fit = fit_track(model, landmarks, template=persona.template)
            faults = frame_faults(fit, landmarks)
            position = {k: row for row, k in enumerate(seen)}
            reasons = {k: NO_FACE for k in range(len(chunk)) if k not in seen}
            reasons |= {k: f for k, f in zip(seen, faults, strict=True) if f}
            speaker = SpeakerTrack([0], position, dict.fromkeys(position, 0), fit, reasons)
            dubbed = DubbedFrames(session, lower, motion, speaker, easing(reasons, len(chunk)))
            source = (
                StreamFrame(k, ArrayPicture(k, picture), float(time))
                for k, (time, picture) in enumerate(chunk)
            )
            session.forget()
            yield from (done.frame for done in dubbed.run(source))


def _chunks(
    frames: Iterable[tuple[Fraction | float, NDArray[np.uint8]]],
) -> Iterator[list[tuple[Fraction | float, NDArray[np.uint8]]]]:
    chunk: list[tuple[Fraction | float, NDArray[np.uint8]]] = []
    for number, (time, picture) in enumerate(frames):
        if picture.ndim != 3 or picture.shape[2] != 3 or picture.dtype != np.uint8:
            raise OptionInvalid(
                f"frame {number} is {picture.dtype} {list(picture.shape)}; "
                "it has to be uint8 [H, W, 3] RGB"
            )
        chunk.append((time, picture))
        if len(chunk) == CHUNK:
            yield chunk
            chunk = []
    if chunk:
        yield chunk
