"""Style figures on codes and motions whose answer is known, and the packaged encoder."""

from __future__ import annotations

import csv
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from evaluation_samples import load_script
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parents[1] / "geometry"))

from synthetic_face import face_model, neutral_face, speaking

from dubbing.errors import CheckpointNotFound, OptionInvalid
from dubbing.evaluation.style import (
    STYLE,
    WINDOW,
    load_style_encoder,
    lower_motion,
    retrieval,
    statistics_codes,
    style_code,
    style_facts,
    style_similarity,
    window_starts,
)
from dubbing.models.style_encoder import StyleEncoder, StyleEncoderConfig
from dubbing.weights import MORPHABLE, PACKAGED, load_morphable, save_morphable, save_network

torch.set_num_threads(1)

LOWER = face_model().lower.gt(0).nonzero()[:, 0]


def motion(frames: int, seed: int = 0) -> Tensor:
    return lower_motion(face_model(), speaking(frames, seed))


@pytest.fixture(scope="module")
def encoder() -> StyleEncoder:
    torch.manual_seed(0)
    config = StyleEncoderConfig(
        lower_vertices=len(LOWER), components=3, coupled=3, width=16, code_size=8
    )
    network = StyleEncoder(config).eval().requires_grad_(False)
    network.set_motion(LOWER, motion(300))
    return network


def test_motion_is_the_expression_without_shape_or_pose() -> None:
    beta = torch.tensor([[1.0, 0.0, 0.0], [0.0, 0.0, 2.0]])
    moved = lower_motion(face_model(), beta)
    assert moved.shape == (2, len(LOWER), 3)
    assert torch.allclose(moved, face_model().expression_vertices(beta)[:, LOWER])


def test_windows_cover_every_frame() -> None:
    for frames in (20, 100, 101, 149, 150, 333):
        starts = window_starts(frames)
        count = torch.zeros(max(frames, WINDOW))
        for start in starts:
            assert start == 0 or start + WINDOW <= frames
            count[start : start + WINDOW] += 1
        assert count[:frames].min() >= 1
        assert count.max() <= 3
    assert window_starts(100) == [0]
    assert window_starts(120) == [0, 20]


def test_a_code_does_not_depend_on_the_number_of_windows(encoder: StyleEncoder) -> None:
    steady = motion(25).repeat(20, 1, 1)
    codes = [style_code(encoder, steady[:frames]) for frames in (100, 125, 275, 500)]
    assert codes[0].shape == (8,)
    for code in codes:
        assert float(code.norm()) == pytest.approx(1, abs=1e-5)
        assert style_similarity(code, codes[0]) > 0.995


def test_a_code_is_the_mean_of_its_windows(encoder: StyleEncoder) -> None:
    long = motion(200)
    parts = [encoder(long[None, s : s + WINDOW])[0] for s in (0, 50, 100)]
    expected = F.normalize(torch.stack(parts).mean(0), dim=0)
    assert torch.allclose(style_code(encoder, long), expected, atol=1e-5)


def test_windows_without_a_face_are_left_out(encoder: StyleEncoder) -> None:
    long, usable = motion(250), torch.ones(250, dtype=torch.bool)
    usable[100:] = False
    spoilt = long.clone()
    spoilt[100:] = 9.0
    first = style_code(encoder, long, usable)
    assert torch.allclose(style_code(encoder, spoilt, usable), first, atol=1e-5)


def test_what_can_not_be_coded_is_refused(encoder: StyleEncoder) -> None:
    with pytest.raises(OptionInvalid, match="too few"):
        style_code(encoder, motion(15))
    with pytest.raises(OptionInvalid, match="too few"):
        style_code(encoder, motion(50), torch.zeros(50, dtype=torch.bool))
    with pytest.raises(OptionInvalid, match="vertices"):
        style_code(encoder, torch.zeros(50, 7, 3))
    with pytest.raises(CheckpointNotFound):
        load_style_encoder(Path("nothing.safetensors"))


def test_similarity_is_a_cosine() -> None:
    a = torch.tensor([3.0, 4.0])
    assert style_similarity(a, 2 * a) == pytest.approx(1)
    assert style_similarity(a, -a) == pytest.approx(-1)
    assert style_similarity(a, torch.tensor([4.0, -3.0])) == pytest.approx(0)


def test_retrieval_counts_what_it_should() -> None:
    """a's clips find each other, b's are nearer to c's only clip."""
    degrees = torch.tensor([0.0, 5.0, 90.0, 140.0, 115.0])
    codes = torch.stack([degrees.deg2rad().cos(), degrees.deg2rad().sin()], 1)
    found = retrieval(codes, ["a", "a", "b", "b", "c"])
    assert (found.clips, found.speakers) == (5, 2)
    assert found.top1 == pytest.approx(0.5)
    assert found.top5 == 1.0  # there are but four others
    assert found.chance1 == pytest.approx(0.25)
    assert found.chance5 == pytest.approx(1.0)
    cosine = np.cos(np.deg2rad([5.0, 50.0]))
    assert found.same == pytest.approx(cosine.mean(), abs=1e-5)
    pairs = [(0, 90), (0, 140), (5, 90), (5, 140)]
    a_b = np.mean([np.cos(np.deg2rad(y - x)) for x, y in pairs])
    a_c = np.cos(np.deg2rad([115.0, 110.0])).mean()
    b_c = np.cos(np.deg2rad(25.0))
    assert found.other == pytest.approx(np.mean([a_b, a_c, b_c]), abs=1e-5)


def test_speakers_with_many_clips_do_not_outweigh_others() -> None:
    codes = torch.eye(8)[[0] * 10 + [1, 2]]  # ten equal clips of a, two unlike clips of b
    found = retrieval(codes, ["a"] * 10 + ["b"] * 2)
    assert found.top1 == pytest.approx(0.5)
    assert found.same == pytest.approx(0.5)
    assert found.chance1 == pytest.approx((9 / 11 + 1 / 11) / 2)


def test_guessing_scores_as_chance_says() -> None:
    torch.manual_seed(0)
    owners = [f"s{k % 12}" for k in range(600)]
    found = retrieval(torch.randn(600, 32), owners)
    assert found.top1 == pytest.approx(found.chance1, abs=0.04)
    assert found.top5 == pytest.approx(found.chance5, abs=0.06)
    assert abs(found.same - found.other) < 0.02


def test_retrieval_needs_somebody_to_find() -> None:
    with pytest.raises(OptionInvalid):
        retrieval(torch.eye(3), ["a", "b", "c"])
    with pytest.raises(OptionInvalid):
        retrieval(torch.eye(3), ["a", "a", "a"])


def test_the_baseline_is_mean_and_deviation_of_usable_frames() -> None:
    motions = [motion(60, seed) for seed in range(3)]
    usable = [torch.ones(60, dtype=torch.bool) for _ in motions]
    codes = statistics_codes(motions, usable)
    assert codes.shape == (3, 6 * len(LOWER))
    assert torch.allclose(codes.norm(dim=1), torch.ones(3), atol=1e-5)
    for known in usable:
        known[30:] = False
    short = [m[:30] for m in motions]
    cut = [torch.ones(30, dtype=torch.bool)] * 3
    assert torch.allclose(statistics_codes(motions, usable), statistics_codes(short, cut))


def facts(beta: Tensor, usable: Tensor | None = None) -> dict[str, float]:
    moved = lower_motion(face_model(), beta)
    return style_facts(moved, neutral_face(), LOWER, usable).to_dict()


def test_facts_follow_what_was_changed() -> None:
    beta = speaking(200)
    plain = facts(beta)
    louder = facts(beta * torch.tensor([1.5, 1.0, 1.0]))
    assert louder["opening"] == pytest.approx(1.5 * plain["opening"], rel=0.1)
    assert louder["pace"] == pytest.approx(plain["pace"], rel=0.1)
    spread = facts(beta + torch.tensor([0.0, 0.5, 0.0]))
    assert spread["width"] > plain["width"] + 0.03
    assert spread["opening"] == pytest.approx(plain["opening"], rel=0.05)
    ajar = facts(beta + torch.tensor([0.5, 0.0, 0.0]))
    assert ajar["rest"] > plain["rest"] + 0.02
    slow = facts(torch.lerp(beta[:-1], beta[1:], 0.5).repeat_interleave(2, 0))
    assert slow["pace"] < 0.7 * plain["pace"]


def test_a_mouth_drawn_up_on_the_right_of_the_picture_tilts() -> None:
    moved = motion(50)
    right = (neutral_face()[LOWER, 0] > 0.1)[None, :, None] * torch.tensor([0.0, -0.1, 0.0])
    level = style_facts(moved, neutral_face(), LOWER)
    drawn = style_facts(moved + right, neutral_face(), LOWER)
    assert abs(level.tilt) < 0.01
    assert drawn.tilt > level.tilt + 0.05


def test_facts_of_unusable_frames_do_not_count() -> None:
    beta = speaking(100)
    usable = torch.ones(100, dtype=torch.bool)
    usable[60:] = False
    spoilt = beta.clone()
    spoilt[60:] = 7.0
    assert facts(spoilt, usable) == pytest.approx(facts(beta[:60]), rel=1e-3)
    with pytest.raises(OptionInvalid, match="too few"):
        facts(beta, torch.zeros(100, dtype=torch.bool))


def test_the_packaged_encoder_fits_the_packaged_model() -> None:
    path = PACKAGED / f"{STYLE}.safetensors"
    assert path.stat().st_size < 3_000_000
    encoder, model = load_style_encoder(), load_morphable(PACKAGED / f"{MORPHABLE}.safetensors")
    assert not encoder.training
    assert torch.equal(encoder.lower, model.lower.gt(0).nonzero()[:, 0])
    # a movement along two of the basis' axes: in other phase it is other words
    time = torch.arange(150) / 25.0
    jaw, lips = (torch.zeros(150, len(model.expression)) for _ in range(2))
    for row, shift in ((jaw, 0.0), (lips, 1.3)):
        row[:, 0] = 0.8 + torch.sin(12 * time + shift)
        row[:, 2] = torch.sin(7.5 * time + 2 * shift)
    own, other, small = (
        style_code(encoder, lower_motion(model, beta)) for beta in (jaw, lips, 0.4 * jaw)
    )
    assert style_similarity(own, other) > 0.9
    assert style_similarity(own, small) < style_similarity(own, other) - 0.03


def test_the_check_prints_its_tables(
    encoder: StyleEncoder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, fits = tmp_path / "prepared", tmp_path / "fits"
    folder.mkdir()
    fits.mkdir()
    save_network(tmp_path / "style.safetensors", STYLE, encoder)
    save_morphable(tmp_path / "model.safetensors", face_model())
    lines = ["file,speaker"]
    for k in range(6):
        beta = speaking(120, k) * (1.0 + k // 2)
        np.savez(folder / f"c{k}.npz", times=np.arange(120) / 25, boxes=np.ones((120, 3)))
        np.savez(
            fits / f"c{k}.fit.npz", beta=beta.numpy(), pose=np.zeros((120, 6), np.float32),
            template=neutral_face().numpy(), usable=np.ones(120, bool),
        )  # fmt: skip
        lines += [f"c{k}.mp4,s{k // 2}"] * (k < 5)
    (tmp_path / "table.csv").write_text("\n".join(lines))
    script = load_script("style_check")
    command = [str(folder), "--speakers", str(tmp_path / "table.csv"), "--cache", str(fits)]
    command += ["--checkpoint", str(tmp_path / "style.safetensors"), "--listed-only"]
    command += ["--morphable", str(tmp_path / "model.safetensors"), "--threads", "1"]
    assert script.main([*command, "--output", str(tmp_path / "out")]) == 0
    shown = capsys.readouterr().out
    assert "mean and deviation" in shown
    found = json.loads((tmp_path / "out" / "style_check.json").read_text())
    plain, moved = found["retrieval"][:2]
    assert (plain["clips"], plain["speakers"]) == (5, 2)
    assert moved["same"] == pytest.approx(plain["same"], abs=1e-4)  # the templates are equal
    assert found["halves"]["clips"] == 5
    with (tmp_path / "out" / "speakers.csv").open(newline="") as file:
        people = list(csv.DictReader(file))
    assert [p["speaker"] for p in people] == ["s0", "s1", "s2"]
    assert float(people[1]["opening"]) > float(people[0]["opening"])
    assert script.main([*command, "--output", str(tmp_path / "out"), "--only", "nobody*"]) == 13
    assert "no clip" in capsys.readouterr().err
