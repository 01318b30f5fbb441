"""Several people, several shots, covered mouths: who is dubbed, and what passes through."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from engine_samples import write_clip
from numpy.typing import NDArray

from dubbing.analysis import VideoFaces, easing, find_faces, fit_speaker, fit_speakers
from dubbing.demo import demo_pose, demo_speech
from dubbing.dubber import Dubber
from dubbing.errors import NoFaceFound
from dubbing.evaluation.cases.people import (
    covering,
    crossing,
    landmarks_of,
    other_person,
    small_puppet,
)
from dubbing.face.limits import AWAY, COVERED, DISSOLVE, NO_FACE, FaceLimits
from dubbing.face.tracker import FaceTrack
from dubbing.geometry.pose import apply_pose
from dubbing.media.audio import load_speech
from dubbing.media.reader import VideoReader
from dubbing.motion import Motion, merged_vertices
from dubbing.options import DubOptions
from dubbing.persona import Persona
from dubbing.persona_builder import lip_reference_frames, shot_reference_frames
from dubbing.progress import StageProgress
from dubbing.shot_sessions import ShotSessions
from dubbing.speaker_choice import SpeakerChoice
from dubbing.speakers import most_active, people, pick_speaker

Picture = NDArray[np.uint8]

SHOT = 24  # frames of each of the film's parts
MIXED = 8  # frames of the dissolve
HIDDEN = range(7, 14)  # of the first shot


@pytest.fixture(scope="module")
def film(folder: Path) -> Path:
    """A speaker with a hand before the mouth for a while; a cut to somebody else; a dissolve back.

    Shots: [0, SHOT) speaker, [SHOT, 2 SHOT) the other, then MIXED frames of both, then the speaker.
    """
    puppet = small_puppet()
    own = [puppet.frame(demo_pose(0.1 * k)) for k in range(2 * SHOT)]
    points = landmarks_of(own[0])
    other = other_person(own[0])
    first = [covering("hand", p, points) if k in HIDDEN else p for k, p in enumerate(own[:SHOT])]
    blend = [
        np.rint(other + (own[SHOT].astype(np.float32) - other) * (k + 1) / (MIXED + 1))
        for k in range(MIXED)
    ]
    shown = [*first, *[other] * SHOT, *(p.astype(np.uint8) for p in blend), *own[SHOT:]]
    return write_clip(folder / "film.mp4", shown, [24 * k for k in range(len(shown))])


@pytest.fixture(scope="module")
def faces(dubber: Dubber, film: Path) -> VideoFaces:
    with VideoReader(film) as reader:
        return find_faces(reader, StageProgress(None, "analyse"), dubber.weights.morphable)


def test_every_frame_has_the_right_reason(dubber: Dubber, faces: VideoFaces) -> None:
    back = 2 * SHOT + MIXED
    chosen = next(t for t in faces.tracks if t.frames[0] >= back - 2)
    speaker = fit_speaker(dubber.weights.morphable, faces, chosen)
    assert len(speaker.ids) == 2
    for frame in HIDDEN:
        assert speaker.reasons[frame] in (COVERED, NO_FACE), frame
    for frame in range(SHOT, 2 * SHOT - 1):
        assert speaker.reasons[frame] == AWAY, frame
    for frame in range(2 * SHOT + 1, back - 1):
        assert speaker.reasons[frame] == DISSOLVE, frame
    free = [*range(5), *range(HIDDEN[-1] + 4, SHOT), *range(back + 2, back + SHOT)]
    assert not set(free) & set(speaker.reasons)
    weights = easing(speaker.reasons, faces.frames, cuts=speaker.cuts)
    assert weights[SHOT - 1] == 1  # the cut is no reason to fade
    assert 0 < weights[HIDDEN[0] - 3] < 1
    assert all(weights[list(speaker.reasons)] == 0)


def test_no_reference_is_covered_or_of_another_person(dubber: Dubber, faces: VideoFaces) -> None:
    model = dubber.weights.morphable
    chosen = next(t for t in faces.tracks if t.frames[0] == 0)
    speaker = fit_speaker(model, faces, chosen)
    bank = lip_reference_frames(model, speaker)
    assert bank
    assert not set(bank) & set(speaker.reasons)
    assert not set(bank) & set(range(SHOT, 2 * SHOT + MIXED - 1))
    assert shot_reference_frames(model, speaker) == {}  # too short for references of their own
    for track in speaker.ids:
        own = lip_reference_frames(model, speaker, track)
        assert {speaker.part[f] for f in own} == {track}
    none = replace(speaker, reasons=dict.fromkeys(speaker.position, DISSOLVE))
    assert set(lip_reference_frames(model, none)) <= set(speaker.position)  # to be inspected


def test_two_people_who_pass_each_other(dubber: Dubber, folder: Path) -> None:
    """Both are dubbed: no frame of one goes to the other, and who is behind passes through."""
    walk = crossing(44, front=1)
    path = write_clip(folder / "walk.mp4", walk.pictures, [24 * k for k in range(44)])
    model = dubber.weights.morphable
    with VideoReader(path) as reader:
        found = find_faces(reader, StageProgress(None, "analyse"), model)
        chosen = {
            place: pick_speaker(
                found, SpeakerChoice.parse(place), reader, model, dubber.learner.hearing
            )
            for place in ("120,120@0", "500,120@0")
        }
    speakers = fit_speakers(model, found, {who: c.track for who, c in chosen.items()})
    for person, speaker in enumerate(speakers):
        for frame in set(speaker.position) - set(speaker.reasons):
            middle = float(speaker.fit.pose[speaker.position[frame], 4])
            places = [place[0] for place in walk.middles[frame]]
            if abs(places[0] - places[1]) > 60:
                assert int(np.abs(np.array(places) - middle).argmin()) == person, frame
    behind, before = speakers
    assert not set(behind.ids) & set(before.ids)
    assert before.reasons == {}
    assert {18, 22, 26} <= set(behind.reasons) <= set(range(12, 36))


def test_the_limits_decide_what_is_dubbed(dubber: Dubber, faces: VideoFaces) -> None:
    model = dubber.weights.morphable
    chosen = next(t for t in faces.tracks if t.frames[0] == 0)
    anyhow = fit_speaker(model, faces, chosen, limits=FaceLimits(min_visible=-1))
    assert COVERED not in anyhow.reasons.values()
    with pytest.raises(NoFaceFound, match="smaller than 400 px"):
        fit_speaker(model, faces, chosen, limits=FaceLimits(min_face=400))


def test_the_face_at_a_place_and_time(dubber: Dubber, film: Path, faces: VideoFaces) -> None:
    def never() -> None:
        raise AssertionError("nothing is to be heard")

    with VideoReader(film) as reader:
        times = [float(t) for t in reader.index.times]

        def at(x: float, y: float, t: float) -> int:
            choice = SpeakerChoice(place=(x, y, t))
            model = dubber.weights.morphable
            return pick_speaker(faces, choice, reader, model, never).track.frames[0]  # type: ignore[arg-type]

        assert at(120, 110, 0.0) == 0
        assert at(120, 110, times[SHOT + 3] + 0.001) >= SHOT
        assert at(120, 110, times[-1]) >= 2 * SHOT
        for x, y, t in ((3, 3, 0.0), (120, 110, 99.0)):
            with pytest.raises(NoFaceFound, match="no face at"):
                at(x, y, t)


def talking(dubber: Dubber, motion: Motion, frames: int, x: float, number: int) -> FaceTrack:
    """A track whose landmarks are the mesh itself, moved by `motion`; at `x` in the picture."""
    weights = dubber.weights
    model = weights.morphable
    template = model.mean + (0.4 if number else -0.4) * model.shape[:6].sum(0)
    lower = torch.stack([motion.at(k / 25) for k in range(frames)])
    moved = merged_vertices(
        model, torch.zeros(frames, len(model.expression)), weights.geometry.lower, lower
    )
    pose = torch.zeros(frames, 6)
    pose[:, 3] = float(np.log(60 + 5 * number))
    pose[:, 4] = x + torch.sin(torch.arange(frames) / 9.0)
    pose[:, 5] = 150
    points = torch.zeros(frames, 478, 3)
    points[:, :468] = apply_pose(template + moved, pose)
    track = FaceTrack(number, 0)
    track.frames = list(range(frames))
    for shown in points.numpy():
        track.landmarks.append(shown)
    return track


def test_a_face_that_comes_leaves_and_returns(dubber: Dubber) -> None:
    """Nobody in the first and last frames, nor in the middle: eased over four frames."""
    still = Motion(torch.zeros(2, int(dubber.weights.geometry.lower.numel()), 3))
    track = talking(dubber, still, 44, 120, 0)
    there = [*range(5, 25), *range(31, 55)]
    track.frames = there
    faces = VideoFaces(60, [track])
    speaker = fit_speaker(dubber.weights.morphable, faces, track)
    assert speaker.reasons == {k: NO_FACE for k in range(60) if k not in there}
    weights = easing(speaker.reasons, 60, cuts=speaker.cuts)
    assert all(weights[k] == 0 for k in speaker.reasons)
    assert weights[5:9].tolist() == pytest.approx([0.2, 0.4, 0.6, 0.8])
    assert weights[21:25].tolist() == pytest.approx([0.8, 0.6, 0.4, 0.2])
    assert weights[10] == weights[40] == 1
    assert weights[54] == pytest.approx(0.2)


def test_the_one_whose_lips_move_with_the_sound_is_active(dubber: Dubber, persona: Persona) -> None:
    samples = torch.from_numpy(load_speech(demo_speech()))
    frames = 110
    motion = dubber.drive(samples, frames / 25, persona)
    turned = Motion(motion.lower.flip(0))  # moves as much, at other times
    seconds = np.arange(frames) / 25
    hearing = dubber.learner.hearing()
    model = dubber.weights.morphable
    for moves in ((motion, turned), (turned, motion)):
        tracks = [talking(dubber, m, frames, 100 + 200 * k, k) for k, m in enumerate(moves)]
        film = VideoFaces(frames, tracks)
        assert len(people(model, film)) == 2
        found = most_active(film, tracks[1], samples, 0.0, seconds, model, hearing)
        speaking = 0 if moves[0] is motion else 1
        assert found.track.id == speaking
        assert found.note == ""
        assert found.agreement[speaking] > 2 * found.agreement[1 - speaking]
    nobody = VideoFaces(frames, [talking(dubber, turned, frames, 100, 0)])
    found = most_active(nobody, nobody.tracks[0], samples, 0.0, seconds, model, hearing)
    assert "largest face" in found.note


def test_without_sound_the_largest_is_taken_and_said(
    dubber: Dubber, film: Path, faces: VideoFaces
) -> None:
    model = dubber.weights.morphable
    with VideoReader(film) as reader:
        found = pick_speaker(
            faces,
            DubOptions(speaker="active").speaker_choice,
            reader,
            model,
            dubber.learner.hearing,
        )
    assert "can't be heard" in found.note
    assert found.track is max(faces.tracks, key=lambda t: t.weight)


def test_easing_stops_at_cuts() -> None:
    reasons = dict.fromkeys(range(10, 14), AWAY)
    eased = easing(reasons, 30)
    assert eased[9] == eased[14] == pytest.approx(0.2)
    cut = easing(reasons, 30, cuts=[10])
    assert (cut[:10] == 1).all()
    assert cut[14] == pytest.approx(0.2)
    assert (easing({}, 5, cuts=[2]) == 1).all()


def test_shots_with_references_of_their_own_get_their_own_renderer(
    dubber: Dubber, persona: Persona
) -> None:
    shared = dubber.session(persona)
    made: list[int] = []

    def make(bank: list[object]) -> object:
        made.append(len(bank))
        return dubber.session(persona, bank)  # type: ignore[arg-type]

    banks = {4: persona.bank[:3], 7: persona.bank[:5]}
    shots = ShotSessions(shared, banks, make)  # type: ignore[arg-type]
    assert shots.of(0) is shared
    first = shots.of(4)
    assert shots.of(4) is first
    assert shots.of(7) is not first
    assert made == [3, 5]


def test_a_persona_keeps_cuts_notes_and_banks(persona: Persona, tmp_path: Path) -> None:
    from dataclasses import replace

    own = persona.track_ids[0]
    rich = replace(persona, cuts=[5, 9], notes=["a note"], shot_banks={own: persona.bank[:2]})
    rich.save(tmp_path / "p.persona")
    again = Persona.load(tmp_path / "p.persona")
    assert (again.cuts, again.notes) == ([5, 9], ["a note"])
    for kept, given in zip(again.shot_banks[own], persona.bank[:2], strict=True):
        assert kept.offset is not None
        assert torch.equal(kept.offset, given.offset)
        assert np.array_equal(kept.pixels, given.pixels)
        assert kept.origin == given.origin
