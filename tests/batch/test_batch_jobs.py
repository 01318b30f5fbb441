"""Jobs files and pairs of folders: what they mean, and every fault with its line."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
from batch_samples import write_jobs

from dubbing.batch.jobs import Job, read_jobs
from dubbing.batch.pairing import pair_folders
from dubbing.errors import BatchInvalid, InputNotFound, OptionInvalid
from dubbing.options import DubOptions

GOOD = {"video": "a.mp4", "audio": "a.wav", "output": "a.mp4"}


def faults(path: Path) -> list[str]:
    with pytest.raises(BatchInvalid) as caught:
        read_jobs(path)
    return str(caught.value).splitlines()[1:]


def test_json_lines_with_options(tmp_path: Path) -> None:
    path = write_jobs(
        tmp_path / "jobs.jsonl",
        [
            GOOD,
            {**GOOD, "output": "de/b.mkv", "crf": 20, "adapt": True, "style": "s.mp4",
             "persona": "p.persona", "report": "de/b.json", "audio": "memory://bucket/a.wav"},
        ],
    )  # fmt: skip
    plain, rich = read_jobs(path, DubOptions(length="video", crf=10))
    assert plain.video == str(tmp_path / "a.mp4")
    assert plain.options == DubOptions(length="video", crf=10)
    assert (rich.options.crf, rich.options.adapt, rich.options.length) == (20, True, "video")
    assert (rich.audio, rich.output) == ("memory://bucket/a.wav", "de/b.mkv")
    assert (rich.style, rich.persona) == (str(tmp_path / "s.mp4"), str(tmp_path / "p.persona"))
    assert (rich.report, rich.line) == ("de/b.json", 2)
    assert dataclasses.replace(Job.from_dict(rich.to_dict()), line=2) == rich


def test_csv_cells_become_values_of_their_option(tmp_path: Path) -> None:
    path = tmp_path / "jobs.csv"
    path.write_text(
        "video,audio,output,crf,style_strength,adapt,length,persona\n"
        '"a, b.mp4",a.wav,a.mp4,20,0.5,yes,video,\n'
        "b.mp4,b.wav,b.mp4,,,,,\n"
    )
    first, second = read_jobs(path)
    assert first.video == str(tmp_path / "a, b.mp4")
    assert first.options == DubOptions(crf=20, style_strength=0.5, adapt=True, length="video")
    assert (second.options, second.persona) == (DubOptions(), None)


def test_every_fault_of_a_json_file_is_told_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "jobs.jsonl"
    rows = [
        json.dumps(GOOD),
        "{broken",
        json.dumps({"video": "a.mp4", "output": "b.mp4"}),
        json.dumps({**GOOD, "output": "c.mp4", "crf": 99, "length": "forever"}),
        json.dumps({**GOOD, "output": "d.mp4", "loudness": 3}),
        json.dumps(GOOD),
        json.dumps({**GOOD, "output": "../e.mp4"}),
        json.dumps({**GOOD, "output": "f.gif"}),
        json.dumps([1]),
        json.dumps({**GOOD, "output": "g.mp4", "video": "nowhere://x/a.mp4"}),
        json.dumps({**GOOD, "output": ".dub-batch/h.mp4", "video": 7}),
    ]
    path.write_text("\n".join(rows))
    found = faults(path)
    lines = [int(row.split()[1].rstrip(":")) for row in found]
    assert lines == [2, 3, 4, 4, 5, 6, 7, 8, 9, 10, 11]
    for row, word in zip(
        found,
        ["JSON", "audio", "crf", "length", "loudness", "line 1", "below", "gif", "object",
         "nowhere", "text"],
        strict=True,
    ):  # fmt: skip
        assert word in row


def test_every_fault_of_a_csv_file_is_told_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "jobs.csv"
    path.write_text(
        "video,audio,output,crf,adapt\na.mp4,a.wav,a.mp4,lots,\nb.mp4,b.wav\n"
        "c.mp4,c.wav,c.mp4,20,perhaps\n"
    )
    assert [row.strip().split(":")[0] for row in faults(path)] == ["line 2", "line 3", "line 4"]
    path.write_text("video,output\na.mp4,b.mp4\n")
    assert "no column audio or map" in faults(path)[0]


SEVERAL = {"video": "talk.mp4", "output": "talk.mp4"}


def test_several_speakers_of_one_video(tmp_path: Path) -> None:
    said = {"0": "anna.wav", "640,200@3": "memory://bucket/ben.wav"}
    path = write_jobs(
        tmp_path / "jobs.jsonl",
        [
            {**SEVERAL, "map": said, "mix": "final.wav", "length": "video"},
            {**SEVERAL, "output": "b.mp4", "map": ["0=anna.wav", "1=odd=name.wav"]},
        ],
    )
    first, second = read_jobs(path)
    anna = str(tmp_path / "anna.wav")
    assert first.audio is None
    assert first.speeches == {"0": anna, "640,200@3": "memory://bucket/ben.wav"}
    assert first.mix == str(tmp_path / "final.wav")
    assert first.inputs == [first.video, first.mix, *first.speeches.values()]
    assert second.speeches == {"0": anna, "1": str(tmp_path / "odd=name.wav")}
    assert dataclasses.replace(Job.from_dict(first.to_dict()), line=1) == first
    assert len({first.digest, second.digest, dataclasses.replace(first, mix=None).digest}) == 3


def test_several_speakers_in_a_table(tmp_path: Path) -> None:
    path = tmp_path / "jobs.csv"
    path.write_text(
        'video,map,mix,output\ntalk.mp4,"0=anna.wav; 64,20@3=ben.wav",,talk.mp4\n'
        "talk.mp4,0=anna.wav,final.wav,alone.mp4\n"
    )
    first, second = read_jobs(path)
    assert {who: Path(p).name for who, p in first.speeches.items()} == {
        "0": "anna.wav", "64,20@3": "ben.wav"
    }  # fmt: skip
    assert (first.mix, Path(str(second.mix)).name) == (None, "final.wav")


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"audio": "a.wav", "map": {"0": "b.wav"}}, "give one of them"),
        ({}, "audio"),
        ({"map": {}}, "SPEAKER=AUDIO"),
        ({"map": 3}, "SPEAKER=AUDIO"),
        ({"map": {"0": 5}}, "SPEAKER=AUDIO"),
        ({"map": ["0"]}, "SPEAKER=AUDIO"),
        ({"map": ["0=a.wav", "0=b.wav"]}, "twice"),
        ({"map": {"left": "a.wav"}}, "left"),
        ({"map": {"0": "nowhere://x/a.wav"}}, "nowhere"),
        ({"audio": "a.wav", "mix": "m.wav"}, "mix"),
        ({"map": {"0": "a.wav"}, "mix": 4}, "mix"),
        ({"map": {"0": "a.wav"}, "persona": "p.persona"}, "persona"),
        ({"map": {"0": "a.wav"}, "adapt": True}, "adapt"),
    ],
)
def test_contradictions_of_several_speakers_are_told(
    wrong: dict[str, object], words: str, tmp_path: Path
) -> None:
    path = write_jobs(tmp_path / "jobs.jsonl", [GOOD, {**SEVERAL, "output": "x.mp4", **wrong}])
    (fault,) = faults(path)
    assert fault.strip().startswith("line 2:")
    assert words in fault


def test_file_without_jobs_and_file_that_is_not_there(tmp_path: Path) -> None:
    (tmp_path / "none.jsonl").write_text("\n\n")
    assert "no jobs" in faults(tmp_path / "none.jsonl")[0]
    with pytest.raises(InputNotFound):
        read_jobs(tmp_path / "absent.jsonl")


def test_digest_tells_jobs_apart_but_not_by_overwrite(tmp_path: Path) -> None:
    job = Job("a.mp4", "a.wav", "a.mp4")
    other = dataclasses.replace(job, options=DubOptions(crf=20))
    again = dataclasses.replace(job, options=DubOptions(overwrite=True), line=7)
    assert job.digest == again.digest != other.digest


def folders(tmp_path: Path, videos: list[str], sounds: list[str]) -> tuple[Path, Path]:
    for folder, names in (("videos", videos), ("sounds", sounds)):
        (tmp_path / folder).mkdir()
        for name in names:
            (tmp_path / folder / name).touch()
    return tmp_path / "videos", tmp_path / "sounds"


def test_pairs_by_stem_take_languages(tmp_path: Path) -> None:
    videos, sounds = folders(
        tmp_path, ["l1.mp4", "l1.b.mov", "notes.txt"], ["l1.wav", "l1.de.flac", "l1.b.fr.mp3"]
    )
    jobs = pair_folders(videos, sounds, "stem", DubOptions(crf=9))
    found = {job.output: (Path(job.video).name, Path(job.audio).name) for job in jobs}
    assert found == {
        "l1.mp4": ("l1.mp4", "l1.wav"),
        "l1.de.mp4": ("l1.mp4", "l1.de.flac"),
        "l1.b.fr.mov": ("l1.b.mov", "l1.b.fr.mp3"),
    }
    assert {job.options.crf for job in jobs} == {9}


def test_files_without_a_partner_are_all_told(tmp_path: Path) -> None:
    videos, sounds = folders(tmp_path, ["a.mp4", "b.mp4"], ["a.wav", "c.wav"])
    with pytest.raises(BatchInvalid, match=r"2 faults[\s\S]*c\.wav[\s\S]*b\.mp4"):
        pair_folders(videos, sounds, "stem")


def test_product_pairs_every_video_with_every_speech(tmp_path: Path) -> None:
    videos, sounds = folders(tmp_path, ["a.mp4", "b.avi"], ["de.wav", "fr.wav"])
    jobs = pair_folders(videos, sounds, "product")
    assert [j.output for j in jobs] == ["a-de.mp4", "a-fr.mp4", "b-de.mp4", "b-fr.mp4"]


def test_pairs_of_what_is_not_there(tmp_path: Path) -> None:
    videos, sounds = folders(tmp_path, [], ["de.wav"])
    with pytest.raises(BatchInvalid, match="no video"):
        pair_folders(videos, sounds, "stem")
    with pytest.raises(InputNotFound):
        pair_folders(tmp_path / "absent", sounds, "stem")
    with pytest.raises(OptionInvalid, match="pair is"):
        pair_folders(videos, sounds, "zip")
