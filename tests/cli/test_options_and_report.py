"""Options check themselves and survive JSON; reports are saved whole."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from dubbing.errors import OptionInvalid, OutputUnwritable
from dubbing.face.limits import FaceLimits
from dubbing.inspection_view import print_facts, save_inspection
from dubbing.options import DubOptions, from_dict, to_dict
from dubbing.report import (
    CheckpointFacts,
    DubReport,
    PassThrough,
    PictureFacts,
    SoundFacts,
    StageTime,
    join_pass_through,
)
from dubbing.speaker_choice import SpeakerChoice
from dubbing.training.options import GeometryTrainOptions


def test_options_survive_json() -> None:
    options = DubOptions(length="video", speaker="3", style=Path("other.mp4"), style_strength=0.5)
    again = DubOptions.from_json(options.to_json())
    assert again == options
    assert isinstance(again.style, Path)
    assert again.speaker_choice == SpeakerChoice(track=3)
    assert DubOptions.from_json("{}") == DubOptions()
    assert DubOptions().speaker_choice == SpeakerChoice()
    assert DubOptions().face_limits == FaceLimits()
    assert DubOptions(max_yaw=30, min_face=64).face_limits == FaceLimits(max_yaw=30, min_face=64)


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("largest", SpeakerChoice()),
        ("active", SpeakerChoice(active=True)),
        ("12", SpeakerChoice(track=12)),
        ("640,360@12.5", SpeakerChoice(place=(640, 360, 12.5))),
        ("0.5,7@0", SpeakerChoice(place=(0.5, 7, 0))),
    ],
)
def test_ways_to_name_a_speaker(text: str, meant: SpeakerChoice) -> None:
    assert DubOptions(speaker=text).speaker_choice == meant


@pytest.mark.parametrize(
    "text", ["", "left", "-1", "1.5", "3,4", "3,4@", "3,4@-1", "a,b@c", "\u0663"]
)
def test_other_names_of_a_speaker_are_refused(text: str) -> None:
    with pytest.raises(OptionInvalid, match="x,y@t"):
        DubOptions(speaker=text)


@pytest.mark.parametrize(
    "text",
    [
        "[]",
        "nonsense",
        '{"colour": 1}',
        '{"crf": "16"}',
        '{"crf": true}',
        '{"crf": -1}',
        '{"overwrite": 1}',
        '{"style_strength": NaN}',
        '{"speaker": "-1"}',
        '{"preset": null}',
    ],
)
def test_bad_json_is_refused(text: str) -> None:
    with pytest.raises(OptionInvalid):
        DubOptions.from_json(text)


def test_training_options_need_their_folders() -> None:
    made = from_dict(GeometryTrainOptions, {"data": "in", "output": "out", "steps": 5})
    assert (made.data, made.steps, made.batch_size) == (Path("in"), 5, 16)
    assert from_dict(GeometryTrainOptions, to_dict(made)) == made
    with pytest.raises(OptionInvalid, match="output"):
        from_dict(GeometryTrainOptions, {"data": "in"})
    with pytest.raises(OptionInvalid, match="precision"):
        GeometryTrainOptions(data=Path("in"), output=Path("out"), precision="8")


def make_report() -> DubReport:
    picture = PictureFacts("in.mp4", 100, 640, 480, 0.0, 4.0, "h264")
    return DubReport(
        video=picture,
        audio=SoundFacts("speech.wav", "pcm_s16le", 48000, 2, 4.0),
        output=PictureFacts("out.mp4", 100, 640, 480, 0.0, 4.0, "h264"),
        options=to_dict(DubOptions()),
        checkpoint=CheckpointFacts("default", {"geometry.safetensors": "ab" * 32}),
        device="cpu",
        engine_version="0.1.0",
        marking="synthetic",
        passed_through=join_pass_through(
            {3: "no face", 4: "no face", 5: "small", 9: "no face", 2: "no face"}
        ),
        stages=[StageTime("render", 20.0, 100)],
        total_seconds=25.0,
    )


def test_report_counts_what_passed_through() -> None:
    report = make_report()
    assert report.passed_through == [
        PassThrough("no face", 2, 5),
        PassThrough("small", 5, 6),
        PassThrough("no face", 9, 10),
    ]
    assert report.pass_through_counts == {"no face": 4, "small": 1}


def test_report_is_saved_as_json(tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    make_report().save(path)
    saved = json.loads(path.read_text())
    assert saved["fps"] == 4.0
    assert saved["stages"] == [{"stage": "render", "seconds": 20.0, "units": 100, "fps": 5.0}]
    first = {"reason": "no face", "start_frame": 2, "stop_frame": 5}
    assert saved["passed_through"][0] == first | {"start_s": None, "stop_s": None}
    assert saved["options"]["crf"] == 14
    assert [p.name for p in tmp_path.iterdir()] == ["report.json"]


def test_report_into_a_missing_folder_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(OutputUnwritable, match="nowhere"):
        make_report().save(tmp_path / "nowhere" / "report.json")
    assert list(tmp_path.iterdir()) == []


def test_inspection_is_saved_and_printed(tmp_path: Path) -> None:
    import cv2

    sheet = np.zeros((8, 6, 3), np.uint8)
    sheet[..., 0] = 255  # red
    facts = {
        "path": "a.mp4",
        "media": {"width": 640, "duration_s": 1.5},
        "tracks": [{"id": 0, "frames": 30}, {"id": 1, "frames": 7}],
        "references": [4, 9],
    }
    saved = save_inspection(facts, sheet, tmp_path / "seen")
    assert json.loads(saved.facts.read_text()) == facts
    picture = cv2.imread(str(saved.sheet))
    assert picture is not None
    assert picture.shape == (8, 6, 3)
    assert picture[0, 0].tolist() == [0, 0, 255]  # OpenCV reads BGR
    console = Console(width=80, record=True, file=io.StringIO())
    print_facts(facts, "a.mp4", console)
    text = console.export_text()
    for word in ("duration s", "1.5", "tracks", "30", "4, 9"):
        assert word in text
