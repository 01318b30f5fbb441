"""Two faces that pass each other: no track becomes the other, and what is hidden is told."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from dubbing.evaluation.cases.people import Crossing, crossing
from dubbing.face.appearance import FaceSampler
from dubbing.face.faults import covered
from dubbing.face.overlaps import MIN_SHARE, Overlap, find_overlaps, hidden_frames
from dubbing.face.tracker import FaceTrack, FaceTracker
from dubbing.weights import MORPHABLE, PACKAGED, load_morphable

APART = 70.0  # px between two faces that nobody takes for one


@pytest.fixture(scope="module")
def sampler() -> FaceSampler:
    return FaceSampler(load_morphable(PACKAGED / f"{MORPHABLE}.safetensors"))


def tracked(film: Crossing, sampler: FaceSampler) -> list[FaceTrack]:
    with FaceTracker(sampler=sampler) as tracker:
        for picture in film.pictures:
            tracker.add(picture)
        tracks = tracker.finish()
    assert tracker.cuts == []
    assert tracker.blended == {}
    return tracks


def people_of(track: FaceTrack, film: Crossing) -> set[int]:
    """Whose face a track follows, in the frames in which the two are apart."""
    found = set()
    for frame, points in zip(track.frames, track.landmarks, strict=True):
        places = np.array(film.middles[frame])
        if abs(np.diff(places[:, 0])[0]) > APART:
            found.add(int(np.abs(places[:, 0] - points[:468, 0].mean()).argmin()))
    return found


@pytest.mark.parametrize("front", [0, 1])
@pytest.mark.parametrize("to", [1.0, 0.42])
def test_nobody_becomes_the_other(front: int, to: float, sampler: FaceSampler) -> None:
    """Slowly past each other; and nearly to the middle and back."""
    film = crossing(64, front, to=to)
    tracks = tracked(film, sampler)
    whose = [people_of(track, film) for track in tracks]
    assert all(len(people) == 1 for people in whose)
    (first,) = [t for t, people in zip(tracks, whose, strict=True) if people == {front}]
    assert first.frames == list(range(64))  # the one in front is never lost
    assert hidden_frames(first, tracks) == set()
    for track in tracks:
        if track is first:
            continue
        hidden = hidden_frames(track, tracks)
        flags = covered(np.array(track.visible), 0.5)
        for frame, points, flag in zip(track.frames, track.landmarks, flags, strict=True):
            if frame not in hidden and not flag:
                assert behind(points, film, frame, front) < 0.06, frame
    seen = {frame for track in tracks if track is not first for frame in track.frames}
    assert {*range(16), *range(50, 64)} <= seen  # and found again when it comes out


def behind(points: NDArray[np.float32], film: Crossing, frame: int, front: int) -> float:
    """Share of a lower face that the one in front covers."""
    low = points[:468][points[:468, 1] > points[2, 1], :2]
    x, y = np.rint(low).astype(int).T
    head = film.heads[frame][front]
    inside = (x >= 0) & (x < head.shape[1]) & (y >= 0) & (y < head.shape[0])
    return float((head[y[inside], x[inside]] > 0.5).mean())


def face(x: float, size: float = 50.0) -> NDArray[np.float32]:
    """Landmarks on a disc."""
    angle = np.linspace(0, 40 * np.pi, 478)
    radius = np.sqrt(np.linspace(0, 1, 478)) * size
    points = np.stack([x + radius * np.cos(angle), 100 + radius * np.sin(angle), 0 * angle], 1)
    points[2, :2] = (x, 100)  # the nose's base in the middle
    return points.astype(np.float32)


def test_overlap_is_a_share_of_the_lower_face() -> None:
    assert find_overlaps([face(0), face(400)]) == {}
    assert find_overlaps([face(0)]) == {}
    touching = find_overlaps([face(0), face(90)])
    assert set(touching) == {0, 1}
    assert 0.02 < touching[0].face < 0.15 < touching[0].head < 0.4
    beside = find_overlaps([face(0), face(108)])  # only the hair
    assert beside[0].face == 0.0 < MIN_SHARE < beside[0].head
    inside = find_overlaps([face(0, 20), face(0, 60)])
    assert inside[0] == Overlap(pytest.approx(1.0, abs=0.02), pytest.approx(1.0, abs=0.02))
    assert inside[1].face < 0.25
    three = find_overlaps([face(0), face(90), face(700)])
    assert set(three) == {0, 1}


def pair(sizes: tuple[float, float], overlap: Overlap, frames: int = 90) -> list[FaceTrack]:
    """Two tracks side by side that overlap from frame 20 to frame 69."""
    tracks = []
    for number, size in enumerate(sizes):
        track = FaceTrack(number, 0)
        for frame in range(frames):
            track.frames.append(frame)
            track.landmarks.append(face(100 * number, size))
            track.visible.append(0.9)
        track.overlaps = dict.fromkeys(range(20, 70), overlap)
        tracks.append(track)
    return tracks


def test_the_smaller_one_is_behind_and_of_equal_ones_either() -> None:
    much, hair = Overlap(0.2, 0.4), Overlap(0.0, 0.2)
    both = set(range(20, 70))
    near, far = pair((60, 50), much)
    assert hidden_frames(near, [near, far]) == set()
    assert hidden_frames(far, [near, far]) == both
    one, two = pair((50, 52), much)
    assert hidden_frames(one, [one, two]) == hidden_frames(two, [one, two]) == both
    one, two = pair((50, 52), hair)
    assert hidden_frames(one, [one, two]) == hidden_frames(two, [one, two]) == set()


def test_the_one_whose_mouth_is_covered_is_behind_for_a_second() -> None:
    far, near = pair((60, 50), Overlap(0.0, 0.2))  # although it is the larger
    far.visible[30] = 0.1
    assert hidden_frames(far, [far, near]) == set(range(20, 56))
    assert hidden_frames(near, [far, near]) == set()
    near.visible[30] = 0.1  # both are
    assert hidden_frames(far, [far, near]) == hidden_frames(near, [far, near]) == set()


def test_the_one_that_vanishes_is_behind() -> None:
    one, two = pair((50, 50), Overlap(0.1, 0.2))
    before, _ = two.without(50, 89)
    assert before.overlaps.keys() == set(range(20, 50))
    assert hidden_frames(one, [one, before]) == set(range(20, 25))  # long before, who knows
    assert hidden_frames(before, [one, before]) == set(range(20, 50))


def test_a_track_is_surprised_by_another_place() -> None:
    track = FaceTrack(0, 0)
    for frame in range(3):
        track.frames.append(frame)
        track.landmarks.append(face(10.0 * frame))
    assert track.surprise(3, face(30)) == pytest.approx(0, abs=1e-6)
    assert track.surprise(3, face(20)) == pytest.approx(0.1, rel=0.02)
    assert track.surprise(5, face(50)) == pytest.approx(0, abs=1e-6)
    assert track.surprise(60, face(70)) == pytest.approx(
        0, abs=1e-6
    )  # it does not move on for ever
