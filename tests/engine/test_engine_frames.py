"""Motion, and dubbing frames held in memory."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from engine_samples import RATE, write_speech
from numpy.typing import NDArray

from dubbing.demo import demo_speech
from dubbing.dubber import Dubber
from dubbing.errors import AudioUnusable, OptionInvalid
from dubbing.face.follower import FaceFollower
from dubbing.geometry.fit import fit_track
from dubbing.geometry.morphable import lip_opening
from dubbing.media.audio import load_speech
from dubbing.motion import merged_vertices
from dubbing.options import DubOptions
from dubbing.persona import Persona


def opening_of(dubber: Dubber, persona: Persona, lower: torch.Tensor) -> torch.Tensor:
    model = dubber.weights.morphable
    still = persona.rest.expand(len(lower), -1)
    moved = merged_vertices(model, still, dubber.weights.geometry.lower, lower)
    return lip_opening(moved + persona.template)


def test_mouth_rests_in_silence(dubber: Dubber, persona: Persona, tmp_path: Path) -> None:
    path = write_speech(tmp_path / "s.flac", 2.0, silence=2.0)
    motion = dubber.drive(torch.from_numpy(load_speech(path)), 4.0, persona)
    opening = opening_of(dubber, persona, motion.lower)
    speaking, silent = opening[: 2 * RATE], opening[int(2.5 * RATE) :]
    assert silent.std() < 0.1 * speaking.std()
    rest = lip_opening(
        persona.template + dubber.weights.morphable.expression_vertices(persona.rest)
    )
    assert torch.allclose(silent[-5:], rest, atol=1e-4)


def test_style_strength_changes_the_motion(dubber: Dubber, persona: Persona) -> None:
    samples = torch.from_numpy(load_speech(demo_speech()))
    spread = []
    for strength in (0.0, 1.0, 1.5):
        motion = dubber.drive(samples, 6.0, persona, DubOptions(style_strength=strength))
        spread.append(motion.lower)
    assert (spread[0] - spread[1]).abs().mean() > 1e-4
    assert (spread[2] - spread[1]).abs().mean() > 1e-4


def test_motion_between_states_is_linear(dubber: Dubber, persona: Persona) -> None:
    samples = torch.from_numpy(load_speech(demo_speech()))[:32000]
    motion = dubber.drive(samples, 2.0, persona)
    middle = motion.at(10.5 / RATE)
    assert torch.allclose(middle, (motion.lower[10] + motion.lower[11]) / 2, atol=1e-6)
    assert torch.equal(motion.at(1e9), motion.lower[-1])


def test_lips_of_the_picture_follow_the_motion(
    dubber: Dubber, persona: Persona, pictures: list[NDArray[np.uint8]]
) -> None:
    samples = load_speech(demo_speech())[4800:]
    times = [k / RATE for k in range(len(pictures))]
    kept = [p.copy() for p in pictures]
    out = list(dubber.dub_frames(zip(times, pictures, strict=True), samples, persona))
    assert len(out) == len(pictures)
    assert all(np.array_equal(a, b) for a, b in zip(pictures, kept, strict=True))
    upper = slice(0, pictures[0].shape[0] // 3)
    assert all(np.array_equal(a[upper], b[upper]) for a, b in zip(pictures, out, strict=True))
    motion = dubber.drive(torch.from_numpy(samples), 3.0, persona)
    wanted = opening_of(dubber, persona, torch.stack([motion.at(t) for t in times])).numpy()
    seen = tracked_opening(dubber, persona, out)
    source = tracked_opening(dubber, persona, pictures)
    assert np.corrcoef(seen, wanted)[0, 1] > 0.75
    assert np.corrcoef(seen, wanted)[0, 1] > np.corrcoef(source, wanted)[0, 1] + 0.2


def tracked_opening(
    dubber: Dubber, persona: Persona, pictures: list[NDArray[np.uint8]]
) -> NDArray[np.float32]:
    with FaceFollower() as follower:
        found = [follower.landmarks(p) for p in pictures]
    points = torch.from_numpy(np.stack([f for f in found if f is not None]))
    assert len(points) == len(pictures)
    model = dubber.weights.morphable
    fit = fit_track(model, points, template=persona.template)
    return lip_opening(model.vertices(persona.template, fit.beta)).numpy()


def test_a_frame_does_not_depend_on_what_was_rendered_before(
    dubber: Dubber, persona: Persona
) -> None:
    """References that leave the cache must not change how later ones are weighed."""
    pictures = persona.bank[:16]
    moved = dubber.weights.morphable.expression_vertices(persona.rest)
    used, fresh = dubber.session(persona), dubber.session(persona)
    for k in range(2, len(pictures) - 2):
        near = [(j, pictures[j]) for j in range(k - 2, k + 3)]
        patch = used.render(k, pictures[k], moved, near)
    again = fresh.render(k, pictures[k], moved, near)
    assert np.array_equal(patch.rgb, again.rgb)
    assert np.array_equal(patch.alpha, again.alpha)


def test_frames_without_a_face_come_back_equal(
    dubber: Dubber, persona: Persona, pictures: list[NDArray[np.uint8]]
) -> None:
    blank = np.full_like(pictures[0], 70)
    frames = [blank, *pictures[:4], blank]
    samples = load_speech(demo_speech())[4800:]
    out = list(dubber.dub_frames(((k / RATE, f) for k, f in enumerate(frames)), samples, persona))
    assert np.array_equal(out[0], blank)
    assert np.array_equal(out[-1], blank)
    assert not np.array_equal(out[2], frames[2])


def test_bad_frames_and_samples_are_refused(dubber: Dubber, persona: Persona) -> None:
    samples = load_speech(demo_speech())
    with pytest.raises(OptionInvalid):
        list(dubber.dub_frames([(0.0, np.zeros((8, 8), np.uint8))], samples, persona))
    with pytest.raises(AudioUnusable):
        list(dubber.dub_frames([], np.zeros(16000, np.float32), persona))
