"""Training of the sync experts: offsets in the data, the windows, the objective, the command."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from puppet_footage import FRAMES, loudness
from torch import Tensor

from dubbing.cli import main
from dubbing.errors import OptionInvalid
from dubbing.evaluation.mouth_crops import BREADTH, HEIGHT, video_mouths
from dubbing.models.sync_net import SyncNet, SyncNetConfig
from dubbing.sync import load_sync, load_sync_crop, score_motion
from dubbing.training.clips import prepared_names
from dubbing.training.mouth_pictures import mouth_pictures
from dubbing.training.options import SyncTrainOptions
from dubbing.training.sync import Course, measure_offsets
from dubbing.training.sync_data import MARGIN, WINDOW, SyncBatcher, SyncClip, mirror_map, with_lags
from dubbing.training.sync_objective import SyncObjective
from dubbing.training.sync_views import disturb_sound, wrong_sizes

SMALL = SyncNetConfig(
    audio_size=8, lower_vertices=4, points=4, shapes=8, width=32, blocks=1, embedding=16, dropout=0
)


class Plain:
    """Mouths are stored as displacements already."""

    def plain(self, mouth: Tensor) -> Tensor:
        return mouth

    def disturbed(self, mouth: Tensor) -> Tensor:
        return mouth + 0.002 * torch.randn_like(mouth)


def talking(seconds: float, seed: int, late: int = 0, mumbled: bool = False) -> SyncClip:
    """A synthetic clip: four smooth random gestures, heard as sums of them; the mouth shows them
    `late` frames later (or, mumbled, others)."""
    frames = round(seconds * 25)
    generator = torch.Generator().manual_seed(seed)

    def gestures() -> Tensor:
        rough = torch.randn(4, 1, 2 * frames + 160, generator=generator)
        return F.avg_pool1d(rough, 9, 1, 4)[:, 0].T * 3

    source = gestures()
    mixing = torch.randn(4, 8, generator=torch.Generator().manual_seed(99))
    sound = source[80 : 80 + 2 * frames] @ mixing
    # feature j lies at (j + 0.5) / 50 s, frame k at k / 25 s: between features 2 k - 1 and 2 k
    shown = gestures() if mumbled else source
    places = 80 + 2 * (torch.arange(frames) - late)
    moved = (shown[places] + shown[places - 1]) / 2
    directions = torch.randn(4, 12, generator=torch.Generator().manual_seed(98))
    mouth = 0.02 * (moved @ directions).unflatten(1, (4, 3))
    usable = torch.ones(frames, dtype=torch.bool)
    return SyncClip(f"clip{seed}", f"person{seed % 3}", mouth, usable, (sound.half(),), (1.0,))


def options(folder: Path, **values: object) -> SyncTrainOptions:
    base = SyncTrainOptions(
        data=folder, output=folder, batch_size=16, learning_rate=4e-3, log_every=1000,
        save_every=1000, resume=False,
    )  # fmt: skip
    return replace(base, **values)


@pytest.fixture(scope="module")
def taught(tmp_path_factory: pytest.TempPathFactory) -> SyncNet:
    """An expert that was taught synthetic speech for a few seconds."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("taught")
    clips = [talking(8, seed) for seed in range(12)]
    course = Course(SyncNet(SMALL), Plain(), clips, options(folder), "sync", 120, 0)
    expert = course.run()
    assert isinstance(expert, SyncNet)
    return expert


def sound_of(clip: SyncClip) -> Tensor:
    return clip.audio(0, len(clip.mouth))[0]


def test_a_few_seconds_of_training_teach_synthetic_speech(taught: SyncNet) -> None:
    new = talking(10, 50)
    found = score_motion(taught, sound_of(new), new.mouth)
    assert found.offset == 0
    assert found.confidence > 0.2
    late = talking(10, 51, late=6)
    assert score_motion(taught, sound_of(late), late.mouth).offset == 6
    wrong = score_motion(taught, sound_of(new), talking(10, 52).mouth)
    assert wrong.confidence < found.confidence / 2


def test_offsets_are_measured_and_unclear_clips_left_out(taught: SyncNet) -> None:
    clips = [talking(8, 60), talking(8, 61, late=5), talking(8, 62, late=-7),
             talking(8, 63, mumbled=True)]  # fmt: skip
    found = measure_offsets(taught, Plain(), clips)
    assert [found[c.name].lag for c in clips[:3]] == [0, 5, -7]
    assert [found[c.name].weight for c in clips] == [1, 1, 1, 0]
    corrected = with_lags(clips, {k: (o.lag, o.weight) for k, o in found.items()})
    assert [c.lag for c in corrected[:3]] == [0, 5, -7]


def test_short_clips_share_the_offset_of_their_speaker(taught: SyncNet) -> None:
    words = [replace(talking(1.4, 70 + k, late=3), speaker="reader") for k in range(8)]
    lone = talking(0.8, 90, late=3)
    found = measure_offsets(taught, Plain(), [*words, lone])
    assert {found[c.name].lag for c in words} == {3}
    assert {found[c.name].weight for c in words} == {1.0}
    assert found[lone.name].weight == 0


def test_windows_are_cut_where_the_lag_says(taught: SyncNet) -> None:
    late = replace(talking(8, 65, late=5), lag=5)
    torch.manual_seed(0)
    batch = SyncBatcher([late], 0).draw(8)
    assert batch.mouth.shape == (8, WINDOW, 4, 3)
    assert batch.audio.shape == (8, 2 * (WINDOW + 2 * MARGIN), 8)
    assert batch.same.all()
    heard = taught.audio(batch.audio)[:, MARGIN:-MARGIN]
    agreement = (heard * taught.motion(batch.mouth)).sum(-1)[:, 8:-8].mean()
    uncorrected = SyncBatcher([replace(late, lag=0)], 0).draw(8)
    heard = taught.audio(uncorrected.audio)[:, MARGIN:-MARGIN]
    assert agreement > (heard * taught.motion(uncorrected.mouth)).sum(-1)[:, 8:-8].mean() + 0.2


def test_a_word_is_padded_and_its_padding_masked() -> None:
    word = talking(1.0, 3)
    batch = SyncBatcher([word], 0).draw(2)
    assert batch.seen.sum(1).tolist() == [25, 25]
    assert batch.heard[0].nonzero()[:, 0].tolist() == list(range(MARGIN + 1, MARGIN + 25))
    terms = SyncObjective(SyncNet(SMALL).eval())(batch, batch.mouth, 0)
    assert all(torch.isfinite(v) for v in terms.values())
    nothing = replace(word, usable=torch.zeros(25, dtype=torch.bool))
    empty = SyncBatcher([nothing], 0).draw(2)
    assert SyncObjective(SyncNet(SMALL).eval())(empty, empty.mouth, 0)["loss"] == 0


def test_sound_is_found_at_its_time_in_a_stretched_version() -> None:
    times = torch.arange(400) / 50 + 0.01
    ramp = times[:, None].expand(-1, 8)
    clip = replace(talking(8, 1), sounds=(ramp.half(), ramp.half()), stretch=(1.0, 1.25))
    plain, inside = clip.audio(10, 20)
    assert torch.allclose(plain[:, 0].view(-1, 2).mean(1), torch.arange(10, 30) / 25, atol=0.01)
    assert inside.all()
    slow, _ = clip.audio(10, 20, variant=1)
    assert torch.allclose(slow[:, 0] * 1.25, plain[:, 0], atol=0.01)
    before, inside = clip.audio(-30, 20)
    assert not inside.any()
    assert torch.isfinite(before).all()
    beyond, inside = clip.audio(500, 20)
    assert not inside.any()
    assert torch.isfinite(beyond).all()


def test_right_moment_and_clip_cost_less_than_wrong_ones(taught: SyncNet) -> None:
    clips = [talking(8, 80 + k) for k in range(6)]
    objective = SyncObjective(taught)
    batch = SyncBatcher(clips, 0).draw(12)
    right = objective(batch, batch.mouth, 0)
    wrong = objective(batch, batch.mouth.roll(8, 1), 0)
    assert right["moment"] + 1 < wrong["moment"]
    assert right["accuracy"] > 0.9 > wrong["accuracy"]
    other = batch.mouth.roll(1, 0)
    assert right["clip"] + 0.5 < objective(batch, other, 0)["clip"]
    tolerant = objective(batch, batch.mouth.roll(2, 1), 2)["moment"]
    assert tolerant < objective(batch, batch.mouth.roll(2, 1), 0)["moment"]


def test_disturbances_are_light() -> None:
    torch.manual_seed(0)
    audio = torch.randn(8, 100, 6)
    assert (disturb_sound(audio, torch.ones(6)) - audio).abs().mean() < 0.4
    sizes = wrong_sizes(500)
    assert ((sizes < 0.63) | (sizes > 1.6)).all()
    assert (sizes < 1).float().mean() > 0.6


def test_mirror_map_pairs_the_sides() -> None:
    mean = torch.tensor([[-1.0, 0, 0], [0.0, 1, 0], [1.0, 0, 0], [0.5, 2, 0]])
    assert mirror_map(mean, torch.tensor([0, 1, 2])).tolist() == [2, 1, 0]


def test_a_course_goes_on_where_it_stopped(tmp_path: Path) -> None:
    clips = [talking(6, seed) for seed in range(3)]
    torch.manual_seed(1)
    net = SyncNet(SMALL)
    going = options(tmp_path, resume=True, batch_size=4, log_every=2)
    Course(net, Plain(), clips, going, "sync", 4, 0, clips).run()
    again = Course(SyncNet(SMALL), Plain(), clips, going, "sync", 6, 0, clips)
    assert again.step == 4
    again.run()
    rows = list(csv.DictReader((tmp_path / "sync.csv").open()))
    assert [int(r["step"]) for r in rows] == [2, 4, 6]
    assert all(0 <= float(r["check_accuracy"]) <= 1 for r in rows)


def test_command_trains_an_expert_on_prepared_footage(
    prepared: Path, start_encoder: Path, tmp_path: Path
) -> None:
    common = ["train", "sync", "--data", str(prepared), "--speech-encoder", str(start_encoder),
              "--batch-size", "4", "--log-every", "1", "--held-out", "0.3"]  # fmt: skip
    out = tmp_path / "geometry"
    assert main([*common, "--output", str(out), "--steps", "2", "--rough-steps", "0"]) == 0
    net = load_sync(out / "sync.safetensors")
    assert net.audio.deviation.min() > 0
    assert sorted(set(net.points.tolist())) == net.points.tolist()
    assert list((out / "cache").glob("*.sounds.npz"))


def test_command_trains_an_expert_for_pictures(
    prepared: Path, start_encoder: Path, tmp_path: Path
) -> None:
    out = tmp_path / "crop"
    sizes = ["--batch-size", "2", "--steps", "1", "--rough-steps", "0", "--held-out", "0"]
    status = main(["train", "sync", "--kind", "crop", "--data", str(prepared), *sizes, "--output",
                   str(out), "--speech-encoder", str(start_encoder), "--precision",
                   "bf16-mixed"])  # fmt: skip
    assert status == 0
    net = load_sync_crop(out / "sync_crop.safetensors")
    crops = mouth_pictures(prepared, out / "cache", prepared_names(prepared)[0])
    assert crops is not None
    assert net.motion(crops[0][None].float() / 255).isfinite().all()


def test_mouths_of_a_video_are_those_of_its_stored_crops(
    footage: Path, prepared: Path, tmp_path: Path
) -> None:
    name = prepared_names(prepared)[0]
    stored = mouth_pictures(prepared, tmp_path, name)
    assert stored is not None
    video = footage / name.replace("__", "/")
    crops, usable = video_mouths(video.with_suffix(".mkv"))
    assert crops.shape == stored[0].shape == (FRAMES, HEIGHT, BREADTH)
    assert usable.equal(stored[1])
    assert (crops.float() - stored[0].float()).abs().mean() < 3
    # an open mouth is dark inside: the loud frames' mouths are darker than the quiet ones'
    loud = torch.from_numpy(loudness(0)) > 0.7
    inside = crops[:, 18:30, 36:60].float().mean((1, 2))
    assert inside[loud].mean() < inside[torch.from_numpy(loudness(0)) < 0.1].mean() - 3


def test_options_name_the_kinds(tmp_path: Path) -> None:
    with pytest.raises(OptionInvalid, match="geometry"):
        SyncTrainOptions(data=tmp_path, output=tmp_path, kind="both")
