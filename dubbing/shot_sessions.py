"""One renderer per shot, where a shot has lip references of its own."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from dubbing.render.pictures import FacePicture
from dubbing.render.session import RenderSession


class ShotSessions:
    """The renderer for each face track: with the references of its own shot (its light, its
    distance from the camera), or the one that all other shots share.

    Args:
        shared: renderer with the references of the whole clip.
        banks: {face track: its own references}.
        make: builds a renderer for a bank; only the last one built is kept.
    """

    def __init__(
        self,
        shared: RenderSession,
        banks: Mapping[int, list[FacePicture]],
        make: Callable[[list[FacePicture]], RenderSession],
    ):
        self.shared, self._banks, self._make = shared, banks, make
        self._own: tuple[int, RenderSession] | None = None

    def of(self, track: int) -> RenderSession:
        """The renderer for frames of this face track."""
        if track not in self._banks:
            return self.shared
        if self._own is None or self._own[0] != track:
            self._own = track, self._make(self._banks[track])
        return self._own[1]
