"""Training of the style encoder: pairs, contrast, the command, and what a small one learns."""

from __future__ import annotations

import csv
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from synthetic_face import face_model, neutral_face, speaking
from torch import Tensor

from dubbing.cli import main
from dubbing.evaluation.style import STYLE, load_style_encoder, lower_motion, style_code
from dubbing.models.style_encoder import StyleEncoder, StyleEncoderConfig
from dubbing.training.speakers import held_back
from dubbing.training.style import HELD_LIST, build_style_encoder, check, nt_xent
from dubbing.training.style_views import (
    LONGEST,
    SHORTEST,
    PairSampler,
    StyleClip,
    blurred,
    load_style_clips,
    shows_twice,
)
from dubbing.weights import (
    MORPHABLE,
    STYLE_METRIC,
    load_checkpoint,
    load_style_metric,
    save_morphable,
)

torch.set_num_threads(1)

SMALL = StyleEncoderConfig(
    lower_vertices=int(face_model().lower.gt(0).sum()),
    components=3, coupled=3, width=16, layers=1, code_size=8,
)  # fmt: skip


def manner(person: int) -> Tensor:
    """[3, 3] how a person moves jaw and lips, whatever the words."""
    random = torch.Generator().manual_seed(100 + person)
    amplitudes = (0.4 * torch.randn(3, generator=random)).exp().diag()
    return amplitudes + 0.2 * torch.randn(3, 3, generator=random)


def words(person: int, seed: int, frames: int = 120) -> Tensor:
    """Expressions [T, 3] of a person who says something."""
    return speaking(frames, 10 * person + seed) @ manner(person)


def people(numbers: range, clips: int = 3) -> list[StyleClip]:
    return [
        StyleClip(f"p{who}c{k}", f"p{who}", words(who, k), torch.ones(120, dtype=torch.bool))
        for who in numbers
        for k in range(clips)
    ]


def test_the_contrast_is_that_of_its_formula() -> None:
    a, b = torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0])
    loss, found = nt_xent(torch.stack([a, b, a, b]), temperature=0.5)
    assert loss.item() == pytest.approx(-math.log(math.exp(2) / (math.exp(2) + 2)), rel=1e-4)
    assert found.item() == 1.0
    crossed, found = nt_xent(torch.stack([a, a, b, b]), temperature=0.5)
    assert crossed > loss
    assert found.item() == 0.0


def marked(name: str, speaker: str, value: float, frames: int) -> StyleClip:
    return StyleClip(
        name, speaker, torch.full((frames, 3), value), torch.ones(frames, dtype=torch.bool)
    )


def plain_sampler(clips: list[StyleClip], monkeypatch: pytest.MonkeyPatch) -> PairSampler:
    """A sampler that disturbs nothing: its windows show which clip they come from."""
    monkeypatch.setattr(PairSampler, "_disturbed", lambda self, beta, usable: (beta, usable))
    return PairSampler(clips, face_model(), build_style_encoder(face_model(), people(range(2)),
                                                                SMALL), seed=0)  # fmt: skip


def test_a_pair_never_shares_a_clip(monkeypatch: pytest.MonkeyPatch) -> None:
    clips = [marked(f"a{k}", "a", 1.0 + k, 30) for k in range(7)]
    sampler = plain_sampler(clips, monkeypatch)
    for _ in range(20):
        first, second = sampler._pair(clips)
        assert SHORTEST // 2 <= len(first[0]) <= LONGEST + 8
        shown = [set(beta[usable].flatten().tolist()) for beta, usable in (first, second)]
        assert not shown[0] & shown[1]
        for beta, usable in (first, second):
            assert (beta[~usable] == 0).all()  # the gaps between clips


def test_an_only_clip_gives_windows_that_do_not_meet(monkeypatch: pytest.MonkeyPatch) -> None:
    time = torch.arange(150.0)[:, None].expand(-1, 3)
    clip = StyleClip("a", "a", time, torch.ones(150, dtype=torch.bool))
    sampler = plain_sampler([clip, marked("b", "b", 1.0, 100)], monkeypatch)
    for _ in range(20):
        (first, _), (second, _) = sampler._pair([clip])
        assert first.max() < second.min()


def test_clips_that_show_too_little_are_not_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    dark = torch.ones(100, dtype=torch.bool)
    dark[50:] = False
    half = StyleClip("half", "half", torch.zeros(100, 3), dark)
    assert not shows_twice(half)
    assert shows_twice(marked("a", "a", 1.0, 60))
    sampler = plain_sampler([half, marked("a", "a", 1.0, 60)], monkeypatch)
    assert list(sampler.clips) == ["a"]


def test_a_draw_is_what_it_says_and_seeded() -> None:
    clips = people(range(4))
    encoder = build_style_encoder(face_model(), clips, SMALL)
    components, mask = PairSampler(clips, face_model(), encoder, seed=3).draw(5)
    assert components.shape[:1] == mask.shape[:1] == (10,)
    assert components.shape[1:] == (mask.shape[1], 3)
    assert mask.dtype == torch.bool
    assert (components[~mask.any(1)] == 0).all()
    assert 0.3 < components[mask].square().mean().sqrt() < 3
    again, _ = PairSampler(clips, face_model(), encoder, seed=3).draw(5)
    other, _ = PairSampler(clips, face_model(), encoder, seed=4).draw(5)
    assert torch.equal(components, again)
    assert components.shape != other.shape or not torch.equal(components, other)


def test_blur_keeps_the_level_and_calms() -> None:
    torch.manual_seed(0)
    noise = torch.randn(400, 2) + 3
    calm = blurred(noise, 0.8)
    assert calm.shape == noise.shape
    assert calm.std() < 0.7 * noise.std()
    assert torch.allclose(calm.mean(0), noise.mean(0), atol=0.05)


@pytest.fixture(scope="module")
def trained() -> StyleEncoder:
    """A small encoder that has seen twelve people."""
    torch.manual_seed(0)
    clips = people(range(12))
    encoder = build_style_encoder(face_model(), clips, SMALL)
    sampler = PairSampler(clips, face_model(), encoder, seed=0)
    optimiser = torch.optim.AdamW(encoder.parameters(), lr=5e-3)
    for _ in range(60):
        loss, _ = nt_xent(encoder.encode(*sampler.draw(12)), 0.1)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return encoder.eval().requires_grad_(False)


def code(encoder: StyleEncoder, beta: Tensor) -> Tensor:
    return style_code(encoder, lower_motion(face_model(), beta))


def test_other_words_are_the_same_style_and_scaled_motion_is_not(trained: StyleEncoder) -> None:
    same, scaled, crooked = [], [], []
    sideways = torch.eye(3)
    sideways[0, 1] = 0.8  # the lips widen as the jaw drops
    for person in range(50, 58):  # never seen in training
        own = code(trained, words(person, 1))
        same.append(float(own @ code(trained, words(person, 2))))
        scaled.append(float(own @ code(trained, 0.5 * words(person, 1))))
        crooked.append(float(own @ code(trained, words(person, 1) @ sideways)))
    assert min(same) > 0.9
    assert max(scaled) < min(same)
    assert max(crooked) < min(same)
    assert np.mean(scaled) < np.mean(same) - 0.15
    assert np.mean(crooked) < np.mean(same) - 0.15


def test_unseen_people_are_found_by_their_manner(trained: StyleEncoder) -> None:
    found = check(trained, face_model(), people(range(30, 40)))
    assert found.clips == 30
    assert found.speakers == 10
    assert found.top1 > 0.6 > 5 * found.chance1
    assert found.same > found.other + 0.4


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten people's prepared and fitted clips, a table of who speaks, and their model."""
    folder = tmp_path_factory.mktemp("prepared")
    (folder / "fits").mkdir()
    lines = ["file,speaker"]
    for clip in people(range(10), clips=2):
        count = len(clip.beta)
        np.savez(
            folder / f"{clip.name}.npz", times=np.arange(count) / 25, boxes=np.ones((count, 3))
        )
        np.savez(
            folder / "fits" / f"{clip.name}.fit.npz",
            beta=clip.beta.numpy(),
            pose=np.zeros((count, 6), np.float32),
            template=neutral_face().numpy(),
            usable=clip.usable.numpy(),
        )
        lines.append(f"{clip.name}.mp4,{clip.speaker}")
    (folder / "speakers.csv").write_text("\n".join(lines))
    save_morphable(folder / "model" / f"{MORPHABLE}.safetensors", face_model())
    return folder


def train(prepared: Path, output: Path, *more: str) -> int:
    given = ["--data", str(prepared), "--output", str(output), "--cache", str(prepared / "fits")]
    given += ["--morphable", str(prepared / "model" / f"{MORPHABLE}.safetensors")]
    given += ["--steps", "3", "--batch-size", "4", "--log-every", "2", "--device", "cpu"]
    return main(["train", "style", *given, *more])


def test_a_run_leaves_encoder_log_and_held_out_list(prepared: Path, tmp_path: Path) -> None:
    table = ["--speakers", str(prepared / "speakers.csv"), "--held-out", "0.3"]
    assert train(prepared, tmp_path / "a", *table) == 0
    with (tmp_path / "a" / "style.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["step"] for row in rows] == ["2", "3"]
    assert all(math.isfinite(float(v)) for row in rows for v in row.values())
    assert float(rows[-1]["held_clips"]) == 6
    with (tmp_path / "a" / HELD_LIST).open(newline="") as file:
        held = {row["file"]: row["speaker"] for row in csv.DictReader(file)}
    speakers = {c.name: c.speaker for c in people(range(10), clips=2)}
    assert set(held) == held_back(speakers, 0.3, 0)
    encoder = load_style_encoder(tmp_path / "a" / f"{STYLE}.safetensors")
    assert torch.equal(encoder.lower, face_model().lower.gt(0).nonzero()[:, 0])
    assert train(prepared, tmp_path / "b", *table) == 0
    states = [load_checkpoint(tmp_path / k / f"{STYLE}.safetensors", STYLE)[1] for k in "ab"]
    for name, value in states[0].items():
        assert torch.equal(value, states[1][name]), name


def test_the_metric_is_trained_by_the_same_contrast(prepared: Path, tmp_path: Path) -> None:
    more = ["--kind", "metric", "--speakers", str(prepared / "speakers.csv"), "--steps", "60"]
    assert train(prepared, tmp_path, *more, "--held-out", "0.3", "--log-every", "20") == 0
    with (tmp_path / "style.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert float(rows[-1]["loss"]) < float(rows[0]["loss"])
    metric = load_style_metric(tmp_path / f"{STYLE_METRIC}.safetensors")
    assert torch.equal(metric.lower, face_model().lower.gt(0).nonzero()[:, 0])
    assert not (tmp_path / f"{STYLE}.safetensors").exists()
    found = check(metric, face_model(), people(range(30, 40)))
    assert found.top1 > 5 * found.chance1


def test_a_clip_is_a_person_where_nobody_says_otherwise(prepared: Path, tmp_path: Path) -> None:
    clips = load_style_clips(
        prepared, prepared / "fits", {"p0c0": "p0c0", "p0c1": "p0c1"}, face_model()
    )
    assert [c.speaker for c in clips] == ["p0c0", "p0c1"]
    assert train(prepared, tmp_path, "--held-out", "0") == 0
    with (tmp_path / "style.csv").open(newline="") as file:
        assert csv.DictReader(file).fieldnames == ["step", "loss", "found"]


def test_one_speaker_is_too_few(
    prepared: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = tmp_path / "one.csv"
    names = [c.name for c in people(range(10), clips=2)]
    table.write_text("file,speaker\n" + "\n".join(f"{n}.mp4,same" for n in names))
    assert train(prepared, tmp_path, "--speakers", str(table), "--held-out", "0") == 3
    assert "two speakers" in capsys.readouterr().err
