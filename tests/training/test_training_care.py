"""What `dub train prepare` finds out about sound and lips, and what it says about that."""

from __future__ import annotations

import json
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parents[1] / "geometry"))

from synthetic_face import face_model, head_motion

from dubbing.cli import main
from dubbing.errors import CheckpointNotFound, OptionInvalid
from dubbing.geometry.pose import apply_pose
from dubbing.geometry.topology import LIPS
from dubbing.media.audio import load_speech
from dubbing.models.speech_encoder import SpeechEncoder, SpeechEncoderConfig
from dubbing.models.sync_net import MIN_SHIFT, SyncNet, SyncNetConfig
from dubbing.sync import MAX_OFFSET, SYNC, sync_audio
from dubbing.training.care import (
    MEASURED,
    MISMATCH,
    NO_SOUND,
    NO_SPEECH,
    SHARED,
    UNKNOWN,
    UNSEEN,
    CareFacts,
    Measured,
    care_report,
    care_summary,
    decide,
    spoken,
)
from dubbing.training.clips import (
    FAULTS,
    FittedClip,
    at_rate,
    fitted,
    frame_faults,
    load_care,
    load_faults,
    tremble,
)
from dubbing.training.options import PrepareOptions
from dubbing.training.prepare import PreparedClip, run
from dubbing.weights import SPEECH, load_speech_encoder, save_morphable, save_network

torch.set_num_threads(1)

SPEECH_FILE = Path(__file__).parents[2] / "dubbing" / "assets" / "demo_speech.flac"
RATE, LATE = 25, 4


def speech(speed: float) -> Tensor:
    """The embedded speech [N] at 16 kHz, faster or slower."""
    samples = torch.as_tensor(np.asarray(load_speech(SPEECH_FILE)))
    size = int(len(samples) / speed)
    return F.interpolate(samples[None, None], size, mode="linear", align_corners=False)[0, 0]


def jaw(samples: Tensor, late: int = 0) -> Tensor:
    """Expressions [T, 3] of a mouth as open as the speech is loud, `late` frames after it."""
    frames = int(len(samples) / 16000 * RATE)
    level = samples[: frames * 640].view(frames, 640).square().mean(1).sqrt()
    level = F.avg_pool1d(F.pad(level[None, None], (1, 1), mode="replicate"), 3, 1)[0, 0]
    beta = torch.zeros(frames, 3)
    beta[:, 0] = (level / level.max()).sqrt().roll(late)
    return beta


def write_clip(folder: Path, name: str, samples: Tensor, beta: Tensor, first: int = 0) -> None:
    """A prepared clip of a synthetic face that is seen from frame `first` on."""
    model, frames = face_model(), len(beta)
    points = apply_pose(model.vertices(model.mean, beta), head_motion(frames, seed=len(name)))
    landmarks = torch.cat([points, points[:, :10]], 1)[first:].numpy()
    np.savez(
        folder / f"{name}.npz",
        landmarks=landmarks,
        frames=np.arange(first, frames, dtype=np.int32),
        times=np.arange(first, frames) / RATE,
        boxes=np.tile(np.float32([70, 50, 200]), (frames - first, 1)),
        speech=np.round(samples.numpy() * 32767).clip(-32768, 32767).astype(np.int16),
    )
    clip = PreparedClip(f"{name}.mp4", frames, frames - first, 200.0)
    clip.save(folder / f"{name}.json")


def trained_expert(encoder: SpeechEncoder) -> SyncNet:
    """A small expert that has learned, from the same words at other speeds, which moment of the
    sound belongs to which moment of the mouth."""
    torch.manual_seed(0)
    model = face_model()
    lower = model.lower.gt(0).nonzero()[:, 0]
    points = [k for k, v in enumerate(lower.tolist()) if v in LIPS]
    net = SyncNet(
        SyncNetConfig(
            audio_size=32, lower_vertices=len(lower), points=len(points), shapes=4, width=24,
            blocks=1, embedding=12, dropout=0.0,
        )
    )  # fmt: skip
    net.set_points(torch.tensor(points))
    pairs = []
    for speed in (0.85, 0.93, 1.08, 1.16):
        samples = speech(speed)
        beta = jaw(samples)
        pairs.append(
            (sync_audio(encoder, samples, len(beta)), model.expression_vertices(beta)[:, lower])
        )
    heard = torch.cat([audio for audio, _ in pairs])
    net.audio.set_statistics(heard.mean(0), heard.std(0).clamp_min(1e-3))
    optimiser = torch.optim.Adam(net.parameters(), lr=3e-3)
    for step in range(160):
        audio, lips = pairs[step % len(pairs)]
        sounds, mouths = net.audio(audio[None])[0], net.motion(lips[None])[0]
        time = torch.arange(len(lips))
        shift = (time[:, None] - time).abs()
        scores = 10 * mouths @ sounds.T
        scores = scores.masked_fill((shift > 0) & (shift < MIN_SHIFT) | (shift > 20), -1e4)
        loss = F.cross_entropy(scores, time) + F.cross_entropy(scores.T, time)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return net.eval()


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Files of a morphable model, a small speech encoder and an expert that fit together."""
    folder = tmp_path_factory.mktemp("models")
    paths = {
        "morphable": folder / "morphable.safetensors",
        "speech_encoder": folder / "speech_encoder.safetensors",
        "sync": folder / "sync.safetensors",
    }
    torch.manual_seed(0)
    save_morphable(paths["morphable"], face_model())
    config = SpeechEncoderConfig(width=32, heads=2, ffn_width=64)
    save_network(paths["speech_encoder"], SPEECH, SpeechEncoder(config))
    expert = trained_expert(load_speech_encoder(paths["speech_encoder"]))
    save_network(paths["sync"], SYNC, expert)
    return paths


@pytest.fixture(scope="module")
def footage(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A prepared folder that nobody has looked after: lips in time, lips late, lips of other
    words, no sound. Beside it, in "videos", the videos' names (they are not opened again)."""
    folder = tmp_path_factory.mktemp("care")
    prepared, videos = folder / "prepared", folder / "videos"
    prepared.mkdir()
    videos.mkdir()
    said = speech(1.0)
    write_clip(prepared, "aligned", said, jaw(said))
    write_clip(prepared, "late", said, jaw(said, LATE), first=3)
    write_clip(prepared, "other", said, jaw(said).flip(0))
    write_clip(prepared, "silent", torch.zeros(0), jaw(said)[:30])
    PreparedClip("wall.mp4", 9, dropped="no face").save(prepared / "wall.json")
    for name in ("aligned", "late", "other", "silent", "wall"):
        (videos / f"{name}.mp4").touch()
    return folder


def options(footage: Path, models: dict[str, Path]) -> PrepareOptions:
    return PrepareOptions(footage / "videos", footage / "prepared", workers=1, **models)


@pytest.fixture(scope="module")
def report(footage: Path, models: dict[str, Path]) -> dict:
    run(options(footage, models))
    return json.loads((footage / "prepared" / "prepare.json").read_text())


def test_a_late_picture_gets_its_offset(report: dict, footage: Path) -> None:
    aligned = load_care(footage / "prepared", "aligned")
    late = load_care(footage / "prepared", "late")
    assert aligned.sure
    assert late.sure
    assert late.lag - aligned.lag == LATE
    assert abs(aligned.lag) <= 1
    assert aligned.weight == late.weight == 1


def test_what_does_not_belong_together_is_left_out(report: dict, footage: Path) -> None:
    for name, reason in (("other", MISMATCH), ("silent", NO_SOUND)):
        care = load_care(footage / "prepared", name)
        assert care.reasons == (reason,)
        assert (care.lag, care.sure, care.weight) == (0, False, 0.0)


def test_the_report_counts_what_became_of_the_clips(report: dict) -> None:
    assert report["kept"] == 4
    assert report["dropped"] == {"no face": 1}
    stage1 = report["stage1"]
    assert stage1["kept"] == 2
    assert stage1["left_out"] == {MISMATCH: 1, NO_SOUND: 1}
    assert stage1["offsets_from"] == {MEASURED: 2}
    clips = {c["name"]: c for c in report["clips"]}
    lags = [clips[name]["care"]["lag"] for name in ("aligned", "late")]
    assert stage1["offsets"] == {str(lag): 1 for lag in sorted(lags)}
    frames = clips["aligned"]["face_frames"] + clips["late"]["face_frames"]
    assert stage1["frames"] == frames
    seconds = stage1["speech_s"] + stage1["silence_s"]
    assert seconds == pytest.approx((frames - sum(stage1["masked"].values())) / RATE, abs=0.3)
    assert stage1["silence_s"] > 1.0  # the pauses of the speech are kept
    assert stage1["speech_s"] > 8.0


def test_fits_know_lag_and_weight(report: dict, footage: Path, models: dict[str, Path]) -> None:
    prepared = footage / "prepared"
    (fits,) = prepared.glob("fits-*")
    late = fitted(prepared, fits, "late", face_model())
    assert late.lag == load_care(prepared, "late").lag
    assert late.weight == 1.0
    assert fitted(prepared, fits, "other", face_model()).weight == 0.0
    usable = at_rate(late)[1]
    assert not usable[:2].any()  # the face is not seen before frame 3
    assert usable[4:].float().mean() > 0.9


def test_known_facts_stay_and_new_clips_are_looked_after(
    report: dict, footage: Path, models: dict[str, Path], tmp_path: Path
) -> None:
    copy = tmp_path / "again"
    shutil.copytree(footage, copy)
    for path in copy.glob("prepared/fits-*/*.npz"):
        path.unlink()
    clip = PreparedClip.load(copy / "prepared" / "late.json")
    assert clip.care is not None
    clip.care = None
    clip.save(copy / "prepared" / "late.json")
    run(options(copy, models))
    assert [p.name for p in copy.glob("prepared/fits-*/*.npz")] == ["late.fit.npz"]
    again = json.loads((copy / "prepared" / "prepare.json").read_text())
    assert again == report


def test_facts_of_another_expert_are_measured_anew(
    report: dict, footage: Path, models: dict[str, Path], tmp_path: Path
) -> None:
    copy = tmp_path / "again"
    shutil.copytree(footage, copy)
    clip = PreparedClip.load(copy / "prepared" / "aligned.json")
    assert clip.care is not None
    clip.care = replace(clip.care, lag=9, made_with="something else")
    clip.save(copy / "prepared" / "aligned.json")
    run(options(copy, models))
    assert (
        load_care(copy / "prepared", "aligned").lag
        == load_care(footage / "prepared", "aligned").lag
    )


def test_a_table_of_speakers_counts_afterwards(
    report: dict, footage: Path, models: dict[str, Path], tmp_path: Path
) -> None:
    copy = tmp_path / "again"
    shutil.copytree(footage, copy)
    table = tmp_path / "speakers.csv"
    table.write_text("file,speaker\naligned.mp4,anna\nlate.mp4,anna\n")
    run(replace(options(copy, models), speakers=table, workers=2))
    before, after = (
        {
            c["name"]: c["care"]
            for c in json.loads((p / "prepared/prepare.json").read_text())["clips"]
        }
        for p in (footage, copy)
    )
    for name in ("aligned", "late"):
        assert after[name]["made_with"] != before[name]["made_with"]
        assert after[name] | {"made_with": ""} == before[name] | {"made_with": ""}
    assert after["other"] == before["other"]


def test_care_can_be_left_away(footage: Path, models: dict[str, Path], tmp_path: Path) -> None:
    copy = tmp_path / "plain"
    shutil.copytree(footage, copy)
    for path in copy.glob("prepared/*.json"):
        values = json.loads(path.read_text())
        values.pop("care", None)
        path.write_text(json.dumps(values))
    given = ["--data", str(copy / "videos"), "--output", str(copy / "prepared")]
    assert main(["train", "prepare", *given, "--workers", "1", "--no-care"]) == 0
    report = json.loads((copy / "prepared" / "prepare.json").read_text())
    assert "stage1" not in report
    assert load_care(copy / "prepared", "late").weight == 1.0
    assert not load_care(copy / "prepared", "late").sure


def test_models_that_do_not_fit_are_refused(
    footage: Path, models: dict[str, Path], tmp_path: Path
) -> None:
    with pytest.raises(CheckpointNotFound, match=r"nothing\.safetensors"):
        run(replace(options(footage, models), sync=tmp_path / "nothing.safetensors"))
    face = face_model()
    other = replace(face, lower=torch.ones_like(face.lower))
    save_morphable(tmp_path / "other.safetensors", other)
    with pytest.raises(OptionInvalid, match="vertices"):
        run(replace(options(footage, models), morphable=tmp_path / "other.safetensors"))


def distances(frames: int, lag: int | None, depth: float = 0.5, seed: int = 0) -> Tensor:
    """Rows [frames, offsets] of an expert that prefers `lag` by `depth`, or nothing."""
    random = torch.Generator().manual_seed(seed)
    rows = 1.4 + 0.1 * torch.randn(frames, 2 * MAX_OFFSET + 1, generator=random)
    if lag is not None:
        rows[:, MAX_OFFSET + lag] -= depth
    return rows


def measured(
    name: str, frames: int, lag: int | None, depth: float = 0.5, seed: int = 0, fault: str = ""
) -> Measured:
    speaking = np.array([[0.0, frames / RATE]])
    usable = np.ones(frames, bool)
    rows = None if fault == NO_SOUND else distances(frames, lag, depth, seed).numpy()
    return Measured(name, usable, frames, {}, speaking, rows, fault)


def test_short_clips_share_the_offset_of_their_speaker() -> None:
    words = [measured(f"w{k}", 16, -2, 0.12, seed=k) for k in range(12)]
    alone = [decide([w], {w.name: w.name})[w.name] for w in words]
    assert any(fact.source == UNKNOWN for fact in alone)
    assert all(fact.lag == 0 for fact in alone if fact.source == UNKNOWN)
    facts = decide(words, {w.name: "anna" for w in words})
    assert {fact.lag for fact in facts.values()} == {-2}
    assert {fact.source for fact in facts.values()} <= {SHARED, MEASURED}
    assert all(fact.sure for fact in facts.values())
    assert not any(fact.reasons for fact in facts.values())


def test_speakers_with_several_offsets_share_none() -> None:
    clips = [measured("a", 200, -6), measured("b", 200, 2), measured("c", 16, None, seed=3)]
    facts = decide(clips, dict.fromkeys("abc", "anna"))
    assert (facts["a"].lag, facts["b"].lag) == (-6, 2)
    assert (facts["c"].lag, facts["c"].source, facts["c"].reasons) == (0, UNKNOWN, [])


def test_long_clips_have_to_show_a_peak_inside_the_search() -> None:
    clips = [
        measured("peak", 200, 3), measured("flat", 200, None), measured("far", 200, MAX_OFFSET),
        measured("mute", 200, None, fault=NO_SOUND), measured("hum", 200, 1, fault=NO_SPEECH),
        measured("back", 200, 1, fault=UNSEEN),
    ]  # fmt: skip
    facts = decide(clips, {c.name: c.name for c in clips})
    assert (facts["peak"].lag, facts["peak"].sure, facts["peak"].reasons) == (3, True, [])
    reasons = {name: fact.reasons for name, fact in facts.items() if fact.reasons}
    assert reasons == {
        "flat": [MISMATCH], "far": [MISMATCH], "mute": [NO_SOUND], "hum": [NO_SPEECH],
        "back": [UNSEEN],
    }  # fmt: skip


def test_a_long_silence_is_no_mismatch() -> None:
    """One word in six seconds can't show a peak; the rest of the clip teaches how a mouth rests."""
    clip = measured("word", 150, None)
    clip = replace(clip, segments=np.array([[2.0, 2.6]]))
    fact = decide([clip], {"word": "word"})["word"]
    assert fact.reasons == []
    assert fact.source == UNKNOWN
    assert fact.speech_s == pytest.approx(0.76, abs=0.05)
    assert fact.silence_s == pytest.approx(6 - fact.speech_s, abs=0.01)


def test_speech_is_found_where_the_lips_show_it() -> None:
    segments = np.array([[1.0, 2.0]])
    in_time = spoken(segments, 75, 0, 0.0).nonzero()[0]
    late = spoken(segments, 75, 5, 0.0).nonzero()[0]
    assert (in_time[0], in_time[-1]) == (25, 50)
    assert late.tolist() == (in_time + 5).tolist()
    assert not spoken(np.zeros((0, 2)), 10).any()


def test_the_report_adds_up() -> None:
    facts = [
        CareFacts(2, True, MEASURED, 5.0, [], {"turned away": 3}, 100, 3.0, 0.5),
        CareFacts(2, True, SHARED, 4.0, [], {"turned away": 1, "trembling": 2}, 30, 1.0, 0.0),
        CareFacts(0, False, UNKNOWN, 0.0, [], {}, 20, 0.5, 0.25),
        CareFacts(0, False, UNKNOWN, 0.5, [MISMATCH], {"trembling": 9}, 400, 9.0, 9.0),
    ]
    report = care_report(facts)
    assert report == {
        "kept": 3,
        "left_out": {MISMATCH: 1},
        "offsets": {"2": 2},
        "offsets_from": {MEASURED: 1, SHARED: 1, UNKNOWN: 1},
        "frames": 150,
        "masked": {"turned away": 4, "trembling": 2},
        "speech_s": 4.5,
        "silence_s": 0.8,
    }
    text = "\n".join(care_summary(report))
    for part in ("3 clips", f"1: {MISMATCH}", "+2:2", "4 turned away", "85 % speech"):
        assert part in text
    assert care_summary(care_report([]))  # nothing to divide by


def test_turned_and_trembling_frames_are_masked(tmp_path: Path) -> None:
    model, frames = face_model(), 90
    pose = head_motion(1).repeat(frames, 1)
    pose[:, :3] = 0.0
    pose[:20, 1] = 0.95  # yaw of 54 degrees
    points = apply_pose(model.vertices(model.mean, torch.zeros(frames, 3)), pose)
    shake = torch.randn(points.shape, generator=torch.Generator().manual_seed(0))
    points[60:80] += 0.006 * 2 * pose[0, 3].exp() * shake[60:80]
    points[40] += 0.006 * 2 * pose[0, 3].exp() * shake[40]  # one bad frame is no bad track
    np.savez(
        tmp_path / "turn.npz",
        landmarks=torch.cat([points, points[:, :10]], 1).numpy(),
        times=np.arange(frames) / RATE,
        boxes=np.zeros((frames, 3), np.float32),
    )
    clip = fitted(tmp_path, tmp_path / "fits", "turn", model)
    faults = [FAULTS[k] for k in load_faults(tmp_path / "fits", "turn").tolist()]
    assert set(faults[:20]) == {"turned away"}
    assert set(faults[63:77]) == {"trembling"}
    assert set(faults[22:56]) == set(faults[84:]) == {""}
    assert clip.usable.tolist() == [not fault for fault in faults]
    assert (clip.lag, clip.weight) == (0, 1.0)


def test_short_tracks_have_faults_too() -> None:
    from dubbing.geometry.fit import fit_track

    model = face_model()
    for frames in (1, 2, 5):
        points = apply_pose(model.mean.expand(frames, -1, -1), head_motion(frames))
        fit = fit_track(model, points, template=model.mean)
        assert tremble(model, points, fit).shape == (frames,)
        assert frame_faults(model, points, fit).tolist() == [0] * frames


def test_nothing_is_usable_before_the_first_frame_with_a_face() -> None:
    times = torch.tensor([0.4, 0.44, 0.48, 0.52], dtype=torch.float64)
    zero = torch.zeros(4, 6)
    clip = FittedClip("late", times, zero, zero, zero, zero, torch.ones(4, dtype=torch.bool))
    assert at_rate(clip)[1].tolist() == [False] * 10 + [True] * 4
