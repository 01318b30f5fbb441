"""Parts of stage 1's training: loss, sync, augmentation, windows of examples."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from synthetic_face import face_model, neutral_face, speaking
from torch import Tensor

from dubbing.geometry.topology import INNER_BOTTOM
from dubbing.models.geometry_net import VERTEX_SCALE
from dubbing.training.disturb import disturbed
from dubbing.training.geometry import append_csv, build_net
from dubbing.training.geometry_data import (
    STYLE_FRAMES,
    WINDOW,
    Batcher,
    Example,
    Window,
    joined_windows,
    load_examples,
    sample_windows,
)
from dubbing.training.geometry_loss import GeometryLoss
from dubbing.training.lags import best_lag, correlation
from dubbing.training.speech_states import (
    CORE,
    LENGTH,
    STEP,
    VARIANTS,
    SpeechStates,
    speech_states,
    window_centres,
)

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
    assert all(abs(v.item()) < 1e-6 for v in loss_of(moved, moved).values())


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


def test_lips_that_stay_apart_cost_more_than_lips_that_press() -> None:
    target = displaced(torch.full((10,), -0.02))
    apart, pressed = (loss_of(target + displaced(torch.full((10,), d)), target)
                      for d in (0.1, -0.1))  # fmt: skip
    assert apart["closure"] > 0.001
    assert pressed["closure"] == 0
    wide = displaced(torch.full((10,), 1.2))
    assert loss_of(displaced(torch.full((10,), 1.3)), wide)["closure"] < 1e-3 * apart["closure"]


def test_shape_is_the_course_whatever_its_size() -> None:
    time = torch.arange(50) / 25
    target = displaced(0.5 + 0.4 * torch.sin(6.28 * 2 * time))
    late = displaced(0.5 + 0.4 * torch.sin(6.28 * 2 * (time - 0.125)))
    smaller = displaced(0.5 + 0.3 * torch.sin(6.28 * 2 * time))
    assert loss_of(late, target)["shape"] > 0.5  # a quarter period late: no correlation
    assert loss_of(smaller, target)["shape"] < 0.05


def test_velocity_and_amplitude_terms() -> None:
    time = torch.arange(50) / 25
    target = displaced(0.5 + 0.4 * torch.sin(6.28 * 2 * time))
    shaking = target + 0.01 * torch.randn(target.shape, generator=torch.Generator().manual_seed(0))
    shifted = target + 0.01
    assert loss_of(shifted, target)["velocity"] < 1e-6 < loss_of(shaking, target)["velocity"]
    flat = displaced(torch.full((50,), 0.5))
    spread = loss_of(flat, target)["amplitude"]
    gap = GeometryLoss(face_model()).gap(target, neutral_face()[None])
    jaw = GeometryLoss(face_model()).jaw(target)
    width = GeometryLoss(face_model()).width(target)
    moved = (gap.std(correction=0) + jaw.std(correction=0) + width.std(correction=0)) / 3
    assert torch.isclose(spread, moved, atol=0.01)
    assert loss_of(target.flip(1), target)["amplitude"] < 1e-4  # same liveliness


def test_masked_frames_do_not_count() -> None:
    target = displaced(torch.rand(20))
    wrong = target.clone()
    wrong[:, 12:] += 1
    mask = (torch.arange(20) < 12).float()[None]
    assert all(abs(v.item()) < 1e-6 for v in loss_of(wrong, target, mask).values())
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


@pytest.mark.parametrize("total", [1, 90, 400, 1234])
@pytest.mark.parametrize("phase", [0, 57, STEP - 1])
def test_every_frame_lies_in_the_core_of_a_window(total: int, phase: int) -> None:
    centres = torch.tensor(window_centres(total, phase))
    distance = (torch.arange(total)[:, None] - centres).abs().amin(1)
    assert distance.max() <= CORE


def extract_clock(sound: Tensor, phase: int) -> tuple[Tensor, Tensor, int]:
    """Windows whose frames hold their own number in the sound, times 0.001."""
    total = len(sound) // 320
    first = torch.tensor(window_centres(total, phase)) - LENGTH // 2
    frames = first[:, None] + torch.arange(LENGTH)
    return frames[..., None].expand(-1, -1, 2) * 0.001, first, total


def test_speech_states_are_computed_once(tmp_path: Path) -> None:
    calls = []

    def extract(sound: Tensor, phase: int) -> tuple[Tensor, Tensor, int]:
        calls.append((len(sound), phase))
        return extract_clock(sound, phase)

    def never(sound: Tensor, phase: int) -> tuple[Tensor, Tensor, int]:
        raise AssertionError("the cache was not used")

    first = speech_states(extract, torch.randn(160000), tmp_path, "a", seed=1)
    assert len(calls) == VARIANTS
    assert calls[0][0] == 160000  # the recording itself
    assert first.stretch[0] == 1.0
    assert len({phase for _, phase in calls}) > 1
    assert first.windows.dtype == torch.float16
    for k, stretch in enumerate(first.stretch.tolist()):
        assert abs(int(first.counts[k]) - 500 / stretch) <= 1
        assert (
            first.first[first.of(k)] == first.windows[first.of(k), 0, 0].mul(1000).round()
        ).all()
    again = speech_states(never, torch.randn(160000), tmp_path, "a", seed=1)
    assert torch.equal(again.windows, first.windows)
    assert torch.equal(again.first, first.first)
    assert torch.equal(again.stretch, first.stretch)


def test_two_writers_of_the_same_states_do_not_meet(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second process writes the whole entry while the first is in the midst of its own."""
    sound = torch.randn(160000)
    save = np.save
    others: list[Any] = []

    def interrupted(*given: Any, **named: Any) -> None:
        save(*given, **named)
        if not others:
            others.append("being written")
            others.append(speech_states(extract_clock, sound, tmp_path, "a", seed=1))

    monkeypatch.setattr(np, "save", interrupted)
    ours = speech_states(extract_clock, sound, tmp_path, "a", seed=1)
    assert torch.equal(ours.windows, others[1].windows)
    assert {p.name for p in tmp_path.iterdir()} == {"a.states.npz", "a.windows.npy"}


def test_windows_join_to_one_track() -> None:
    windows, first, total = extract_clock(torch.zeros(320 * 700), 31)
    track = joined_windows(windows, first, total)
    assert torch.allclose(track[:, 0], torch.arange(700) * 0.001, atol=1e-5)


def clock_example(frames: int, lag: int = 0) -> Example:
    """Every feature holds its own frame in its variant's sound, times 0.001."""
    stretch = torch.tensor([1.0, 0.85, 1.2])
    parts = [extract_clock(torch.zeros(int(frames * 640 / s)), 13 * k) for k, s in
             enumerate(stretch.tolist())]  # fmt: skip
    states = SpeechStates(
        torch.cat([p[0] for p in parts]),
        torch.cat([p[1] for p in parts]),
        torch.cat([torch.full((len(p[0]),), k) for k, p in enumerate(parts)]),
        stretch,
        torch.tensor([p[2] for p in parts]),
    )
    return Example("clock", speaking(frames), torch.ones(frames).bool(), neutral_face(), states,
                   lag, speaker="one")  # fmt: skip


@pytest.mark.parametrize("lag", [0, 3, -4])
def test_sound_and_lips_of_a_window_belong_together(lag: int) -> None:
    """Drawn windows: the sound is that of the frame's own time, the lips those `lag` later."""
    example = clock_example(300, lag)
    batcher = Batcher([example], face_model(), seed=0)
    items = [batcher._window(example) for _ in range(12)]
    batch = batcher.collate(items)
    truth = face_model().expression_vertices(example.beta)[:, lower()]
    heard = sample_windows(batch.windows, batch.places)[..., 0].view(len(items), -1, 2).mean(2)
    for row, item in enumerate(items):
        time = torch.arange(item.start, item.start + WINDOW)
        stretch = example.states.stretch[example.states.variant[item.piece]]
        expected = (time / 25 / stretch - 0.01) * 50 * 0.001  # feature k stands for k / 50 + 0.01
        known = batch.mask[row].bool()
        assert torch.allclose(heard[row][known], expected[known], atol=2e-4)
        inside = (time + lag >= 0) & (time + lag < 300)
        assert (inside | ~known).all()
        assert known.sum() >= 0.9 * inside.sum()
        assert torch.equal(batch.target[row][known], truth[(time + lag)[known]])
    assert len({(item.piece, item.start) for item in items}) > 6


def test_style_comes_from_any_clip_of_the_speaker() -> None:
    one, two = clock_example(300), clock_example(120)
    two = Example(**{**vars(two), "name": "two"})
    third = Example(**{**vars(clock_example(150)), "name": "third", "speaker": "other"})
    batcher = Batcher([one, two, third], face_model(), seed=0)
    drawn = [batcher._window(one).style.name for _ in range(60)]
    assert set(drawn) == {"clock", "two"}
    item = Window(one, 0, 0, two, 7)
    batch = batcher.collate([item])
    own = face_model().expression_vertices(two.beta[7 : 7 + STYLE_FRAMES])
    assert torch.equal(batch.style[0], own)
    assert batch.style_mask.all()


def test_short_clips_are_padded() -> None:
    example = clock_example(40)
    batch = Batcher([example], face_model(), seed=0).draw(3)
    assert batch.target.shape == (3, WINDOW, len(lower()), 3)
    assert (batch.mask[:, 40:] == 0).all()
    assert (batch.mask.sum(1) >= 38).all()  # the first frame's first half has no sound
    assert torch.equal(batch.style_mask.sum(1), torch.full((3,), 40))


def test_batches_follow_the_seed_and_leave_clips_out() -> None:
    kept, dropped = clock_example(200), clock_example(120)
    dropped = Example(**{**vars(dropped), "weight": 0.0, "template": neutral_face() + 1})
    a, b = (Batcher([kept, dropped], face_model(), seed=5) for _ in range(2))
    first, second = a.draw(8), b.draw(8)
    assert torch.equal(first.target, second.target)
    assert torch.equal(first.windows, second.windows)
    assert (first.template == neutral_face()).all()
    assert not torch.equal(a.draw(8).target, first.target)


def test_long_clips_are_covered_to_their_end(tmp_path: Path) -> None:
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
    (example,) = load_examples(tmp_path, tmp_path, {"long": "p"}, face_model(), extract_clock)
    assert len(example.beta) == frames
    assert example.speaker == "p"
    batcher = Batcher([example], face_model(), seed=0)
    ends = {w.start + WINDOW for w in (batcher._window(example) for _ in range(400))}
    assert max(ends) == frames


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
