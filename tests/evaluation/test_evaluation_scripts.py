"""The measuring scripts on small clips with sound: containers, sheets, long clips, whole runs."""

from __future__ import annotations

import json
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
import torch
from evaluation_samples import RATE, load_script, noise, write_clip

from dubbing.demo import demo_pose, demo_puppet, demo_speech
from dubbing.dubber import Dubber
from dubbing.errors import InputNotFound
from dubbing.evaluation import protocols, sections, speed
from dubbing.evaluation.clips import Clip
from dubbing.evaluation.languages import folder_speech, manifest_speech, spoken
from dubbing.evaluation.sections import Measuring
from dubbing.evaluation.sheets import FACE_TILE, LABEL_WIDTH, contact_sheet
from dubbing.evaluation.studio import Studio
from dubbing.media.audio import decode_audio, load_speech
from dubbing.media.reader import VideoReader
from dubbing.models.style_encoder import StyleEncoder, StyleEncoderConfig

SECONDS = 1.2
SECTIONS = ["self_dub", "same_speaker", "silence", "style", "speed", "languages"]


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of two clips of the demo's speaker, 192 px, each with another part of its speech."""
    folder = tmp_path_factory.mktemp("clips")
    puppet = demo_puppet()
    speech = (load_speech(demo_speech()) * 32767).astype(np.int16)
    for name, start, sound in (("a.mp4", 0.4, "flac"), ("b.mkv", 3.2, "pcm_s16le")):
        times = [start + k / 25 for k in range(round(SECONDS * 25))]
        pictures = [
            cv2.resize(puppet.frame(demo_pose(t)), (192, 192), interpolation=cv2.INTER_AREA)
            for t in times
        ]
        part = speech[round(start * RATE) : round((start + SECONDS) * RATE)]
        write_clip(
            folder / name, pictures, part, codec="libx264", fmt="yuv420p", sound=sound,
            clock=1000 if name.endswith("mkv") else 12800, crf=24,
        )  # fmt: skip
    (folder / "notes.txt").write_text("no clip")
    return folder


@pytest.mark.parametrize(
    ("source", "sound", "suffix", "expected"),
    [
        ("s.mp4", ("w.wav", "pcm_s16le"), ".mp4", "flac"),
        ("s.mov", ("w.wav", "pcm_s16le"), ".mov", "auto"),
        ("s.mkv", ("w.wav", "pcm_s16le"), ".mkv", "auto"),
        ("s.mp4", ("w.mp2", "mp2"), ".mkv", "auto"),
        ("s.mpg", ("w.flac", "flac"), ".mp4", "auto"),
    ],
)
def test_the_container_keeps_times_and_samples(
    source: str, sound: tuple[str, str], suffix: str, expected: str, tmp_path: Path
) -> None:
    ring = load_script("ring")
    speech = tmp_path / sound[0]
    write_sound(speech, sound[1])
    output, codec = ring.choose_output(Path(source), speech, tmp_path)
    assert output == tmp_path / f"s{suffix}"
    assert codec == expected


def write_sound(path: Path, codec: str) -> None:
    with av.open(str(path), "w") as sink:
        stream = sink.add_stream(codec, rate=RATE)
        stream.layout = "mono"
        frame = av.AudioFrame.from_ndarray(noise(0.3)[None], format="s16", layout="mono")
        frame.sample_rate, frame.pts = RATE, 0
        frame.time_base = Fraction(1, RATE)
        sink.mux(stream.encode(frame))
        sink.mux(stream.encode(None))


def test_the_ring_gives_each_clip_the_next_ones_speech(clips: Path, tmp_path: Path) -> None:
    ring = load_script("ring")
    for name in ("b.mp4", "a.mkv", "c.mpg"):
        (tmp_path / name).touch()
    args = ring._parse([str(tmp_path), "--output", str(tmp_path / "out")])
    pairs = [(job.source.name, job.speech.name) for job in ring.jobs_of(args)]
    assert pairs == [("a.mkv", "b.mp4"), ("b.mp4", "c.mpg"), ("c.mpg", "a.mkv")]
    args.only = ["c", "a.mkv"]
    assert [job.source.name for job in ring.jobs_of(args)] == ["a.mkv", "c.mpg"]
    args.only = ["d"]
    with pytest.raises(SystemExit, match="no clip d"):
        ring.jobs_of(args)
    (tmp_path / "a.mp4").touch()
    with pytest.raises(SystemExit, match="more than one clip is called a"):
        ring.clips_of(tmp_path)


def test_a_ring_of_two_meets_every_check_and_is_resumed(
    clips: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ring = load_script("ring")
    command = [str(clips), "--output", str(tmp_path), "--device", "cpu"]
    assert ring.main([*command, "--quiet"]) == 0
    assert "2 of 2 clips met every check" in capsys.readouterr().out
    facts = json.loads((tmp_path / "ring.json").read_text())
    assert [row["output"] for row in facts["rows"]] == ["a.mp4", "b.mkv"]
    assert [row["sound"] for row in facts["rows"]] == ["encoded flac", "copied flac"]
    assert all(row["details"]["output_frames"] == round(SECONDS * 25) for row in facts["rows"])
    samples, _ = decode_audio(tmp_path / "a.mp4")
    np.testing.assert_array_equal(samples, decode_audio(clips / "b.mkv")[0][:, : samples.shape[1]])
    assert {"a.png", "b.png", "overview.png"} <= {p.name for p in tmp_path.iterdir()}
    written = (tmp_path / "a.mp4").stat().st_mtime_ns
    assert ring.main([*command, "--quiet", "--only", "a"]) == 0
    assert (tmp_path / "a.mp4").stat().st_mtime_ns == written


def test_a_clip_that_can_not_be_dubbed_fails_its_own_row_only(
    clips: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ring = load_script("ring")
    folder = tmp_path / "clips"
    folder.mkdir()
    grey = np.full((64, 64, 3), 128, np.uint8)
    write_clip(folder / "empty.mkv", [grey] * 5, noise(0.3))
    (folder / "text.mkv").write_text("no video")
    arguments = [str(folder), "--output", str(tmp_path / "out"), "--device", "cpu", "--quiet"]
    assert ring.main(arguments) == 1
    shown = capsys.readouterr().out
    assert "0 of 2 clips met every check" in shown
    assert "NoAudioStream" in shown
    assert len(json.loads((tmp_path / "out" / "ring.json").read_text())["rows"]) == 2


def test_the_lips_are_measured_by_every_protocol(
    clips: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    lips = load_script("lips")
    monkeypatch.setattr(speed, "TRACK_S", 3.0)
    sounds = tmp_path / "sounds"
    sounds.mkdir()
    for name in ("de_one.mkv", "fr.mkv"):
        (sounds / name).write_bytes((clips / "b.mkv").read_bytes())
    command = [str(clips), "--output", str(tmp_path), "--device", "cpu", "--quiet"]
    status = lips.main([*command, "--speech-folder", str(sounds), "--language-clips", "a"])
    shown = capsys.readouterr().out
    facts = json.loads((tmp_path / "lips.json").read_text())
    assert [s["name"] for s in facts["sections"]] == SECTIONS
    by_name = {s["name"]: s for s in facts["sections"]}
    rows = by_name["self_dub"]["rows"]
    assert [(row["clip"], row["other"]) for row in rows] == [("a.mp4", "b.mkv"), ("b.mkv", "a.mp4")]
    assert all(-1 <= row[k] <= 1 for row in rows for k in ("opening", "other opening", "jaw"))
    assert all(0 < row["lmd"] < 1 and 0 < row["rest lmd"] < 1 for row in rows)
    assert [row["language"] for row in by_name["languages"]["rows"]] == ["de", "fr"]
    assert all(row["finite"] for row in by_name["languages"]["rows"])
    assert by_name["same_speaker"]["rows"] == []
    targets = [t for s in facts["sections"] for t in s["targets"]]
    assert facts["passed"] == all(t["met"] for t in targets)
    assert status == (0 if facts["passed"] else 1) == 1  # nobody speaks with two clips here
    assert shown.count("MISSED") == sum(not t["met"] for t in targets)
    assert "MISSED same speaker: opening >= 0.6: not measured" in shown
    assert (tmp_path / "self_dub.csv").read_text().count("\n") == 3


def test_personas_are_kept_between_runs(clips: Path, tmp_path: Path) -> None:
    lips = load_script("lips")
    studio = Studio(Dubber.from_pretrained(device="cpu"), tmp_path)
    clip = lips.load_clips(clips, None)[0]
    first = studio.persona(clip)
    (kept,) = tmp_path.iterdir()
    written = kept.stat().st_mtime_ns
    again = Studio(studio.dubber, tmp_path).persona(clip)
    assert again.template.equal(first.template)
    assert kept.stat().st_mtime_ns == written


def test_style_is_judged_by_other_clips_of_the_speaker(clips: Path, tmp_path: Path) -> None:
    dubber = Dubber.from_pretrained(device="cpu")
    torch.manual_seed(0)
    lower = dubber.weights.geometry.lower
    encoder = StyleEncoder(StyleEncoderConfig(lower_vertices=len(lower), width=32, layers=1)).eval()
    betas = torch.randn(200, dubber.weights.morphable.expression.shape[0])
    encoder.set_motion(lower, dubber.weights.morphable.expression_vertices(betas)[:, lower])
    third = tmp_path / "c.mkv"
    third.write_bytes((clips / "b.mkv").read_bytes())
    mine = [Clip(clips / "a.mp4", "ann"), Clip(clips / "b.mkv", "ann"), Clip(third, "bob")]
    studio = Studio(dubber, tmp_path / "personas")
    row = protocols.style(studio, encoder, mine[0], mine[1], mine)
    names = ("real clips", "dub", "own words", "without style", "another's style")
    assert all(-1 <= row[name] <= 1 for name in names)
    assert row["others' real clips"] == pytest.approx(1, abs=1e-5)  # c is a copy of b
    assert row["dub"] != row["without style"] != row["another's style"]
    section = sections.style(Measuring(studio, mine, mine), encoder)
    assert [(r["clip"], r["real"]) for r in section.rows] == [
        ("a.mp4", "b.mkv"),
        ("b.mkv", "a.mp4"),
    ]
    behind, drop = (target.value for target in section.targets)
    means = {line["style of a real clip of the speaker, against"]: line for line in section.lines}
    real = means["two real clips of the speaker"]["StyleSim"]
    assert behind == pytest.approx(real - means["dub with other speakers' sound"]["StyleSim"])
    assert drop is not None


def test_speech_is_gathered_by_language(clips: Path, tmp_path: Path) -> None:
    manifest = clips.parent / "languages.csv"
    manifest.write_text(
        "file,role,speaker,language,seconds,speech_share\n"
        f"{clips.name}/a.mp4,dev,ann,pt,1.2,0.5\n{clips.name}/b.mkv,train,bob,pt (short),1.2,0.9\n"
        f"{clips.name}/b.mkv,train,bob,unknown,1.2,0.9\n{clips.name}/a.mp4,dev,cleo,de,1.2,0.5\n"
    )
    both = manifest_speech(manifest, [])
    assert sorted(both) == ["de", "pt"]
    assert len(both["pt"]) > len(both["de"]) > 0.3 * RATE
    parts = np.concatenate([spoken(load_speech(clips / name)) for name in ("b.mkv", "a.mp4")])
    np.testing.assert_array_equal(both["pt"], parts)  # who speaks most comes first
    assert len(manifest_speech(manifest, ["ann"])["pt"]) < len(both["pt"])
    with pytest.raises(InputNotFound, match="folder"):
        folder_speech(tmp_path / "none")
    assert folder_speech(tmp_path) == {}


def test_lips_are_read_back_from_the_picture(
    clips: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lips = load_script("lips")
    command = [str(clips), "--output", str(tmp_path), "--device", "cpu", "--quiet"]
    lips.main([*command, "--level", "picture", "--only", "a"])
    assert "Self-dub: 1 clips" in capsys.readouterr().out
    facts = json.loads((tmp_path / "lips_picture.json").read_text())
    (row,) = facts["sections"][0]["rows"]
    assert row["frames"] >= 25
    assert {p.name for p in (tmp_path / "dubs").iterdir()} == {"a_a.mkv", "a_b.mkv"}


def test_lips_names_what_it_can_not_measure(clips: Path, tmp_path: Path) -> None:
    lips = load_script("lips")
    manifest = tmp_path / "manifest.csv"
    manifest.write_text("file,role,speaker\nx/a.mp4,dev,ann\nx/b.mkv,dev,ann\n")
    command = [str(clips), "--output", str(tmp_path), "--device", "cpu", "--quiet"]
    with pytest.raises(SystemExit, match="two speakers"):
        lips.main([*command, "--manifest", str(manifest)])
    with pytest.raises(SystemExit, match="no clip c"):
        lips.main([*command, "--only", "c"])
    with pytest.raises(SystemExit, match="no such folder"):
        lips.main([str(tmp_path / "none"), *command[1:]])


def test_a_contact_sheet_shows_both_videos_at_one_place(clips: Path, tmp_path: Path) -> None:
    script = load_script("contact_sheet")
    source, png = str(clips / "a.mp4"), tmp_path / "sheet.png"
    assert script.main([source, source, str(png), "--frames", "3"]) == 0
    sheet = cv2.imread(str(png))
    assert sheet.shape[1] == LABEL_WIDTH + 3 * (FACE_TILE[1] + 2)
    top, face = 20, FACE_TILE[0] + 2
    tiles = sheet[:, LABEL_WIDTH:]
    np.testing.assert_array_equal(tiles[top : top + face], tiles[top + face : top + 2 * face])
    assert tiles[top : top + face].std() > 30
    with_truth = contact_sheet(source, source, source, frames=3)
    assert with_truth.shape[0] - top == (sheet.shape[0] - top) * 3 // 2
    assert script.main([source, str(tmp_path / "none.mp4"), str(png)]) == 3


def test_a_long_clip_is_made_without_a_jump(clips: Path, tmp_path: Path) -> None:
    memory = load_script("memory")
    frames = memory.make_clip(clips / "a.mp4", 2.8, tmp_path / "long.mp4", (320, 180))
    memory.make_speech(clips / "a.mp4", 2.8, tmp_path / "long.wav")
    assert frames == 70
    with VideoReader(tmp_path / "long.mp4") as reader:
        assert reader.video.display_size == (320, 180)
        assert reader.index.count == 70
        assert list(reader.index.times) == [Fraction(k, 25) for k in range(70)]
        pictures = [frame.rgb().astype(int) for frame in reader]
    steps = [np.abs(b - a).mean() for a, b in pairwise(pictures)]
    assert max(steps) < 8
    np.testing.assert_allclose(pictures[0][:, :60], 0, atol=3)  # beside the square picture
    assert load_speech(tmp_path / "long.wav").size == round(2.8 * RATE)


def test_the_sound_s_path_is_measured(tmp_path: Path) -> None:
    """In small: what is held is what was heard, far less than what was decoded."""
    growth = load_script("growth")
    growth.make_sound(1 / 60, tmp_path)
    heard = growth.sound_stage(growth.HEARING, tmp_path)
    assert np.load(tmp_path / "samples.npy").size == pytest.approx(60 * RATE, abs=10)
    copied = growth.sound_stage(growth.COPYING, tmp_path)
    decoded = 60 * growth.RATE * growth.CHANNELS * 4 / 2**20
    assert heard["of ffmpeg"] == 0.0
    assert 5 < copied["of ffmpeg"] < decoded / 3
    assert max(heard["MiB"], copied["MiB"]) < decoded / 3


def test_the_benchmark_times_every_stage(
    clips: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bench = load_script("bench")
    command = [str(clips / "a.mp4"), str(clips / "b.mkv"), "--device", "cpu", "--frames", "5"]
    assert bench.main([*command, "--no-end-to-end", "--output", str(tmp_path)]) == 0
    facts = json.loads((tmp_path / "bench.json").read_text())
    stages = [row["stage"] for row in facts["stages"]]
    assert len(stages) == 12
    assert {"decode", "fit", "stage 1", "encode", "raster and correspondence"} <= set(stages)
    assert all(row["frames per second"] > 0 for row in facts["stages"])
    assert facts["clip"]["rendered_frames"] == 5
    assert "| attention and decoder" in capsys.readouterr().out
