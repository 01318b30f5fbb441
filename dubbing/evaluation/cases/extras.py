"""Subtitles, chapters, metadata, time code: everything beside picture and sound."""

from __future__ import annotations

from pathlib import Path

import av

from dubbing.evaluation.cases.chain import run_chain, same_times
from dubbing.evaluation.cases.clips import ClipRecipe, ffmpeg_clip, make_clip, make_sound, tone
from dubbing.evaluation.cases.registry import Bench, case, check
from dubbing.evaluation.cases.times import speech
from dubbing.media.probe import probe

TOPIC = "extras"
METADATA = (
    ";FFMETADATA1\ntitle=A film\ncomment=by hand\nartist=Someone\nlocation=+52.5+013.4/\n"
    "[CHAPTER]\nTIMEBASE=1/1000\nSTART=0\nEND=400\ntitle=one\n"
    "[CHAPTER]\nTIMEBASE=1/1000\nSTART=400\nEND=1000\ntitle=two\n"
)
SUBTITLES = "1\n00:00:00,200 --> 00:00:00,700\nhello there\n"
MARKS = {".mp4": "mov_text", ".mov": "mov_text", ".mkv": "subrip"}


def rich(bench: Bench, suffix: str) -> Path:
    """A clip with two chapters, a subtitle, tags, languages, a time code and own sound."""
    folder = bench.folder
    plain = make_clip(folder / "plain.mp4", ClipRecipe(pts=range(25)))
    own = make_sound(folder / "own.m4a", "aac", tone(1.0, 44100), 44100)
    (folder / "s.srt").write_text(SUBTITLES)
    (folder / "m.txt").write_text(METADATA)
    inputs = [part for name in (plain, own, folder / "s.srt", folder / "m.txt")
              for part in ("-i", str(name))]  # fmt: skip
    codec = MARKS[suffix]
    return ffmpeg_clip(
        folder / f"in{suffix}", *inputs, "-map", "0:v", "-map", "1:a", "-map", "2",
        "-map_metadata", "3", "-map_chapters", "3", "-c", "copy", "-c:s", codec,
        "-timecode", "01:00:00:00", "-metadata:s:v:0", "language=ger",
        "-metadata:s:s:0", "language=ger",
    )  # fmt: skip


def _carried(bench: Bench, source: Path, suffix: str) -> str:
    output = bench.folder / f"out{suffix}"
    made = run_chain(source, speech(bench), output, codec="libx264", patch=False)
    same_times(made)
    info = probe(output)
    tags = {key.lower(): value for key, value in info.metadata.items()}
    check((tags.get("title"), tags.get("artist")) == ("A film", "Someone"), f"tags are {tags}")
    check(info.chapters == 2, f"{info.chapters} chapters")
    subtitles = [s.codec for s in info.other_streams if s.type == "subtitle"]
    check(subtitles == [MARKS[suffix]], f"subtitles are {subtitles}")
    with av.open(str(output)) as container:
        check(container.streams.video[0].language in ("deu", "ger"), "the language is gone")
        stream = container.streams.subtitles[0]
        check(stream.language in ("deu", "ger"), f"the subtitle's language is {stream.language}")
        texts = [bytes(p) for p in container.demux(stream) if p.size > 2]
        check(any(b"hello there" in text for text in texts), "the subtitle's words are gone")
        names = [chapter["metadata"]["title"] for chapter in container.chapters()]
        check(names == ["one", "two"], f"chapters are {names}")
        code = {**container.metadata, **container.streams.video[0].metadata}.get(
            "timecode", code_of(container)
        )
    check(code == "01:00:00:00", f"the time code is {code}")
    return f"{source.suffix} to {suffix}: all carried over, time code {code}"


def code_of(container: av.container.InputContainer) -> str | None:
    """The time code of a container's tags, whatever their case."""
    found = [container.metadata, *(stream.metadata for stream in container.streams)]
    for tags in found:
        for key, value in tags.items():
            if key.lower() == "timecode":
                return str(value)
    return None


@case(TOPIC, "mp4: chapters, subtitles, tags, languages, time code")
def mp4(bench: Bench) -> str:
    return _carried(bench, rich(bench, ".mp4"), ".mp4")


@case(TOPIC, "mov: chapters, subtitles, tags, languages, time code")
def mov(bench: Bench) -> str:
    return _carried(bench, rich(bench, ".mov"), ".mov")


@case(TOPIC, "mkv: chapters, subtitles, tags, languages, time code")
def mkv(bench: Bench) -> str:
    return _carried(bench, rich(bench, ".mkv"), ".mkv")


@case(TOPIC, "mp4 to mkv and mkv to mp4")
def across(bench: Bench) -> str:
    figures = [_carried(bench, rich(bench, ".mp4"), ".mkv")]
    figures.append(_carried(bench.fresh(), rich(bench, ".mkv"), ".mp4"))
    return "; ".join(figures)
