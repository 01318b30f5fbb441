"""Parts of stage 1's training: loss, sync, augmentation, windows of examples."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from synthetic_face import face_model, neutral_face, speaking
from torch import Tensor

from dubbing.geometry.topology import INNER_BOTTOM
from dubbing.models.geometry_net import VERTEX_SCALE
from dubbing.speech.features import to_rate
from dubbing.training.geometry import (
    MAX_FRAMES,
    STYLE_FRAMES,
    WINDOW,
    Batcher,
    Example,
    append_csv,
    best_lag,
    build_net,
    correlation,
    load_examples,
)
from dubbing.training.geometry_loss import GeometryLoss
from dubbing.training.speech_states import VARIANTS, SpeechStates, disturbed, speech_states

torch.set_num_threads(1)


def lower() -> Tensor:
    return face_model().lower.gt(0).nonzero()[:, 0]


def displaced(jaw: Tensor) -> Tensor:
    """Lower-face displacements [1, T, L, 3] of a jaw that opens by `jaw` [T]."""
    beta = torch.zeros(len(jaw), 3)
    beta[:, 0] = jaw
    return face_model().expression_vertices(beta)[None, :, lower()]


def loss_of(predicted: Tensor, target: Tensor, mask: Tensor | None = None) -> dict[str, Tensor]:
    mask = torch.ones(predicted.shape[:2]) if mask is None else mask
    return GeometryLoss(face_model())(predicted, target, neutral_face()[None], mask)


def test_equal_motion_costs_nothing() -> None:
    moved = displaced(torch.rand(20))
    assert all(v.item() == 0 for v in loss_of(moved, moved).values())


def test_gap_is_the_signed_opening() -> None:
    loss = GeometryLoss(face_model())
    jaw = torch.tensor([-0.2, 0.0, 0.5, 1.0])
    gap = loss.gap(displaced(jaw), neutral_face()[None])[0]
    assert gap[0] < 0 < gap[2] < gap[3]
    per_unit = face_model().expression[0, INNER_BOTTOM, 1] * VERTEX_SCALE
    assert torch.allclose(gap - gap[1], jaw * per_unit, atol=1e-4)


def test_a_closed_mouth_must_close() -> None:
    """The same error of the opening costs up to three times more where the lips should meet."""
    closed, wide = torch.full((10,), -0.02), torch.full((10,), 1.2)
    missed = [
        loss_of(displaced(target + 0.1), displaced(target))["opening"] for target in (closed, wide)
    ]
    assert 2.5 < missed[0] / missed[1] < 3.01
    assert torch.isclose(  # the vertex term makes no such difference
        loss_of(displaced(closed + 0.1), displaced(closed))["vertex"],
        loss_of(displaced(wide + 0.1), displaced(wide))["vertex"],
        rtol=1e-3,
    )


def test_lips_count_more_than_cheeks() -> None:
    target = displaced(torch.zeros(5))
    cost = {}
    for vertex in (14, 17, 152, 214):
        off = target.clone()
        off[:, :, (lower() == vertex).nonzero()[0, 0], 0] += 0.01  # sideways: no opening
        cost[vertex] = loss_of(off, target)["vertex"].item()
    assert cost[14] == pytest.approx(6 * cost[152], rel=0.01)
    assert cost[17] == pytest.approx(4 * cost[214], rel=0.01)


def test_velocity_and_amplitude_terms() -> None:
    time = torch.arange(50) / 25
    target = displaced(0.5 + 0.4 * torch.sin(6.28 * 2 * time))
    shaking = target + 0.01 * torch.randn(target.shape, generator=torch.Generator().manual_seed(0))
    shifted = target + 0.01
    assert loss_of(shifted, target)["velocity"] < 1e-6 < loss_of(shaking, target)["velocity"]
    flat = displaced(torch.full((50,), 0.5))
    spread = loss_of(flat, target)["amplitude"]
    gap = GeometryLoss(face_model()).gap(target, neutral_face()[None])
    assert torch.isclose(spread, gap.std(correction=0), atol=0.01)
    assert loss_of(target.flip(1), target)["amplitude"] < 1e-4  # same liveliness


def test_masked_frames_do_not_count() -> None:
    target = displaced(torch.rand(20))
    wrong = target.clone()
    wrong[:, 12:] += 1
    mask = (torch.arange(20) < 12).float()[None]
    assert all(v.item() == 0 for v in loss_of(wrong, target, mask).values())
    assert torch.isfinite(loss_of(wrong, target, torch.zeros(1, 20))["loss"])


def test_best_lag_finds_a_known_offset() -> None:
    signal = torch.randn(130, generator=torch.Generator().manual_seed(0))
    for lag in (-6, 0, 3, 8):
        predicted, seen = signal[10:110], signal[10 - lag : 110 - lag]  # seen comes `lag` later
        found, peak = best_lag(predicted, seen)
        assert found == lag
        assert peak > 0.99
    assert best_lag(signal[:100], torch.randn(100))[1] < 0.5
    assert correlation(signal, torch.ones(130)) == pytest.approx(0.0, abs=1e-6)
    assert correlation(signal, -2 * signal) == pytest.approx(-1.0)


def test_disturbed_speech_keeps_its_time() -> None:
    """A burst at time t lies at t / stretch; level and length follow; the seed decides."""
    for seed in range(6):
        samples = torch.zeros(16000)
        burst = torch.randn(800, generator=torch.Generator().manual_seed(99))
        samples[10000:10800] = burst
        out, stretch = disturbed(samples, torch.Generator().manual_seed(seed))
        again, _ = disturbed(samples, torch.Generator().manual_seed(seed))
        assert torch.equal(out, again)
        assert 2**-0.3 <= stretch <= 2**0.3
        assert abs(len(out) - 16000 / stretch) <= 1
        assert 0.049 < out.abs().max() < 0.901
        energy = torch.nn.functional.avg_pool1d(out.square()[None, None], 400, 100)[0, 0]
        loudest = (energy.argmax().item() * 100 + 200) / 16000
        assert abs(loudest - 10400 / 16000 / stretch) < 0.05
    assert not torch.equal(out, disturbed(samples, torch.Generator().manual_seed(77))[0])


def test_speech_states_are_computed_once(tmp_path: Path) -> None:
    calls = []

    def extract(sound: Tensor, offset: int) -> Tensor:
        calls.append((len(sound), offset))
        return torch.ones(len(sound) // 320, 6)

    def never(sound: Tensor, offset: int) -> Tensor:
        raise AssertionError("the cache was not used")

    first = speech_states(extract, torch.randn(16000), tmp_path, "a", seed=1)
    assert len(calls) == VARIANTS
    assert calls[0] == (16000, 0)  # the recording itself
    assert first.stretch[0] == 1.0
    assert first.features.dtype == torch.float16
    for row, stretch in zip(first.features, first.stretch.tolist(), strict=True):
        assert abs(int(row[:, 0].sum()) - 50 / stretch) <= 1  # padded with zeros to the longest
    again = speech_states(never, torch.randn(16000), tmp_path, "a", seed=1)
    assert torch.equal(again.features, first.features)
    assert torch.equal(again.stretch, first.stretch)


def clock_example(frames: int, lag: int = 0) -> Example:
    """Feature k of each variant holds its own time in that variant's sound."""
    stretch = torch.tensor([1.0, 0.85, 1.2])
    count = int(frames * 2 / 0.85) + 10
    time = (torch.arange(count) + 0.5) / 50
    states = SpeechStates(time.half()[None, :, None].expand(3, -1, 2), stretch)
    beta = speaking(frames)
    return Example("clock", beta, torch.ones(frames).bool(), neutral_face(), states, lag)


@pytest.mark.parametrize("lag", [0, 3, -4])
def test_sound_and_lips_of_a_window_belong_together(lag: int) -> None:
    example = clock_example(300, lag)
    batcher = Batcher([example], face_model(), seed=0)
    items = [(example, start, 7, v) for start, v in ((0, 0), (0, 1), (150, 2), (204, 1))]
    batch = batcher.collate(items)
    truth = face_model().expression_vertices(example.beta)[:, lower()]
    for row, (_, start, _, variant) in enumerate(items):
        time = torch.arange(start, start + WINDOW)
        seen = to_rate(batch["features"][row], batch["places"][row] / 50.0, 0.0)[:, 0]
        expected = time / 25 / example.states.stretch[variant]
        late = time > 0  # before the first feature's middle its value stands
        assert torch.allclose(seen[late], expected[late], atol=0.012)  # half precision
        inside = (time + lag >= 0) & (time + lag < 300)
        assert torch.equal(batch["mask"][row].bool(), inside)
        assert torch.equal(batch["target"][row][inside], truth[(time + lag)[inside]])
    own = face_model().expression_vertices(example.beta[7 : 7 + STYLE_FRAMES])
    assert torch.equal(batch["style"][0], own)
    assert batch["style_mask"].all()


def test_short_clips_are_padded() -> None:
    example = clock_example(40)
    batcher = Batcher([example], face_model(), seed=0)
    batch = batcher.draw(3)
    assert batch["target"].shape == (3, WINDOW, len(lower()), 3)
    assert torch.equal(batch["mask"].sum(1), torch.full((3,), 40.0))
    assert torch.equal(batch["style_mask"].sum(1), torch.full((3,), 40))
    assert torch.equal(batcher.model.mean, face_model().mean)


def test_batches_follow_the_seed_and_leave_clips_out() -> None:
    kept, dropped = clock_example(200), clock_example(120)
    dropped = Example(**{**vars(dropped), "weight": 0.0, "template": neutral_face() + 1})
    a, b = (Batcher([kept, dropped], face_model(), seed=5) for _ in range(2))
    first, second = a.draw(8), b.draw(8)
    assert all(torch.equal(first[k], second[k]) for k in first)
    assert (first["template"] == neutral_face()).all()
    assert not torch.equal(a.draw(8)["target"], first["target"])


def test_long_clips_end_where_their_sound_does(tmp_path: Path) -> None:
    """The encoder takes 30 s; frames beyond have no features and must not be drawn."""
    frames = 1000
    np.savez(
        tmp_path / "long.npz",
        landmarks=np.zeros((frames, 478, 3), np.float32),
        times=np.arange(frames) / 25,
        boxes=np.zeros((frames, 3), np.float32),
        speech=np.zeros(frames * 640, np.int16),
    )
    np.savez(
        tmp_path / "long.fit.npz",
        beta=np.zeros((frames, 3), np.float32),
        pose=np.zeros((frames, 6), np.float32),
        template=neutral_face().numpy(),
        usable=np.ones(frames, bool),
    )

    def extract(sound: Tensor, offset: int) -> Tensor:
        return torch.ones(min(len(sound) // 320, 1500), 4)

    (example,) = load_examples(tmp_path, tmp_path, ["long"], face_model(), extract)
    assert len(example.beta) == MAX_FRAMES
    batcher = Batcher([example], face_model(), seed=0)
    for variant, stretch in enumerate(example.states.stretch.tolist()):
        last = (MAX_FRAMES - 1) / 25 / stretch * 50
        assert last < example.states.features[variant, :, 0].sum()
    start = MAX_FRAMES - WINDOW
    batch = batcher.collate([(example, start, 0, k) for k in range(VARIANTS)])
    for row in range(VARIANTS):
        seen = to_rate(batch["features"][row], batch["places"][row] / 50.0, 0.0)
        assert (seen == 1).all()


def test_a_fresh_network_fits_the_model_and_the_features() -> None:
    net = build_net(face_model(), audio_size=64)
    assert net.config.audio_size == 64
    assert net.config.lower_vertices == len(lower())
    assert torch.equal(net.mean, face_model().mean)


def test_the_log_has_one_header(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    append_csv(path, {"step": 1, "loss": 0.5})
    append_csv(path, {"step": 2, "loss": 0.25})
    assert path.read_text().split() == ["step,loss", "1,0.5", "2,0.25"]
