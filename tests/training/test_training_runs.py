"""`dub train geometry` and `dub train renderer`: a few steps, a resume, and the same again."""

from __future__ import annotations

import csv
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from puppet_footage import FRAMES

from dubbing.cli import main
from dubbing.render.mesh import RenderMesh
from dubbing.render.teeth import teeth_shares
from dubbing.training.clips import at_rate, fitted, prepared_names
from dubbing.training.render_clips import load_render_clips
from dubbing.training.render_data import GUARD, RenderBatcher, _neighbour, disturbed
from dubbing.training.renderer import changed
from dubbing.weights import (
    GEOMETRY,
    MORPHABLE,
    RENDERER,
    SPEECH,
    load_checkpoint,
    load_engine,
    load_geometry,
    load_morphable,
    load_renderer,
    load_speech_encoder,
)

COMMON = ["--device", "cpu", "--log-every", "1", "--batch-size", "2"]


def train_geometry(prepared: Path, encoder: Path, output: Path, steps: int) -> None:
    given = ["--data", str(prepared), "--output", str(output), "--speech-encoder", str(encoder)]
    chosen = ["--steps", str(steps), "--finetune-encoder-steps", "1", "--save-every", "2"]
    assert main(["train", "geometry", *given, *chosen, *COMMON]) == 0


def train_renderer(prepared: Path, morphable: Path, output: Path, steps: int) -> None:
    given = ["--data", str(prepared), "--output", str(output), "--morphable", str(morphable)]
    chosen = ["--steps", str(steps), "--adversarial-from", "1", "--save-every", "1"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("dubbing.training.renderer.VALIDATION", 4)  # targets; 32 take a while
        assert main(["train", "renderer", *given, *chosen, *COMMON]) == 0


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def parameters(path: Path, kind: str) -> dict[str, torch.Tensor]:
    return load_checkpoint(path, kind)[1]


def assert_equal(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> None:
    assert set(a) == set(b)
    for name, value in a.items():
        assert torch.equal(value, b[name]), name


@pytest.fixture(scope="module")
def geometry(prepared: Path, start_encoder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("stage1")
    train_geometry(prepared, start_encoder, output, 3)
    return output


@pytest.fixture(scope="module")
def renderer(prepared: Path, geometry: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("stage2")
    train_renderer(prepared, geometry / f"{MORPHABLE}.safetensors", output, 2)
    return output


def test_geometry_run_leaves_checkpoint_and_log(geometry: Path, start_encoder: Path) -> None:
    log = rows(geometry / "geometry.csv")
    assert [float(r["step"]) for r in log] == [1, 2, 3]
    for row in log:
        for term in ("loss", "vertex", "velocity", "opening", "amplitude"):
            assert math.isfinite(float(row[term]))
    model = load_morphable(geometry / f"{MORPHABLE}.safetensors")
    net = load_geometry(geometry / f"{GEOMETRY}.safetensors")
    assert torch.equal(net.mean, model.mean)
    assert torch.equal(net.lower, model.lower.gt(0).nonzero()[:, 0])
    assert net.average_style.abs().max() > 0
    assert net.config.audio_size == 64  # two states of the encoder's 32 channels
    before, after = load_speech_encoder(start_encoder), geometry / f"{SPEECH}.safetensors"
    trained = load_speech_encoder(after).state_dict()
    for name, value in before.state_dict().items():
        upper = name.startswith(("layers.2", "layers.3", "final_norm", "place_mean", "deviation"))
        same = torch.allclose(trained[name], value, atol=1e-6)
        assert same or upper, name  # the lower half is frozen


def test_geometry_resumes_where_it_stopped(
    prepared: Path, start_encoder: Path, geometry: Path, tmp_path: Path
) -> None:
    train_geometry(prepared, start_encoder, tmp_path, 2)
    first = parameters(tmp_path / f"{GEOMETRY}.safetensors", GEOMETRY)
    train_geometry(prepared, start_encoder, tmp_path, 4)
    log = rows(tmp_path / "geometry.csv")
    assert [float(r["step"]) for r in log] == [1, 2, 3, 4]
    second = parameters(tmp_path / f"{GEOMETRY}.safetensors", GEOMETRY)
    assert any(not torch.equal(first[k], second[k]) for k in first)
    train_geometry(prepared, start_encoder, tmp_path, 4)  # finished: nothing happens
    assert len(rows(tmp_path / "geometry.csv")) == 4


def test_seeded_geometry_runs_are_equal(
    prepared: Path, start_encoder: Path, geometry: Path, tmp_path: Path
) -> None:
    train_geometry(prepared, start_encoder, tmp_path, 3)
    for kind in (MORPHABLE, GEOMETRY, SPEECH):
        a, b = (parameters(p / f"{kind}.safetensors", kind) for p in (geometry, tmp_path))
        assert_equal(a, b)
    assert rows(tmp_path / "geometry.csv") == rows(geometry / "geometry.csv")


def test_two_processes_train_one_network(
    prepared: Path, start_encoder: Path, tmp_path: Path
) -> None:
    """Through the step at which the speech encoder joins, from an empty cache."""
    given = ["--data", str(prepared), "--output", str(tmp_path)]
    given += ["--speech-encoder", str(start_encoder), "--steps", "3", "--devices", "2"]
    command = [sys.executable, "-m", "dubbing.cli", "train", "geometry", *given]
    command += ["--finetune-encoder-steps", "1", *COMMON]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-2000:]
    assert [float(r["step"]) for r in rows(tmp_path / "geometry.csv")] == [1, 2, 3]
    load_geometry(tmp_path / f"{GEOMETRY}.safetensors")
    assert not list((tmp_path / "cache").glob(".*"))


def test_fits_follow_the_puppet(prepared: Path, geometry: Path) -> None:
    """Fitted once, kept, and resampled to the model's 25 Hz without a change."""
    model = load_morphable(geometry / f"{MORPHABLE}.safetensors")
    for name in prepared_names(prepared):
        clip = fitted(prepared, geometry / "cache", name, model)
        assert clip.beta.shape[0] == clip.pose.shape[0] == FRAMES
        assert clip.usable.float().mean() > 0.9
        beta, usable = at_rate(clip)
        assert len(beta) == len(usable) == FRAMES
        assert torch.allclose(beta, clip.beta, atol=1e-4)
        half, _ = at_rate(clip, 50.0)
        assert torch.allclose(half[1], (clip.beta[0] + clip.beta[1]) / 2, atol=1e-4)


def test_renderer_run_leaves_checkpoint_and_log(renderer: Path) -> None:
    log = rows(renderer / "renderer.csv")
    assert [float(r["step"]) for r in log] == [0, 1, 2]
    assert float(log[0]["psnr"]) > 20  # copying alone already shows the face
    assert math.isnan(float(log[1]["adversarial"]))
    for term in ("l1", "copied", "adversarial", "matching", "psnr", "psnr_lips"):
        assert math.isfinite(float(log[2][term]))
    load_renderer(renderer / f"{RENDERER}.safetensors")


def test_renderer_resumes_where_it_stopped(prepared: Path, geometry: Path, renderer: Path) -> None:
    train_renderer(prepared, geometry / f"{MORPHABLE}.safetensors", renderer, 3)
    assert [float(r["step"]) for r in rows(renderer / "renderer.csv")] == [0, 1, 2, 3]


def test_seeded_renderer_runs_are_equal(
    prepared: Path, geometry: Path, renderer: Path, tmp_path: Path
) -> None:
    train_renderer(prepared, geometry / f"{MORPHABLE}.safetensors", tmp_path, 2)
    first = rows(renderer / "renderer.csv")[:3]
    again = rows(tmp_path / "renderer.csv")
    for a, b in zip(first, again, strict=True):
        assert a["step"] == b["step"]
        assert a["l1"] == b["l1"]


def test_the_parts_of_both_runs_make_an_engine(
    geometry: Path, renderer: Path, tmp_path: Path
) -> None:
    for folder, kinds in ((geometry, (MORPHABLE, GEOMETRY, SPEECH)), (renderer, (RENDERER,))):
        for kind in kinds:
            (tmp_path / f"{kind}.safetensors").symlink_to(folder / f"{kind}.safetensors")
    engine = load_engine(tmp_path, torch.device("cpu"))
    assert set(engine.hashes) == {MORPHABLE, GEOMETRY, SPEECH, RENDERER}
    assert not engine.renderer.training
    assert not any(p.requires_grad for p in engine.geometry.parameters())


def test_examples_hide_the_target_from_the_references(prepared: Path, geometry: Path) -> None:
    """Neither the target nor its neighbours serve: the true mouth can't be copied."""
    model = load_morphable(geometry / f"{MORPHABLE}.safetensors")
    fits = [fitted(prepared, geometry / "cache", n, model) for n in prepared_names(prepared)]
    clips = load_render_clips(prepared, geometry / "cache", fits, model)
    assert len(clips) == 4
    batcher = RenderBatcher(clips, model, seed=0)
    frames = clips[0].frames
    for row in (0, 3, 13, len(frames) - 1):
        for _ in range(10):
            pair = [row, _neighbour(clips[0], row)]
            assert abs(frames[pair[0]] - frames[pair[1]]) == 1
            near, bank = batcher._references(clips[0], pair)
            assert len(near) == 5
            assert len(set(bank)) == len(bank) >= 5
            for target in pair:
                assert all(abs(frames[k] - frames[target]) > GUARD for k in near + bank)


def test_a_batch_is_what_it_says(prepared: Path, geometry: Path) -> None:
    model = load_morphable(geometry / f"{MORPHABLE}.safetensors")
    fits = [fitted(prepared, geometry / "cache", n, model) for n in prepared_names(prepared)]
    clips = load_render_clips(prepared, geometry / "cache", fits, model)
    batch = RenderBatcher(clips, model, seed=0).draw(3)
    again = RenderBatcher(clips, model, seed=0).draw(3)
    assert torch.equal(batch.truth, again.truth)
    assert batch.truth.shape == batch.pncc.shape == (3, 3, 144, 192)
    assert batch.pictures.shape == (3, 10, 3, 144, 192)
    assert batch.lip_pncc.shape == (3, 5, 3, 144, 192)
    assert batch.face_match.place.shape == (3, 10, 144, 192, 2)
    assert batch.lip_match.place.shape == (3, 5, 80, 120, 2)
    for pictures in (batch.truth, batch.pictures):
        assert pictures.min() >= 0
        assert pictures.max() <= 1
    # a reference warped by the correspondence shows the target wherever the face lies alike
    from dubbing.models.renderer import sample_pixels

    warped = sample_pixels(batch.pictures, batch.face_match.place).mean(1)
    skin = (batch.pncc.amax(1, keepdim=True) > 0).float()
    plain = batch.pictures.mean(1)
    error = [((x - batch.truth).square() * skin).sum() for x in (warped, plain)]
    assert error[0] < error[1]


def test_pairs_share_everything_but_their_moment(prepared: Path, geometry: Path) -> None:
    model = load_morphable(geometry / f"{MORPHABLE}.safetensors")
    fits = [fitted(prepared, geometry / "cache", n, model) for n in prepared_names(prepared)]
    clips = load_render_clips(prepared, geometry / "cache", fits, model)
    batch = RenderBatcher(clips, model, seed=3).draw(5)
    assert batch.pairs == 2
    assert len(batch.truth) == 5
    for k in (0, 2):
        assert torch.equal(batch.pictures[k], batch.pictures[k + 1])
        apart = (batch.truth[k] - batch.truth[k + 1]).abs().mean()
        assert 0 < apart < (batch.truth[k] - batch.truth[k - 1]).abs().mean()
    steps = changed(batch.truth, batch.pairs)
    assert torch.equal(steps[1], batch.truth[3] - batch.truth[2])


def test_jitter_moves_the_geometry_and_not_the_picture(prepared: Path, geometry: Path) -> None:
    model = load_morphable(geometry / f"{MORPHABLE}.safetensors")
    fits = [fitted(prepared, geometry / "cache", n, model) for n in prepared_names(prepared)]
    clips = load_render_clips(prepared, geometry / "cache", fits, model)
    still = RenderBatcher(clips, model, seed=3).draw(2)
    moved = RenderBatcher(clips, model, seed=3, jitter=1.0).draw(2)
    assert torch.equal(still.truth, moved.truth)
    assert torch.equal(still.pictures, moved.pictures)
    away = (still.face_match.place - moved.face_match.place).norm(dim=-1)
    assert away.max() > 1  # pixels
    upper = away[:, :, :20]  # above the lower face nothing is made, so nothing is wrong
    assert upper.max() < 0.05  # the surroundings follow the outline a little
    error = RenderBatcher(clips, model, seed=3, jitter=1.0)._error(clips[0])
    assert error[model.lower == 0].abs().max() == 0
    assert error.norm(dim=-1).max() > 0.003  # half face heights
    clip = clips[0]
    states, _ = clip.scene(RenderMesh.build(model), model, [0])
    wrong = disturbed(states, error, clip.clip.template, clip.clip.pose[[clip.frames[0]]])
    assert torch.equal(wrong.teeth, teeth_shares(clip.clip.template, wrong.displacement))
    assert not torch.equal(wrong.teeth, states.teeth)


def test_bad_start_weights_are_named(
    prepared: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    nowhere = tmp_path / "nothing.safetensors"
    base = ["--data", str(prepared), "--output", str(tmp_path / "out"), "--device", "cpu"]
    assert main(["train", "geometry", *base, "--speech-encoder", str(nowhere)]) == 9
    assert main(["train", "renderer", *base, "--morphable", str(nowhere)]) == 9
    assert capsys.readouterr().err.count("nothing.safetensors") == 2
