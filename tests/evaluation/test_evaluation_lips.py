"""Figures of lips on movements whose answers are known."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from dubbing.errors import InputNotFound, OptionInvalid
from dubbing.evaluation import protocols, sections, summaries
from dubbing.evaluation.clips import Clip, clip_of, load_clips, other_speaker
from dubbing.evaluation.closures import Closures, compare_closures, runs, surrounded
from dubbing.evaluation.curves import LipCurve
from dubbing.evaluation.faces import FaceMotion, vertex_motion
from dubbing.evaluation.lips import lip_agreement, lip_closures, lip_distance
from dubbing.evaluation.protocols import OTHER, collect, pairs_of
from dubbing.evaluation.sections import Measuring
from dubbing.evaluation.silence import (
    pause_movement,
    pauses,
    quietest,
    stillness,
    with_silence,
)
from dubbing.evaluation.studio import RememberedFeatures, Studio
from dubbing.evaluation.targets import Target
from dubbing.geometry.morphable import eye_distance
from dubbing.geometry.topology import INNER_BOTTOM, LIPS, LOWER_INNER_LIP, LOWER_OUTER_LIP
from dubbing.weights import MORPHABLE, load_morphable, resolve

LOWER_LIP = sorted(set(LOWER_INNER_LIP) | set(LOWER_OUTER_LIP))


@pytest.fixture(scope="module")
def face() -> torch.Tensor:
    """A neutral face [V, 3] with closed lips."""
    mean = load_morphable(resolve("default") / f"{MORPHABLE}.safetensors").mean.clone()
    return mean


def talking(face: torch.Tensor, opening: np.ndarray) -> FaceMotion:
    """A face whose lower lip falls by `opening` [N] of the model's unit, at 25 Hz."""
    vertices = face.expand(len(opening), -1, -1).clone()
    vertices[:, LOWER_LIP, 1] += torch.tensor(opening, dtype=torch.float32)[:, None]
    return FaceMotion(np.arange(len(opening)) / 25, vertices)


def speech_like(frames: int, seed: int = 0) -> np.ndarray:
    """An opening [N] of 0 to 0.2 with about two closures a second at odd times."""
    rng = np.random.default_rng(seed)
    knots = rng.uniform(0.1, 0.2, frames // 4 + 1)
    knots[rng.random(len(knots)) < 0.4] = 0.0
    return np.interp(np.arange(frames), np.arange(len(knots)) * 4, knots)


def test_the_truth_itself_is_faultless(face: torch.Tensor) -> None:
    truth = talking(face, speech_like(200))
    agreement = lip_agreement(truth, truth)
    assert agreement.opening == pytest.approx(1)
    assert (agreement.lag, agreement.amplitude) == (0, pytest.approx(1))
    assert lip_distance(truth, truth) == 0
    closures = lip_closures(truth, truth)
    assert closures.runs >= 8
    assert (closures.share, closures.false_share) == (1.0, 0.0)


def test_a_shift_of_three_frames_is_seen_in_the_lag(face: torch.Tensor) -> None:
    truth = talking(face, speech_like(200))
    agreement = lip_agreement(truth, truth.shifted(3 / 25))
    assert agreement.lag == 3
    assert agreement.best == pytest.approx(1)
    assert agreement.opening < 0.5
    moved_back = lip_agreement(truth, truth.shifted(3 / 25).shifted(-3 / 25))
    assert (moved_back.lag, moved_back.opening) == (0, pytest.approx(1))


def test_a_frozen_mouth_fails_amplitude_and_closures(face: torch.Tensor) -> None:
    truth = talking(face, speech_like(200))
    frozen = truth.still(face)
    agreement = lip_agreement(truth, frozen)
    assert (agreement.opening, agreement.amplitude) == (0.0, pytest.approx(0, abs=1e-6))
    closures = lip_closures(truth, frozen)
    assert (closures.share, closures.false_share) == (0.0, 0.0)
    assert lip_distance(truth, frozen) > 0


def test_lmd_is_the_mean_distance_in_eye_distances(face: torch.Tensor) -> None:
    truth = talking(face, np.zeros(50))
    made = truth.vertices.clone()
    made[:, list(LIPS), 2] += 0.03
    made[:, INNER_BOTTOM, 2] += 0.05
    expected = (0.03 + 0.05 / len(LIPS)) / float(eye_distance(face))
    assert lip_distance(truth, FaceMotion(truth.times, made)) == pytest.approx(expected, rel=1e-4)
    made[:, 10] += 1.0  # the forehead does not count
    assert lip_distance(truth, FaceMotion(truth.times, made)) == pytest.approx(expected, rel=1e-4)
    assert np.isnan(lip_distance(truth, truth.shifted(10.0)))


def opened(closed: list[tuple[int, int]], frames: int = 100) -> np.ndarray:
    """An opening [N] of 1 with closures of 0 in the runs (first, end)."""
    values = np.ones(frames)
    for first, end in closed:
        values[first:end] = 0
    return values


TRUTH = opened([(20, 24), (50, 52), (80, 85)])


@pytest.mark.parametrize(
    ("made", "met", "false"),
    [
        ([(20, 24), (50, 52), (80, 85)], 3, 0),
        ([(25, 26), (48, 49), (86, 87)], 3, 0),  # two frames off at most
        ([(26, 29), (47, 48), (87, 88)], 0, 5),  # three frames off
        ([(10, 13)], 0, 3),
    ],
)
def test_closures_are_met_within_two_frames(
    made: list[tuple[int, int]], met: int, false: int
) -> None:
    found = compare_closures(TRUTH, opened(made))
    assert (found.runs, found.met) == (3, met)
    inside = surrounded(TRUTH > 0.3, 2)
    assert found.open == inside.sum() == 100 - 11 - 3 * 4
    assert found.false == false


def test_a_mouth_that_hardly_opens_meets_all_but_closes_falsely() -> None:
    closed = np.zeros(100)
    closed[40:46] = 1.0
    found = compare_closures(TRUTH, closed)
    assert found.share == 1.0
    assert found.false_share == pytest.approx(1 - 6 / found.open)


def test_a_closure_is_judged_by_the_makers_own_range() -> None:
    """Never quite closed, but the least open of its own range."""
    assert compare_closures(TRUTH, 0.5 + 0.1 * TRUTH).share == 1.0


def test_only_closures_that_count_and_are_known_are_asked_for() -> None:
    made = opened([(20, 24)])
    counted = np.arange(100) < 40
    assert compare_closures(TRUTH, made, counted).share == 1.0
    made[45:60] = np.nan
    assert compare_closures(TRUTH, made).runs == 2
    assert compare_closures(np.ones(100), made) == Closures(0, 0, 0, 0)
    assert Closures(0, 0, 0, 0).share is None
    assert Closures(4, 1, 10, 2) + Closures(4, 3, 10, 3) == Closures(8, 4, 20, 5)


def test_runs_and_neighbourhoods() -> None:
    mask = np.array([1, 1, 0, 0, 1, 1, 1, 1, 1, 0], bool)
    assert runs(mask) == [(0, 2), (4, 9)]
    np.testing.assert_array_equal(np.flatnonzero(surrounded(mask, 1)), [0, 5, 6, 7])
    assert runs(np.zeros(3, bool)) == []


SPEECH = [(0.0, 4.0), (6.0, 10.0)]
SILENCES = ((4.0, 6.0), (10.0, 12.0))
REST = 0.05


def eased(seconds: float, rest: float = REST, wobble: float = 0.0) -> LipCurve:
    """A mouth that speaks in SPEECH and eases to `rest` in `seconds`."""
    times = np.arange(300) / 25
    voice = 0.2 + 0.1 * np.sin(2 * np.pi * 3 * times)
    gap = np.full(300, np.inf)
    for start, end in SPEECH:
        away = np.maximum(np.maximum(start - times, times - end), 0)
        gap = np.minimum(gap, away)
    gate = np.clip(1 - gap / max(seconds, 1e-6), 0, 1)
    still = rest + wobble * np.sin(2 * np.pi * 2 * times)
    opening = still + gate * (voice - still)
    return LipCurve(times, opening, opening, opening)


def test_a_mouth_that_eases_to_rest_is_still() -> None:
    found = stillness(eased(0.16), REST, SILENCES, SPEECH)
    assert found.movement == pytest.approx(0, abs=1e-9)
    assert found.rest == pytest.approx(0, abs=1e-9)
    assert found.ease == pytest.approx(0.16, abs=0.03)
    assert found.snap < 1.6


def test_movement_and_another_resting_mouth_are_found_in_silence() -> None:
    moving = stillness(eased(0.16, wobble=0.05), REST, SILENCES, SPEECH)
    assert moving.movement == pytest.approx(0.5, rel=0.1)
    assert moving.ease > 1.5
    open_mouthed = stillness(eased(0.16, rest=0.06), REST, SILENCES, SPEECH)
    assert open_mouthed.rest == pytest.approx(0.2)
    assert open_mouthed.rest_range == pytest.approx(0.05, rel=0.05)


def test_a_snap_is_larger_than_the_steps_of_speech() -> None:
    assert stillness(eased(0.0), REST, SILENCES, SPEECH).snap > 2


def test_silence_needs_speech_beside_it() -> None:
    with pytest.raises(OptionInvalid, match="no speech"):
        stillness(eased(0.16), REST, SILENCES, [(4.5, 5.0)])
    with pytest.raises(OptionInvalid, match="too short"):
        stillness(eased(0.16), REST, ((4.0, 4.3),), SPEECH)
    with pytest.raises(OptionInvalid, match="nobody speaks"):
        with_silence(np.ones(16000, np.float32), [])


def test_silence_is_put_at_the_quietest_place_and_after_the_speech() -> None:
    rng = np.random.default_rng(0)
    samples = rng.normal(0, 0.1, 5 * 16000).astype(np.float32)
    samples[32000:33600] *= 0.01  # 2.0 to 2.1 s
    assert quietest(samples, 1.0, 3.0) == pytest.approx(32800, abs=500)
    material = with_silence(samples, [(0.2, 0.5), (1.0, 3.4), (4.0, 4.5)])
    (first, second), (third, end) = material.silences
    assert first == pytest.approx(2.05, abs=0.04)
    assert (second - first, end - third) == (pytest.approx(2.0), pytest.approx(2.0))
    assert material.seconds == end == pytest.approx(4.5 + 2 + 2)
    assert not material.samples[round(first * 16000) : round(second * 16000)].any()
    assert not material.samples[round(third * 16000) :].any()
    kept = np.delete(material.samples, slice(round(first * 16000), round(second * 16000)))
    np.testing.assert_array_equal(kept[:72000], samples[:72000])


def test_pauses_are_what_lies_between_speech() -> None:
    found = pauses([(1.0, 2.0), (2.3, 3.0), (4.0, 5.0)], 5.4)
    assert found == [(0.2, 0.8), (3.2, 3.8)]
    times = np.arange(135) / 25
    opening = np.where(times < 2.5, np.sin(times * 20), 0.0)
    assert pause_movement(opening, times, [(1.0, 2.0)], 2.4) == pytest.approx(1, rel=0.3)
    assert pause_movement(opening, times, [(0.0, 2.5)], 5.4) == 0
    assert pause_movement(opening, times, [(0.0, 5.4)], 5.4) is None


def test_pairs_and_others_go_by_speaker() -> None:
    clips = [Clip(Path(f"{k}.mp4"), s) for k, s in enumerate("aabca")]
    pairs = [(int(a.path.stem), int(b.path.stem)) for a, b in pairs_of(clips)]
    assert pairs == [(0, 1), (0, 4), (1, 0), (1, 4), (4, 0), (4, 1)]
    assert [other_speaker(clips, c).path.stem for c in clips] == ["2", "2", "3", "4", "2"]
    with pytest.raises(OptionInvalid, match="one speaker"):
        other_speaker(clips[:2], clips[0])


def test_a_manifest_says_who_counts_and_what_is_spoken(tmp_path: Path) -> None:
    for name in ("a.mp4", "b.mkv", "c.mp4", "notes.txt"):
        (tmp_path / name).touch()
    manifest = tmp_path / "manifest.csv"
    manifest.write_text(
        "file,role,speaker,language\nx/a.mp4,dev,ann,pt\nx/b.mkv,dev-source,bob,de\n"
        "x/c.mp4,dev,,en? (unlabelled)\n"
    )
    clips = load_clips(tmp_path, manifest)
    assert [(c.name, c.speaker, c.language) for c in clips] == [
        ("a.mp4", "ann", "pt"),
        ("c.mp4", "c", ""),
    ]
    assert [c.speaker for c in load_clips(tmp_path, None)] == ["a", "b", "c"]
    languages = {"pl (syllables)": "pl", "unknown": "", "": "", "en?": ""}
    for words, code in languages.items():
        assert clip_of(Path("x"), {"language": words}).language == code
    with pytest.raises(InputNotFound, match="manifest"):
        load_clips(tmp_path, tmp_path / "none.csv")
    with pytest.raises(InputNotFound, match="folder"):
        load_clips(tmp_path / "none", None)
    manifest.write_text("name\nx\n")
    with pytest.raises(OptionInvalid, match="columns file and role"):
        load_clips(tmp_path, manifest)


def test_means_pool_closures_and_skip_what_is_missing() -> None:
    row = dict.fromkeys(("opening", "width", "jaw", "amplitude", "best"), 0.5)
    row |= {"lag": 0, "lmd": 0.02, "rest lmd": 0.04, "runs": 4, "met": 4, "open": 10, "false": 0}
    poor = {**row, "lag": 4, "opening": 0.1, "runs": 1, "met": 0, "false": 5, "amplitude": 2.5}
    found = summaries.lips([row, poor])
    assert found["opening"] == pytest.approx(0.3)
    assert (found["amplitude"], found["amplitude, median"]) == (1.5, 1.5)
    assert (found["lag"], found["lag within 1 frame"]) == (2.0, 0.5)
    assert (found["closures met"], found["false closures"]) == (0.8, 0.25)
    assert found["lmd under rest"] == pytest.approx(0.5)
    assert found[summaries.LMD] == pytest.approx(2.0)
    assert summaries.agreement([row], OTHER)["opening"] is None
    assert summaries.mean([{"a": None}, {"a": 1.0}, {}], "a") == 1.0
    assert summaries.largest([], "a") is None


def test_targets_are_met_inside_their_range_only() -> None:
    assert Target("t", 0.65, low=0.65).met
    assert not Target("t", 0.6499, low=0.65).met
    assert not Target("t", 1.2, 0.85, 1.15).met
    assert not Target("t", None, low=0).met
    assert not Target("t", float("nan"), low=0).met
    assert str(Target("t", 0.5, low=0.65)) == "MISSED t: 0.5000"
    assert str(Target("t", None)) == "MISSED t: not measured"


class Scripted(Studio):
    """A studio whose lips are given: {(clip, speech): movement}."""

    def __init__(self, real: dict[Clip, FaceMotion], made: dict[tuple[Clip, Clip], FaceMotion]):
        super().__init__(dubber=None, folder=Path("none"))  # type: ignore[arg-type]
        object.__setattr__(self, "real", real)
        object.__setattr__(self, "made", made)

    def truth(self, clip: Clip) -> FaceMotion:
        return self.real[clip]  # type: ignore[attr-defined,no-any-return]

    def lips(self, clip: Clip, speech: Clip) -> FaceMotion:
        return self.made[clip, speech]  # type: ignore[attr-defined,no-any-return]

    def rest(self, clip: Clip) -> FaceMotion:
        return FaceMotion(np.zeros(1), self.real[clip].vertices[:1])  # type: ignore[attr-defined]


def known_clip(name: str, speaker: str, offset: float = 0.0) -> Clip:
    """A clip of which no file is needed: its sound starts `offset` seconds after its picture."""
    clip = Clip(Path(name), speaker)
    clip.__dict__.update(sound_offset=offset, speech=[(0.0, 8.0)])
    return clip


@pytest.fixture
def scene(face: torch.Tensor) -> tuple[Scripted, list[Clip]]:
    """Three clips of two speakers; lips come from the sound alone, and in clip b the picture is
    late by two frames."""
    clips = [known_clip("a", "ann"), known_clip("b", "ann", 0.2), known_clip("c", "bob")]
    moves = [talking(face, speech_like(200, seed)) for seed in range(3)]
    real = {clips[0]: moves[0], clips[1]: moves[1].shifted(0.2 + 2 / 25), clips[2]: moves[2]}
    made = {(a, b): moves[k] for a in clips for k, b in enumerate(clips)}
    return Scripted(real, made), clips


def test_self_dub_compares_with_own_and_other_lips(scene: tuple[Scripted, list[Clip]]) -> None:
    studio, clips = scene
    row = protocols.self_dub(studio, clips[0], clips, {})
    assert (row["clip"], row["other"]) == ("a", "c")
    assert row["opening"] == pytest.approx(1)
    assert (row["lmd"], row["lag"], row["runs"]) == (0, 0, row["met"])
    assert abs(row["other opening"]) < 0.9
    assert row["rest lmd"] > row["mean lmd"] > 0
    assert "offset" not in row


def test_the_clips_own_offset_is_removed(scene: tuple[Scripted, list[Clip]]) -> None:
    studio, clips = scene
    row = protocols.self_dub(studio, clips[1], clips, {clips[1]: 2.0})
    assert row["lag"] == -2  # the lips of the speech are early, because the picture is late
    assert (row["offset"], row["aligned lag"]) == (2.0, 0)
    assert row["aligned opening"] == pytest.approx(1, abs=1e-6)
    across = protocols.same_speaker(studio, clips[0], clips[1], clips, {clips[1]: 2.0})
    assert (across["lag"], across["aligned lag"], across["speech"]) == (-2, 0, "b")
    assert across["aligned opening"] == pytest.approx(1, abs=1e-6)
    assert abs(across["other opening"]) < 0.9


def test_tables_put_ours_beside_the_baselines(scene: tuple[Scripted, list[Clip]]) -> None:
    studio, clips = scene
    at = Measuring(studio, clips, clips, {clips[1]: 2.0})
    section = sections.self_dub(at)
    assert at.errors == []
    assert list(section.lines[0]) == [
        "figure", "ours", "offset removed", "other audio", "rest pose", "mean pose",
    ]  # fmt: skip
    figures = {line["figure"]: line for line in section.lines}
    assert figures["lag within 1 frame"]["ours"] == pytest.approx(2 / 3)
    assert figures["lag within 1 frame"]["offset removed"] == pytest.approx(1)
    assert figures["closures met"]["rest pose"] == 0
    assert figures["lmd under rest"]["rest pose"] == 0
    assert {t.name.split(":")[0] for t in section.targets if not t.met} >= {
        "best lag within 1 frame in >= 0.9 of the clips"
    }
    pairs = sections.same_speaker(at)
    assert [(row["clip"], row["speech"]) for row in pairs.rows] == [("a", "b"), ("b", "a")]


def test_vertices_are_followed_at_25_hz(face: torch.Tensor) -> None:
    fall = np.linspace(0, 0.2, 60)
    fast = talking(face, fall)
    faces = FaceMotion(1.0 + np.arange(60) / 50, fast.vertices)
    index = torch.tensor([INNER_BOTTOM, 10])
    motion, known = vertex_motion(faces, face, index, start=0.92, frames=34)
    assert motion.shape == (34, 2, 3)
    np.testing.assert_array_equal(known.numpy(), [False] * 2 + [True] * 30 + [False] * 2)
    np.testing.assert_allclose(motion[2:32, 0, 1], fall[::2], atol=1e-6)
    np.testing.assert_allclose(motion[:, 1], 0, atol=1e-7)
    np.testing.assert_allclose(motion[-1, 0, 1], fall[-1], atol=1e-6)


def test_the_same_speech_is_encoded_once() -> None:
    class Counting:
        calls = 0
        feature_dim = 3

        def encode(self, samples: torch.Tensor) -> torch.Tensor:
            self.calls += 1
            return samples[::320, None].expand(-1, 3)

    counting = Counting()
    features = RememberedFeatures(counting)
    speech = torch.randn(3200)
    first = features.encode(speech)
    assert features.encode(speech.clone()) is first
    assert counting.calls == 1
    assert not features.encode(speech + 1).equal(first)
    assert (counting.calls, features.feature_dim) == (2, 3)


def test_a_failed_clip_leaves_a_line_and_no_row() -> None:
    def fail() -> dict[str, object]:
        raise OptionInvalid("too short")

    errors: list[str] = []
    notes: list[str] = []
    rows = collect([("a", fail), ("b", lambda: {"clip": "b"})], errors, notes.append)
    assert rows == [{"clip": "b"}]
    assert errors == ["a: OptionInvalid: too short"]
    assert notes == [*errors, "b"]
