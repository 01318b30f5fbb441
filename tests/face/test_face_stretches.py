"""Faces found stretch by stretch are those that one tracker finds: ids, cuts, gaps."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from dubbing.evaluation.cases.people import other_person
from dubbing.face import stretches as stretching
from dubbing.face.stretches import Stretch, StretchFaces, StretchJoiner, stretches
from dubbing.face.tracker import FaceTrack, FaceTracker

Picture = NDArray[np.uint8]


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stretching, "STRETCH", 12)
    monkeypatch.setattr(stretching, "REACH", 6)


def watched(frames: Sequence[Picture], first: int, last: int) -> StretchFaces:
    with FaceTracker(first=first) as tracker:
        for frame in frames[first:last]:
            tracker.add(frame)
        return StretchFaces(tracker.finish(), tracker.cuts, tracker.blended)


def joined(frames: Sequence[Picture]) -> StretchFaces:
    """By stretches, found in reverse order."""
    pieces = list(stretches(len(frames)))
    found = [watched(frames, s.first, s.last) for s in reversed(pieces)][::-1]
    joiner = StretchJoiner()
    for stretch, faces in zip(pieces, found, strict=True):
        joiner.add(stretch, faces)
    return StretchFaces(joiner.finish(), joiner.cuts, joiner.blended)


def both_ways(frames: Sequence[Picture]) -> tuple[StretchFaces, StretchFaces]:
    """(by stretches, by one tracker), which agree in all but fractions of a pixel."""
    by_parts, at_once = joined(frames), watched(frames, 0, len(frames))
    assert by_parts.cuts == at_once.cuts
    assert by_parts.blended == at_once.blended
    assert [t.shot for t in by_parts.tracks] == [t.shot for t in at_once.tracks]
    for a, b in zip(by_parts.tracks, at_once.tracks, strict=True):
        assert a.frames == b.frames
        assert np.abs(a.stacked() - b.stacked())[..., :2].mean() < 0.01 * b.mean_side
        assert a.overlaps.keys() == b.overlaps.keys()
    return by_parts, at_once


def test_stretches_cover_every_frame_once() -> None:
    assert list(stretches(30)) == [
        Stretch(0, 0, 12, 0, 18), Stretch(1, 12, 24, 6, 30), Stretch(2, 24, 30, 18, 30)
    ]  # fmt: skip
    assert [(s.start, s.stop) for s in stretches(24)] == [(0, 12), (12, 24)]
    endless = stretches(None)
    assert [next(endless) for _ in range(2)] == list(stretches(100))[:2]


def test_a_moving_face_is_one_track(portrait: Picture) -> None:
    found, _ = both_ways([np.roll(portrait, 2 * k, 1) for k in range(30)])
    assert [t.id for t in found.tracks] == [0]
    middle = found.tracks[0].stacked()[:, :, 0].mean(1)
    assert np.abs(np.diff(middle) - 2).max() < 1.5  # no step where stretches meet


def test_two_faces_keep_their_ids(portrait: Picture) -> None:
    frames = [
        np.hstack([np.roll(portrait, k, 1), np.roll(portrait[:, ::-1], -k, 1)]) for k in range(28)
    ]
    found, _ = both_ways(frames)
    assert [t.id for t in found.tracks] == [0, 1]
    for track in found.tracks:
        middle = track.stacked()[:, :, 0].mean(1)
        assert ((middle < 320) == (middle[0] < 320)).all()  # nobody changes sides


@pytest.mark.parametrize("cut", [9, 11, 12, 13, 16])
def test_a_cut_near_the_border_starts_new_tracks(portrait: Picture, cut: int) -> None:
    dark = (portrait[:, ::-1] // 3).astype(np.uint8)
    found, _ = both_ways([portrait] * cut + [dark] * (26 - cut))
    assert found.cuts == [cut]
    assert [(t.id, t.shot, t.frames[0]) for t in found.tracks] == [(0, 0, 0), (1, 1, cut)]


@pytest.mark.parametrize("first", [9, 11, 12])
def test_a_face_hidden_across_the_border_keeps_its_id(portrait: Picture, first: int) -> None:
    hidden = portrait.copy()
    hidden[50:220, 80:240] = cv2.GaussianBlur(portrait, (0, 0), 20.0)[50:220, 80:240]
    frames = [hidden if first <= k < first + 3 else portrait for k in range(22)]
    found, _ = both_ways(frames)
    assert [t.frames for t in found.tracks] == [[k for k in range(22) if k - first not in range(3)]]


def test_a_dissolve_across_the_border(portrait: Picture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stretching, "STRETCH", 40)
    monkeypatch.setattr(stretching, "REACH", 30)
    other = other_person(portrait)
    shares = np.clip((np.arange(80) - 36) / 8, 0, 1)
    frames = [np.rint(portrait * (1 - w) + other * w).astype(np.uint8) for w in shares]
    found, _ = both_ways(frames)
    assert set(range(37, 44)) <= set(found.blended)
    assert [t.shot for t in found.tracks] == [0, 1]


def test_a_face_that_one_tracker_sees_later_is_taken_from_the_other(portrait: Picture) -> None:
    """The second stretch's detector looks every tenth frame; the first one's has seen the face."""
    frames = [np.roll(portrait, k, 1) for k in range(24)]
    first, second = watched(frames, 0, 18), watched(frames, 6, 24)
    late = FaceTrack(0, 0)
    late.extend(second.tracks[0], range(15, 24))
    joiner = StretchJoiner()
    pieces = list(stretches(24))
    joiner.add(pieces[0], first)
    joiner.add(pieces[1], StretchFaces([late]))
    (track,) = joiner.finish()
    assert track.frames == list(range(24))
