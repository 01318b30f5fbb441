"""Tracks over short clips: ids, cuts, gaps, and clips without a face."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from dubbing.face import tracker as tracking
from dubbing.face.landmarks import landmark_box
from dubbing.face.shots import ShotDetector
from dubbing.face.tracker import FaceTrack, FaceTracker

Picture = NDArray[np.uint8]


def tracked(frames: Sequence[Picture]) -> tuple[list[FaceTrack], list[int]]:
    with FaceTracker() as tracker:
        for frame in frames:
            tracker.add(frame)
        return tracker.finish(), tracker.cuts


def beside(portrait: Picture, shift: int) -> Picture:
    """Two of them; the left one moves right and the right one moves left by `shift` pixels."""
    return np.hstack([np.roll(portrait, shift, 1), np.roll(portrait[:, ::-1], -shift, 1)])


def without_face(portrait: Picture) -> Picture:
    """The portrait with its face out of focus beyond recognition; its colours stay."""
    out = portrait.copy()
    out[50:220, 80:240] = cv2.GaussianBlur(portrait, (0, 0), 20.0)[50:220, 80:240]
    return out


def test_one_face_is_followed(portrait: Picture) -> None:
    frames = [np.roll(portrait, 2 * k, 1) for k in range(14)]
    (track,), cuts = tracked(frames)
    assert track.frames == list(range(14))
    assert cuts == []
    assert track.stacked().shape == (14, 478, 3)
    left = track.stacked()[:, :, 0].mean(1)
    assert np.abs(np.diff(left) - 2).max() < 1.5
    assert abs(left[-1] - left[0] - 26) < 1
    assert track.weight == pytest.approx(track.mean_side**2 * 14)
    assert track.box == landmark_box(track.landmarks[-1])


def test_two_faces_keep_their_ids(portrait: Picture) -> None:
    frames = [beside(portrait, 2 * k) for k in range(13)]
    tracks, _ = tracked(frames)
    assert [t.id for t in tracks] == [0, 1]
    for track in tracks:
        assert track.frames == list(range(13))
        middle = track.stacked()[:, :, 0].mean(1)
        assert ((middle < 320) == (middle[0] < 320)).all()  # nobody changes sides
        direction = 1 if middle[0] < 320 else -1
        assert abs(direction * (middle[-1] - middle[0]) - 24) < 2


def test_a_cut_starts_new_tracks(portrait: Picture) -> None:
    dark = (portrait[:, ::-1] // 3).astype(np.uint8)
    frames = [portrait] * 5 + [dark] * 5
    tracks, cuts = tracked(frames)
    assert cuts == [5]
    assert [t.frames for t in tracks] == [list(range(5)), list(range(5, 10))]
    assert [(t.id, t.shot) for t in tracks] == [(0, 0), (1, 1)]


def test_hidden_face_leaves_a_gap_and_keeps_its_id(portrait: Picture) -> None:
    """Out of focus for a moment: the picture changes too little for a cut."""
    frames = [portrait] * 4 + [without_face(portrait)] * 3 + [portrait] * 4
    (track,), cuts = tracked(frames)
    assert cuts == []
    assert track.frames == [0, 1, 2, 3, 7, 8, 9, 10]


def test_blank_frames_belong_to_no_track(portrait: Picture) -> None:
    blank = np.zeros_like(portrait)
    tracks, cuts = tracked([portrait] * 4 + [blank] * 2 + [portrait] * 4)
    assert cuts == [4, 6]
    assert [t.frames for t in tracks] == [[0, 1, 2, 3], [6, 7, 8, 9]]


def test_a_face_that_comes_later_is_found(portrait: Picture) -> None:
    """Beside one that is already held: within the interval of full detections."""
    alone = np.hstack([portrait, without_face(portrait)])
    entering = np.hstack([portrait, portrait])
    frames = [alone] * 3 + [entering] * (tracking.DETECT_EVERY + 4)
    tracks, _ = tracked(frames)
    assert tracks[0].frames == list(range(len(frames)))
    late = [t for t in tracks if t.stacked()[0, :, 0].mean() > 320]
    assert len(late) == 1
    assert late[0].frames[0] <= 3 + tracking.DETECT_EVERY


def test_no_face_no_track() -> None:
    noise = np.random.default_rng(0).integers(0, 255, (8, 120, 160, 3)).astype(np.uint8)
    assert tracked(list(noise)) == ([], [])


def test_flicker_is_no_track(portrait: Picture) -> None:
    grey = np.full_like(portrait, portrait.mean())
    tracks, _ = tracked([grey] * 2 + [portrait] * (tracking.MIN_TRACK - 1) + [grey] * 3)
    assert tracks == []


def test_cuts_are_sudden_changes_only(portrait: Picture) -> None:
    def cuts(frames: Sequence[Picture]) -> list[int]:
        shots = ShotDetector()
        return [k for k, frame in enumerate(frames) if shots.is_cut(frame)]

    upside = portrait[::-1].copy()
    assert cuts([portrait, portrait, upside, upside, portrait]) == [2, 4]
    fade = [(portrait * (k / 12)).astype(np.uint8) for k in range(13)]
    assert cuts(fade) == []
    assert cuts([np.roll(portrait, 4 * k, 1) for k in range(10)]) == []
