"""Tracks over short clips: ids, cuts, gaps, and clips without a face."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from dubbing.evaluation.cases.people import other_person
from dubbing.face import tracker as tracking
from dubbing.face.landmarks import landmark_box
from dubbing.face.shots import FLASH, ShotDetector
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
    """A short interruption is no cut; a long one is two."""
    blank = np.zeros_like(portrait)
    tracks, cuts = tracked([portrait] * 4 + [blank] * 2 + [portrait] * 4)
    assert cuts == []
    assert [t.frames for t in tracks] == [[0, 1, 2, 3, 6, 7, 8, 9]]
    tracks, cuts = tracked([portrait] * 4 + [blank] * (FLASH + 1) + [portrait] * 4)
    assert cuts == [4, 5 + FLASH]
    assert [t.frames for t in tracks] == [[0, 1, 2, 3], list(range(5 + FLASH, 9 + FLASH))]


def test_another_face_for_a_few_frames_does_not_enter_the_track(portrait: Picture) -> None:
    other = other_person(portrait)
    with FaceTracker() as tracker:
        for frame in [portrait] * 5 + [other] * 3 + [portrait] * 5:
            tracker.add(frame)
        (track,) = tracker.finish()
    assert track.frames == [0, 1, 2, 3, 4, 8, 9, 10, 11, 12]
    assert tracker.blended == {5: False, 6: False, 7: False}
    assert tracker.cuts == []


def test_a_flash_is_no_new_shot(portrait: Picture) -> None:
    """Bright for a frame, then fading back over three."""
    white = np.full_like(portrait, 255).astype(np.float32)
    lit = [(portrait + (white - portrait) * w).astype(np.uint8) for w in (0.95, 0.7, 0.45, 0.2)]
    with FaceTracker() as tracker:
        for frame in [portrait] * 6 + lit + [portrait] * 6:
            tracker.add(frame)
        (track,) = tracker.finish()
    assert tracker.cuts == []
    assert set(tracker.blended) <= set(range(6, 10))
    assert 6 not in track.frames
    assert set(range(6)) | set(range(10, 16)) <= set(track.frames)
    assert not set(tracker.blended) & set(track.frames)


@pytest.mark.parametrize("length", [8, 20])
def test_a_dissolve_ends_one_track_and_starts_another(portrait: Picture, length: int) -> None:
    """Two people at one place: no track holds both, nor any frame that shows both."""
    other = other_person(portrait)
    shares = np.clip((np.arange(14 + length) - 7) / length, 0, 1)
    frames = [np.rint(portrait * (1 - w) + other * w).astype(np.uint8) for w in shares]
    with FaceTracker() as tracker:
        for frame in frames:
            tracker.add(frame)
        tracks = tracker.finish()
    mixed = set(np.flatnonzero((shares > 0.1) & (shares < 0.9)).tolist())
    assert mixed <= set(tracker.blended)
    assert all(tracker.blended.values())
    assert len(tracks) == 2
    first, second = tracks
    assert first.id != second.id
    assert second.shot == first.shot + 1
    assert max(first.frames) <= 8
    assert min(second.frames) >= 5 + length
    assert not mixed & {*first.frames, *second.frames}
    assert len(tracker.cuts) == 1
    assert max(first.frames) < tracker.cuts[0] <= min(second.frames)


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


def shot_changes(frames: Sequence[Picture]) -> tuple[list[int], list[tuple[int, int]]]:
    """First frames of hard cuts, and dissolves."""
    shots = ShotDetector()
    changes = [shots.add(frame) for frame in frames]
    dissolves = [c.dissolve for c in changes if c.dissolve]
    ending = shots.finish()
    return [k for k, c in enumerate(changes) if c.cut], dissolves + ([ending] if ending else [])


def test_cuts_are_sudden_changes_only(portrait: Picture) -> None:
    upside = portrait[::-1].copy()
    long = FLASH + 2
    assert shot_changes([portrait] * 2 + [upside] * long + [portrait]) == ([2, 2 + long], [])
    fade = [(portrait * (k / 12)).astype(np.uint8) for k in range(13)]
    assert shot_changes(fade) == ([], [])
    assert shot_changes([np.roll(portrait, 4 * k, 1) for k in range(10)]) == ([], [])


def test_moving_cameras_and_light_are_no_dissolve(portrait: Picture) -> None:
    def seen_from(zoom: float, x: float, y: float) -> Picture:
        matrix = np.array([[zoom, 0, -x], [0, zoom, -y]])
        size = (320, 320)
        return cv2.warpAffine(portrait, matrix, size, borderMode=cv2.BORDER_REFLECT).astype(
            np.uint8
        )

    zooms = [seen_from(1.3 + 0.008 * k, 40, 30) for k in range(30)]
    pans = [seen_from(1.5, 20 + 1.5 * k, 40) for k in range(30)]
    tilts = [seen_from(1.5, 60 + 0.6 * k, 20 + 1.2 * k) for k in range(30)]
    lights = [np.rint(portrait * (0.4 + 0.02 * k)).astype(np.uint8) for k in range(30)]
    for frames in (zooms, pans, tilts, lights):
        assert shot_changes(frames) == ([], [])


def test_a_dissolve_to_the_end_is_one(portrait: Picture) -> None:
    other = other_person(portrait)
    frames = [np.rint(portrait * (1 - w) + other * w).astype(np.uint8)
              for w in np.clip((np.arange(22) - 8) / 14, 0, 1)]  # fmt: skip
    with FaceTracker() as tracker:
        for frame in frames:
            tracker.add(frame)
        tracks = tracker.finish()
    assert tracker.cuts == []
    assert all(max(t.frames) <= 9 for t in tracks)
    assert set(range(10, 21)) <= set(tracker.blended)
