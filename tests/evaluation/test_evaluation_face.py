"""Stage 2's report: references that are held out, the mesh warp, regions, and a whole run."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from evaluation_samples import RATE, load_script, write_clip

sys.path.insert(0, str(Path(__file__).parents[1] / "geometry"))

from synthetic_face import face_model, synthetic_track

from dubbing.analysis import SpeakerTrack
from dubbing.demo import demo_pose, demo_puppet, demo_speech
from dubbing.dubber import Dubber
from dubbing.errors import OptionInvalid
from dubbing.evaluation.ablations import VARIANTS, AblatedDubber, random_groups
from dubbing.evaluation.clips import Clip
from dubbing.evaluation.face_work import (
    HeldOutRenderer,
    consecutive,
    frame_regions,
    moments_around,
    still_pixels,
)
from dubbing.evaluation.footage import Footage
from dubbing.evaluation.held_out import NEIGHBOURS, held_out_groups, spread
from dubbing.evaluation.mesh_warp import lower_rect, nearest_by_lips, paste, warp_face
from dubbing.evaluation.regions import CROP, regions_of
from dubbing.evaluation.studio import Studio
from dubbing.geometry.fit import FaceFit
from dubbing.geometry.topology import (
    CHIN,
    INNER_BOTTOM,
    INNER_TOP,
    LIPS,
    LOWER_INNER_LIP,
    LOWER_OUTER_LIP,
)
from dubbing.media.audio import load_speech
from dubbing.render.references import N_BANK

torch.set_num_threads(1)
FRAMES, SIDE = 34, 300


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of two clips of the demo's speaker."""
    folder = tmp_path_factory.mktemp("clips")
    puppet = demo_puppet()
    speech = (load_speech(demo_speech()) * 32767).astype(np.int16)
    for name, start in (("a.mkv", 0.4), ("b.mkv", 3.2)):
        pictures = [
            cv2.resize(
                puppet.frame(demo_pose(start + k / 25)), (SIDE, SIDE), interpolation=cv2.INTER_AREA
            )
            for k in range(FRAMES)
        ]
        part = speech[round(start * RATE) : round((start + FRAMES / 25) * RATE)]
        write_clip(folder / name, pictures, part, codec="libx264", fmt="yuv420p", crf=12)
    return folder


@pytest.fixture(scope="module")
def studio(tmp_path_factory: pytest.TempPathFactory) -> Studio:
    return Studio(Dubber.from_pretrained(device="cpu"), tmp_path_factory.mktemp("personas"))


@pytest.fixture(scope="module")
def clip(clips: Path) -> Clip:
    return Clip(clips / "a.mkv", "ann")


@pytest.fixture(scope="module")
def footage(studio: Studio, clip: Clip) -> Footage:
    return Footage.of(studio, clip)


def track_of(frames: int) -> SpeakerTrack:
    _, beta, pose, template = synthetic_track(frames)
    fit = FaceFit(torch.zeros(2), template, beta, pose, torch.full((frames,), 0.003))
    rows = {f: f for f in range(frames)}
    return SpeakerTrack([0], rows, dict.fromkeys(rows, 0), fit, {})


def test_no_reference_is_the_target_or_its_neighbour() -> None:
    track, usable = track_of(120), list(range(120))
    targets = spread(usable, 12)
    assert len(targets) == 12
    groups = held_out_groups(face_model(), track, usable, targets)
    assert [t for g in groups for t in g.targets] == targets
    for group in groups:
        assert 45 <= len(set(group.bank)) == len(group.bank) <= N_BANK  # mouths repeat themselves
        for target in group.targets:
            assert min(abs(f - target) for f in group.bank) > NEIGHBOURS
            assert min(abs(f - target) for f in group.faces[target]) == NEIGHBOURS + 1
            assert len(group.faces[target]) == 5
        lost = {f for f in usable for t in group.targets if abs(f - t) <= NEIGHBOURS}
        assert len(lost) <= 40
    assert len(groups) < len(targets)


def test_a_clip_too_short_to_hold_anything_back_is_refused() -> None:
    with pytest.raises(OptionInvalid, match="usable frames"):
        held_out_groups(face_model(), track_of(13), list(range(13)), [6])


def test_face_references_stay_in_the_targets_own_track() -> None:
    track, usable = track_of(60), list(range(60))
    parts = {f: int(f >= 30) for f in usable}
    split = SpeakerTrack([0, 1], track.position, parts, track.fit, {})
    (group,) = held_out_groups(face_model(), split, usable, [28])
    assert max(group.faces[28]) < 23


def test_a_face_warped_onto_itself_is_unchanged() -> None:
    model = face_model()
    points = synthetic_track(1)[0][0]
    picture = np.random.default_rng(0).integers(0, 256, (300, 320, 3)).astype(np.uint8)
    part = warp_face(
        model, points, points, picture[10:, 20:], (20, 10), lower_rect(model, points, (320, 300))
    )
    height, width = part.alpha.shape
    there = picture[part.y : part.y + height, part.x : part.x + width]
    assert part.alpha.max() == pytest.approx(1, abs=1e-3)
    assert np.abs(part.rgb.astype(int) - there)[part.alpha > 0].max() <= 1
    np.testing.assert_allclose(paste(picture, part), picture, atol=1)


def test_a_warp_follows_the_mesh() -> None:
    model = face_model()
    points = synthetic_track(1)[0][0]
    moved = points + torch.tensor([7.0, -4.0, 0.0])
    picture = np.random.default_rng(0).integers(0, 256, (300, 320, 3)).astype(np.uint8)
    part = warp_face(model, moved, points, picture, (0, 0), lower_rect(model, moved, (320, 300)))
    height, width = part.alpha.shape
    there = picture[part.y + 4 : part.y + 4 + height, part.x - 7 : part.x - 7 + width]
    inside = part.alpha > 0.5
    assert inside.sum() > 2000
    assert np.abs(part.rgb.astype(int) - there)[inside].max() <= 1


def test_the_nearest_reference_has_the_nearest_lips() -> None:
    others = torch.zeros(3, 468, 3)
    others[0, list(LIPS), 1] = 0.3
    others[1, list(LIPS), 1] = 0.1
    others[2, 200] = 0.01  # not a lip
    others[2, list(LIPS), 1] = 0.5
    target = torch.zeros(468, 3)
    target[list(LIPS), 1] = 0.16
    assert nearest_by_lips(target, others) == 1


def test_regions_are_parts_of_the_lower_face() -> None:
    points = synthetic_track(1)[0][0].numpy()
    scaled = ((points - [160, 150, 0]) * 0.9 + [128, 128, 0]).astype(np.float32)
    found = regions_of(face_model(), scaled)
    assert (found.hidden <= found.lower).all()
    assert (found.lips <= found.lower).all()
    assert (found.cheeks <= found.lower).all()
    assert found.cheeks.sum() > 200
    assert not (found.cheeks & found.lips).any()
    assert 0.05 < found.lower.mean() < 0.4
    top, bottom, left, right = found.mouth
    assert found.lips[top:bottom, left:right].sum() == found.lips.sum()
    assert not found.lower[: round(float(scaled[4, 1]))].any()  # nothing above the nose's tip


def test_the_inside_of_a_mouth_is_still_only_where_its_lips_are() -> None:
    model = face_model()
    points = synthetic_track(1)[0][0].numpy()
    face = ((points - [160, 150, 0]) * 0.9 + [128, 128, 0]).astype(np.float32)
    face[list(LOWER_INNER_LIP[1:-1]), 1] += 24  # wide open: its middle is far from every vertex
    face[list(LOWER_OUTER_LIP), 1] += 24
    at_rest = still_pixels(model, [face] * 3, [face] * 3, 0.5)
    mouth = face[[INNER_TOP, INNER_BOTTOM], :2].mean(0).round().astype(int)
    assert at_rest[1][mouth[1], mouth[0]]
    assert not at_rest[0].any()
    assert not at_rest[2].any()
    made = [face.copy() for _ in range(3)]
    made[2][list(LIPS), 1] += 3.0
    moving = still_pixels(model, [face] * 3, made, 0.5)[1]
    assert not moving[mouth[1], mouth[0]]
    chin = face[CHIN, :2].round().astype(int)
    assert moving[chin[1] - 4, chin[0]]  # where nothing moved
    assert (moving <= at_rest[1]).all()


def test_between_vertices_that_move_nothing_is_still() -> None:
    model = face_model()
    points = synthetic_track(1)[0][0].numpy()
    face = ((points - [160, 150, 0]) * 1.6 + [128, 60, 0]).astype(np.float32)
    sunk = face + np.float32([0, 2, 0])
    assert not still_pixels(model, [face] * 3, [face, sunk, face], 0.5)[1].any()


def test_a_made_frame_does_not_depend_on_the_lower_face_that_it_replaces(
    studio: Studio, clip: Clip, footage: Footage
) -> None:
    target = footage.usable[len(footage.usable) // 2]
    (held,) = held_out_groups(studio.model, footage.speaker, footage.usable, [target])
    footage.read(held.frames)
    renderer = HeldOutRenderer(studio.dubber, studio.persona(clip), footage, held)
    regions = frame_regions(footage, target)
    hidden = renderer.hidden_source(target, regions)
    region = footage.regions[target]
    assert (hidden.pixels != region.pixels).any()
    outside = ~region.mask(regions.hidden, footage.boxes[target])
    np.testing.assert_array_equal(hidden.pixels[outside], region.pixels[outside])
    moved = footage.displacements(moments_around(footage, target))
    made = renderer.make(target, moved, hidden)
    grey = renderer.make(target, moved, renderer.hidden_source(target, regions, grey=True))
    assert np.abs(made.picture.astype(int) - grey.picture).max() <= 2
    assert made.picture.shape == (CROP, CROP, 3)
    truth = footage.crop(target)
    assert np.abs(made.picture.astype(int) - truth)[made.alpha < 0.002].max() <= 1
    assert (made.picture != truth)[made.alpha > 0.9].any()
    warped = renderer.mesh_warp(target, footage.displacement(target), made)
    assert np.abs(warped.picture.astype(int) - truth)[made.alpha < 0.002].max() <= 1
    assert np.abs(warped.picture.astype(int) - truth)[made.alpha > 0.9].mean() < 12


def test_consecutive_frames_are_taken_from_one_run(footage: Footage) -> None:
    found = consecutive(footage, 10)
    assert len(found) == 10
    assert found == list(range(found[0], found[0] + 10))
    assert len(consecutive(footage, 1000)) <= len(footage.usable)


def test_the_face_is_measured_in_one_run(
    clips: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    face = load_script("face")
    command = [str(clips), "--output", str(tmp_path), "--device", "cpu", "--quiet"]
    assert face.main([*command, "--clips", "a", "--frames", "2"]) == 1
    shown = capsys.readouterr().out
    facts = json.loads((tmp_path / "face.json").read_text())
    assert [s["name"] for s in facts["sections"]] == ["held_out", "dubbed_runs"]
    (row,) = facts["sections"][0]["rows"]
    assert row["frames"] == 2
    assert row["leak"] <= 2
    assert row["psnr"] > row["unchanged psnr"]
    assert 20 < row["self-dub psnr"] <= row["psnr"] + 3
    assert row["faces"] == row["self-dub faces"] == 1
    (run,) = facts["sections"][1]["rows"]
    assert run["frames"] == run["faces found"] == 25
    assert 0 < run["flicker"] < 5
    assert "no ST-LPIPS: its weights were not given" in facts["errors"]
    assert "MISSED ST-LPIPS under both baselines" in shown
    assert "| PSNR lower face, dB" in (tmp_path / "face.md").read_text()
    assert cv2.imread(str(tmp_path / "sheets" / "a.png")).shape[1] > 2 * CROP
    with pytest.raises(SystemExit, match="no clip c"):
        face.main([*command, "--clips", "c"])


def test_random_references_hold_nothing_near_the_targets() -> None:
    track, usable = track_of(120), list(range(120))
    targets = spread(usable, 6)
    groups = random_groups(face_model(), track, usable, targets)
    assert [t for g in groups for t in g.targets] == targets
    for group in groups:
        assert len(set(group.bank)) == N_BANK
        for target in group.targets:
            assert len(set(group.faces[target])) == 5
            assert min(abs(f - target) for f in group.bank + group.faces[target]) > NEIGHBOURS
    assert groups == random_groups(face_model(), track, usable, targets)
    assert groups[0].bank != held_out_groups(face_model(), track, usable, targets)[0].bank


def test_a_part_that_is_missing_shows_where_it_works(
    studio: Studio, clip: Clip, footage: Footage
) -> None:
    target = footage.usable[len(footage.usable) // 2]
    (group,) = held_out_groups(studio.model, footage.speaker, footage.usable, [target])
    footage.read(group.frames)
    regions = frame_regions(footage, target)
    moved = footage.displacements(moments_around(footage, target))
    persona = studio.persona(clip)

    def made(dubber: Dubber) -> np.ndarray:
        renderer = HeldOutRenderer(dubber, persona, footage, group)
        hidden = renderer.hidden_source(target, regions)
        return renderer.make(target, moved, hidden).picture.astype(int)

    whole = made(studio.dubber)
    found = {
        name: np.abs(made(AblatedDubber(studio.dubber, VARIANTS[name].render)) - whole).mean(2)
        for name in ("full", "face-attention", "lip-attention", "registration")
    }
    assert not found["full"].any()
    assert found["face-attention"][regions.cheeks].mean() > 0.1
    assert found["lip-attention"][regions.lips].mean() > 0.1
    assert found["registration"][regions.lower].mean() > 0.05


def test_ablations_are_one_command(
    clips: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    script = load_script("ablations")
    command = [str(clips), "--output", str(tmp_path), "--device", "cpu", "--quiet"]
    chosen = ["--clips", "a", "--frames", "2", "--without", "style"]
    assert script.main([*command, *chosen]) == 1  # ST-LPIPS has no weights here
    assert "ST-LPIPS: its weights were not given" in capsys.readouterr().out
    facts = json.loads((tmp_path / "ablations.json").read_text())
    full, plain = facts["summary"]
    assert (full["variant"], plain["variant"]) == ("full", "no style")
    assert full["PSNR, tracked geometry"] == plain["PSNR, tracked geometry"] > 20
    assert full["StyleSim"] != plain["StyleSim"]
    assert "| no style" in (tmp_path / "ablations.md").read_text()
    assert len((tmp_path / "ablations.csv").read_text().splitlines()) == 3
