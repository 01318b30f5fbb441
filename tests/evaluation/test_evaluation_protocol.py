"""Protocol files, the speech of their cases, and the systems that dub them."""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from evaluation_samples import RATE, noise, write_clip

from dubbing.errors import InputNotFound, MediaFailed, OptionInvalid
from dubbing.evaluation.case_audio import case_speech, write_wav
from dubbing.evaluation.clips import Clip
from dubbing.evaluation.evaluation_options import EvaluateOptions
from dubbing.evaluation.protocol_file import Case, load_protocol, make_protocol
from dubbing.evaluation.protocol_names import CROSS, LONG, SAME, SELF, SILENCE
from dubbing.evaluation.systems import CommandSystem, FolderSystem, Work, named
from dubbing.media.audio import load_speech

GREY = np.full((32, 32, 3), 90, np.uint8)


@pytest.fixture
def clips(tmp_path: Path) -> list[Clip]:
    folder = tmp_path / "clips"
    folder.mkdir()
    found = []
    for seed, (name, speaker) in enumerate((("a", "ann"), ("b", "ann"), ("c", "bob"))):
        path = write_clip(folder / f"{name}.mkv", [GREY] * 15, noise(0.6, seed))
        found.append(Clip(path, speaker))
    return found


def test_every_protocol_is_made_from_clips_of_known_speakers(clips: list[Clip]) -> None:
    protocol = make_protocol(clips, clips[0].path.parent, "dev")
    kinds = [case.protocol for case in protocol.cases]
    assert {k: kinds.count(k) for k in (SELF, SAME, CROSS, SILENCE, LONG)} == {
        SELF: 3, SAME: 2, CROSS: 3, SILENCE: 3, LONG: 2,
    }  # fmt: skip
    by_id = {case.id: case for case in protocol.cases}
    assert len(by_id) == len(protocol.cases)
    assert by_id["self-dub-a"].truth == by_id["self-dub-a"].source == "a.mkv"
    assert (by_id["same-speaker-a"].audio, by_id["same-speaker-a"].truth) == ("b.mkv", "b.mkv")
    cross = by_id["cross-speaker-b"]
    assert (cross.audio, cross.truth, cross.speaker, cross.voice) == ("c.mkv", None, "ann", "bob")


def test_a_protocol_knows_its_files_by_their_content(clips: list[Clip], tmp_path: Path) -> None:
    root = clips[0].path.parent
    file = tmp_path / "p.json"
    make_protocol(clips, root, "dev").save(file)
    protocol = load_protocol(file)
    protocol.check()
    assert protocol.digest() == load_protocol(file).digest()
    moved = tmp_path / "moved"
    shutil.copytree(root, moved)
    load_protocol(file, moved).check()
    clips[2].path.write_bytes(b"another film")
    with pytest.raises(OptionInvalid, match=r"c\.mkv: its content is not"):
        protocol.check()
    protocol.check([c for c in protocol.cases if c.id == "self-dub-a"])
    clips[2].path.unlink()
    with pytest.raises(InputNotFound):
        protocol.check()


@pytest.mark.parametrize(
    "text",
    ["no json", "{}", '{"format": 9, "name": "x", "root": ".", "cases": []}',
     '{"format": 1, "name": "x", "root": ".", "cases": [{"id": "x"}]}'],
)  # fmt: skip
def test_what_is_no_protocol_is_refused(text: str, tmp_path: Path) -> None:
    file = tmp_path / "p.json"
    file.write_text(text)
    with pytest.raises(OptionInvalid, match="not a protocol file"):
        load_protocol(file)
    with pytest.raises(InputNotFound, match="dub protocol"):
        load_protocol(tmp_path / "none.json")


def test_speech_is_on_the_clock_of_its_picture(clips: list[Clip]) -> None:
    protocol = make_protocol(clips, clips[0].path.parent, "dev")
    by_id = {case.id: case for case in protocol.cases}
    own = case_speech(protocol, by_id["self-dub-a"])
    np.testing.assert_array_equal(own.samples, load_speech(clips[0].path))
    assert own.silences == ()
    long = case_speech(protocol, by_id["long-a"])
    assert long.seconds == pytest.approx(60, abs=1 / RATE)
    np.testing.assert_array_equal(long.samples[: len(own.samples)], load_speech(clips[2].path))
    late = Clip(clips[0].path, "ann")
    late.__dict__["sound_offset"] = 0.1
    from dubbing.evaluation.case_audio import on_picture_clock

    assert len(on_picture_clock(late)) == len(late.samples) + 1600
    late.__dict__["sound_offset"] = -0.1
    np.testing.assert_array_equal(on_picture_clock(late), late.samples[1600:])


def work(tmp_path: Path) -> Work:
    video = write_clip(tmp_path / "in.mkv", [GREY] * 5, noise(0.2))
    audio = tmp_path / "in.wav"
    write_wav(audio, np.zeros(3200, np.float32))
    case = Case("one", SELF, "in.mkv", "in.wav", None, {}, "ann", "ann")
    return Work(case, video, audio, tmp_path / "out.mp4")


def test_a_program_is_run_with_its_places_filled_in(tmp_path: Path) -> None:
    code = (
        "import shutil, sys; x = bytearray(40_000_000); print('made'); "
        "shutil.copy(sys.argv[1], sys.argv[3])"
    )
    system = CommandSystem("peer", f'{sys.executable} -c "{code}" {{video}} {{audio}} {{output}}')
    job = work(tmp_path)
    made = system.make(job)
    assert made.path.read_bytes() == job.video.read_bytes()
    assert made.seconds is not None
    assert 0 < made.seconds < 60
    assert made.peak_mib is not None
    assert made.peak_mib > 40
    assert job.output.with_suffix(".log").read_text() == "made\n"


@pytest.mark.parametrize(
    ("program", "message"),
    [
        ("raise SystemExit('out of luck')", "ended with status 1: out of luck"),
        ("pass", "left no video"),
        ("import time; time.sleep(60)", "was ended after 1 s"),
    ],
)
def test_a_program_that_fails_says_why(program: str, message: str, tmp_path: Path) -> None:
    template = f'{sys.executable} -c "{program}" {{video}} {{audio}} {{output}}'
    with pytest.raises(MediaFailed, match=message):
        CommandSystem("peer", template, timeout=1.0 if "sleep" in program else 60).make(
            work(tmp_path)
        )


def test_a_program_that_is_not_there_is_a_failure(tmp_path: Path) -> None:
    with pytest.raises(MediaFailed, match="can't be started"):
        CommandSystem("peer", "/no/such/tool {video} {audio} {output}").make(work(tmp_path))
    with pytest.raises(OptionInvalid, match=r"has no \{output\}"):
        CommandSystem("peer", "tool {video} {audio}")


def test_a_folder_gives_the_video_of_a_case(tmp_path: Path) -> None:
    job = work(tmp_path)
    folder = tmp_path / "theirs"
    folder.mkdir()
    system = FolderSystem("theirs", folder)
    with pytest.raises(InputNotFound, match="no video named one"):
        system.make(job)
    shutil.copy(job.video, folder / "one.mkv")
    before = system.key(job.case)
    assert system.make(job).path == folder / "one.mkv"
    with (folder / "one.mkv").open("ab") as file:
        file.write(os.urandom(8))
    assert system.key(job.case) != before


def test_options_are_checked() -> None:
    assert named(["a=b", "c=d=e"], "videos") == [("a", "b"), ("c", "d=e")]
    for wrong in ("folder", "=x", "a=", "a/b=c"):
        with pytest.raises(OptionInvalid, match="NAME=VIDEOS"):
            named([wrong], "videos")
    assert EvaluateOptions(Path("x"), protocols="self-dub, long").wanted == [SELF, LONG]
    with pytest.raises(OptionInvalid, match="no protocol dub"):
        EvaluateOptions(Path("x"), protocols="dub")
    with pytest.raises(OptionInvalid, match="frames"):
        EvaluateOptions(Path("x"), frames=1)


def test_a_protocol_is_json(clips: list[Clip], tmp_path: Path) -> None:
    file = tmp_path / "p.json"
    make_protocol(clips, clips[0].path.parent, "dev").save(file)
    values = json.loads(file.read_text())
    assert values["format"] == 1
    assert len(values["cases"][0]["hashes"]["a.mkv"]) == 64
