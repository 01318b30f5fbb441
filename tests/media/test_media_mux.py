from __future__ import annotations

import errno
import os
import resource
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from media_samples import (
    TB_24000,
    TURN_90,
    VFR_PTS,
    frame_times,
    make_audio,
    make_video,
    packets,
    tone,
)

from dubbing.errors import DiskFull, MediaFailed, OptionInvalid, OutputUnwritable
from dubbing.media.audio import audio_duration, audio_start, decode_audio
from dubbing.media.containers import CONTAINERS, choose_audio
from dubbing.media.ffmpeg import ffmpeg_binary, run_ffmpeg
from dubbing.media.mux import check_output, disk_errors, mux, require_free_space
from dubbing.media.probe import probe, require_video

START = Fraction(VFR_PTS[0], 24000)
TIMES = [Fraction(pts, 24000) for pts in VFR_PTS]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("mux")


@pytest.fixture(scope="module")
def offset_clip(folder: Path) -> Path:
    return make_video(
        folder / "vfr.mp4", VFR_PTS, TB_24000, matrix=TURN_90, tags=(2, 9, 9, 16), fmt="yuv420p"
    )


@pytest.fixture(scope="module")
def clip(folder: Path) -> Path:
    return make_video(folder / "cfr.mp4", range(25))


@pytest.fixture(scope="module")
def speech(folder: Path) -> dict[str, Path]:
    samples = tone(2.0, 44100, 2)
    no_noise = {"aac_pns": "0"}  # substituted noise is random at every decode
    return {
        "aac": make_audio(folder / "s.m4a", "aac", samples, 44100, no_noise),
        "mp3": make_audio(folder / "s.mp3", "libmp3lame", samples, 44100),
        "opus": make_audio(folder / "s.ogg", "libopus", tone(2.0, 48000, 2), 48000),
        "flac": make_audio(folder / "s.flac", "flac", samples, 44100),
        "pcm_s16le": make_audio(folder / "s.wav", "pcm_s16le", samples, 44100),
    }


@pytest.fixture(scope="module")
def rich(folder: Path) -> Path:
    """A source with chapters, subtitles, tags, a language and a time code."""
    plain = make_video(folder / "plain.mp4", range(25))
    (folder / "s.srt").write_text("1\n00:00:00,200 --> 00:00:00,700\nhello there\n")
    (folder / "m.txt").write_text(
        ";FFMETADATA1\ntitle=A film\ncomment=by hand\nartist=Someone\n"
        "[CHAPTER]\nTIMEBASE=1/1000\nSTART=0\nEND=400\ntitle=one\n"
        "[CHAPTER]\nTIMEBASE=1/1000\nSTART=400\nEND=1000\ntitle=two\n"
    )
    out = folder / "rich.mp4"
    names = [plain, folder / "s.srt", folder / "m.txt"]
    inputs = [part for name in names for part in ("-i", str(name))]
    kept = "-map 0:v -map 1 -map_metadata 2 -c copy -c:s mov_text -timecode 01:00:00:00"
    tags = ["-metadata:s:v:0", "language=deu", "-metadata:s:s:0", "language=fra"]
    run_ffmpeg([*inputs, *kept.split(), *tags, str(out)])
    return out


TAKEN = [
    ("aac", ".mp4"),
    ("aac", ".mov"),
    ("aac", ".mkv"),
    ("mp3", ".mp4"),
    ("opus", ".mkv"),
    ("flac", ".mp4"),
    ("flac", ".mkv"),
    ("pcm_s16le", ".mov"),
    ("pcm_s16le", ".mkv"),
]


@pytest.mark.parametrize(("codec", "suffix"), TAKEN)
def test_sound_is_copied_bit_by_bit(
    tmp_path: Path, clip: Path, speech: dict[str, Path], codec: str, suffix: str
) -> None:
    out = tmp_path / f"out{suffix}"
    result = mux(clip, speech[codec], clip, out)
    assert (result.audio_action, result.audio_codec) == ("copied", codec)
    given, got = packets(speech[codec], "audio"), packets(out, "audio")
    if codec.startswith("pcm"):  # its packets are cut anew
        assert b"".join(given) == b"".join(got)
    else:
        assert given == got
    a, b = decode_audio(speech[codec])[0], decode_audio(out)[0]
    heard = round(2.0 * (48000 if codec == "opus" else 44100))
    np.testing.assert_allclose(a[:, :heard], b[:, : min(heard, b.shape[1])], atol=0)
    assert packets(out, "video") == packets(clip, "video")


@pytest.mark.parametrize(
    ("codec", "suffix", "becomes"),
    [("pcm_s16le", ".mp4", "aac"), ("flac", ".mov", "aac"), ("opus", ".mov", "aac")],
)
def test_sound_is_encoded_once_at_its_own_rate(
    tmp_path: Path, clip: Path, speech: dict[str, Path], codec: str, suffix: str, becomes: str
) -> None:
    out = tmp_path / f"out{suffix}"
    result = mux(clip, speech[codec], clip, out)
    assert (result.audio_action, result.audio_codec) == ("encoded", becomes)
    before, after = probe(speech[codec]).audio[0], probe(out).audio[0]
    assert (after.codec, after.sample_rate, after.channels) == (
        becomes,
        before.sample_rate,
        before.channels,
    )
    a, b = decode_audio(speech[codec])[0].astype(float), decode_audio(out)[0]
    a = a / (32768 if codec != "opus" else 1)
    shared = slice(4000, 80000)
    if codec != "flac" or a.shape[0] == b.shape[0]:
        assert np.corrcoef(a[0, shared], b[0, shared])[0, 1] > 0.98


def test_webm_takes_vp9_with_opus(tmp_path: Path, speech: dict[str, Path]) -> None:
    source = make_video(tmp_path / "v.webm", range(10), Fraction(1, 1000), codec="libvpx-vp9")
    out = tmp_path / "out.webm"
    assert mux(source, speech["aac"], source, out).audio_codec == "opus"
    assert mux(source, speech["opus"], source, tmp_path / "o2.webm").audio_action == "copied"
    assert probe(out).audio[0].codec == "opus"


@pytest.mark.parametrize("suffix", [".mp4", ".mov", ".mkv"])
@pytest.mark.parametrize("codec", ["pcm_s16le", "aac", "mp3"])
def test_times_offset_rotation_and_colour_survive(
    tmp_path: Path, offset_clip: Path, speech: dict[str, Path], suffix: str, codec: str
) -> None:
    out = tmp_path / f"out{suffix}"
    result = mux(offset_clip, speech[codec], offset_clip, out)
    assert result.video_start == START
    times = frame_times(out)
    if CONTAINERS[suffix].exact_times:
        assert times == TIMES
    else:
        assert all(abs(a - b) <= Fraction(1, 1000) for a, b in zip(times, TIMES, strict=True))
    video = require_video(out).video
    assert video is not None and video.display_matrix == TURN_90
    assert (video.color_range, video.color_space) == (2, 9)
    assert (video.color_primaries, video.color_trc) == (9, 16)
    # what is heard at the first picture is the speech's beginning
    given, rate = decode_audio(speech[codec])
    got = decode_audio(out)[0]
    lead = round((START - audio_start(out)) * rate)
    assert lead >= -60
    scale = 32768.0 if given.dtype == np.int16 and got.dtype != np.int16 else 1.0
    best = max(
        range(max(0, lead - 60), lead + 61),
        key=lambda lag: float(
            np.dot(given[0, 5000:9000] / scale, got.astype(float)[0, 5000 + lag : 9000 + lag])
        ),
    )
    assert abs(best - lead) <= 45  # one millisecond, Matroska's clock


@pytest.mark.parametrize("suffix", [".mp4", ".mov", ".mkv"])
@pytest.mark.parametrize("codec", ["pcm_s16le", "aac", "mp3"])
def test_cut_is_never_shorter_than_the_picture(
    tmp_path: Path, offset_clip: Path, speech: dict[str, Path], suffix: str, codec: str
) -> None:
    length = Fraction(8, 10)
    out = tmp_path / f"out{suffix}"
    mux(offset_clip, speech[codec], offset_clip, out, duration=length)
    end = audio_start(out) + audio_duration(out)
    assert START + length - Fraction(1, 1000) <= end <= START + length + Fraction(3 * 1152, 44100)
    assert len(frame_times(out)) == len(VFR_PTS)


def test_short_sound_is_not_padded(tmp_path: Path, clip: Path) -> None:
    short = make_audio(tmp_path / "s.wav", "pcm_s16le", tone(0.4, 16000), 16000)
    mux(clip, short, clip, tmp_path / "o.mkv", duration=Fraction(1))
    assert audio_duration(tmp_path / "o.mkv") == Fraction(6400, 16000)


@pytest.mark.parametrize(("suffix", "subtitle"), [(".mp4", "mov_text"), (".mkv", "subrip")])
def test_metadata_chapters_and_subtitles_survive(
    tmp_path: Path, clip: Path, rich: Path, speech: dict[str, Path], suffix: str, subtitle: str
) -> None:
    out = tmp_path / f"out{suffix}"
    result = mux(clip, speech["aac"], rich, out, extra_metadata={"comment": "made by a machine"})
    info = probe(out)
    tags = {key.lower(): value for key, value in info.metadata.items()}
    assert (tags["title"], tags["artist"]) == ("A film", "Someone")
    assert tags["comment"] == "made by a machine"
    assert ("major_brand" in tags) == (suffix == ".mp4")
    assert info.chapters == 2
    assert [s.codec for s in info.other_streams if s.type == "subtitle"] == [subtitle]
    assert len(result.kept) == 1 and "subtitle" in result.kept[0]
    assert result.dropped == ()
    with av.open(str(out)) as container:
        assert container.streams.video[0].language in ("deu", "ger")
        assert container.streams.subtitles[0].language in ("fra", "fre")
        stamps = [p.pts * p.time_base for p in container.demux(subtitles=0) if p.size > 2]
        assert Fraction(1, 5) in stamps
        chapters = [c["metadata"]["title"] for c in container.chapters()]
    assert chapters == ["one", "two"]
    if suffix == ".mp4":
        assert b"hello there" in packets(out, "subtitle")[1] + packets(out, "subtitle")[0]
        assert "timecode" in [s.codec for s in info.other_streams]


def test_unusual_tags_survive_in_mp4(tmp_path: Path, clip: Path, speech: dict[str, Path]) -> None:
    out = tmp_path / "o.mp4"
    tags = {"comment": "a; b=c", "x_provenance": "synthetic é"}
    mux(clip, speech["aac"], clip, out, extra_metadata=tags)
    assert tags.items() <= probe(out).metadata.items()


def test_attachments_survive_in_mkv(tmp_path: Path, clip: Path, speech: dict[str, Path]) -> None:
    source = tmp_path / "a.mkv"
    with av.open(str(clip)) as given, av.open(str(source), "w") as container:
        stream = container.add_stream_from_template(given.streams.video[0])
        container.add_attachment("font.ttf", "application/x-truetype-font", b"glyphs" * 50)
        for packet in given.demux(video=0):
            if packet.size:
                packet.stream = stream
                container.mux(packet)
    mux(clip, speech["aac"], source, tmp_path / "o.mkv")
    with av.open(str(tmp_path / "o.mkv")) as container:
        attached = container.streams.attachments[0]
        assert attached.name == "font.ttf" and attached.data == b"glyphs" * 50
    result = mux(clip, speech["aac"], source, tmp_path / "o.mp4")
    assert len(result.dropped) == 1 and result.dropped[0].startswith("attachment 1")


def test_mp4_starts_with_its_index(tmp_path: Path, clip: Path, speech: dict[str, Path]) -> None:
    out = tmp_path / "o.mp4"
    mux(clip, speech["aac"], clip, out)
    data = out.read_bytes()
    assert data.index(b"moov") < data.index(b"mdat")


def test_broadcast_clock_is_counted_from_the_start(tmp_path: Path, speech: dict[str, Path]) -> None:
    pts = [90000 * 5000 + 3600 * i for i in range(10)]
    source = make_video(tmp_path / "s.ts", pts, Fraction(1, 90000))
    picture = make_video(tmp_path / "p.mp4", pts, Fraction(1, 90000))
    start = probe(source).start
    assert start > 1000
    picture_start = frame_times(picture)[0]
    out = tmp_path / "o.mp4"
    mux(picture, speech["aac"], source, out)
    assert abs(frame_times(out)[0] - (picture_start - start)) < Fraction(1, 1000)


def test_failure_leaves_nothing(tmp_path: Path, clip: Path, speech: dict[str, Path]) -> None:
    (tmp_path / "old.mp4").write_bytes(b"precious")
    with pytest.raises(OptionInvalid, match="webm"):
        mux(clip, speech["aac"], clip, tmp_path / "new.webm")
    with pytest.raises(OptionInvalid, match="vorbis"):
        mux(clip, speech["aac"], clip, tmp_path / "new.mp4", audio_codec="vorbis")
    # a limit on file sizes makes ffmpeg fail half way through the output
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (8192, hard))
    try:
        with pytest.raises(MediaFailed, match="ffmpeg"):
            mux(clip, speech["flac"], clip, tmp_path / "old.mp4", overwrite=True)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert [path.name for path in tmp_path.iterdir()] == ["old.mp4"]
    assert (tmp_path / "old.mp4").read_bytes() == b"precious"


def test_choice_between_copy_and_encoding() -> None:
    mp4, mkv = CONTAINERS[".mp4"], CONTAINERS[".mkv"]
    assert choose_audio(mp4, "aac", 44100) == (True, "aac")
    assert choose_audio(mp4, "mp2", 44100) == (False, "aac")
    assert choose_audio(mp4, "mp3", 8000) == (False, "aac")
    assert choose_audio(mkv, "mp2", 44100) == (True, "mp2")
    assert choose_audio(mp4, "pcm_s16le", 44100, "flac") == (False, "flac")
    assert choose_audio(mp4, "flac", 44100, "flac") == (True, "flac")
    with pytest.raises(OptionInvalid):
        choose_audio(mp4, "pcm_s16le", 44100, "copy")


def test_output_is_checked_before_the_work(tmp_path: Path, clip: Path) -> None:
    assert check_output(tmp_path / "o.MP4", [clip]) == tmp_path / "o.MP4"
    with pytest.raises(OutputUnwritable, match="extension"):
        check_output(tmp_path / "o.xyz", [])
    with pytest.raises(OutputUnwritable, match="does not exist"):
        check_output(tmp_path / "no" / "o.mp4", [])
    exists = tmp_path / "e.mp4"
    exists.write_bytes(b"x")
    with pytest.raises(OutputUnwritable, match="exists"):
        check_output(exists, [clip])
    assert check_output(exists, [clip], overwrite=True) == exists
    with pytest.raises(OutputUnwritable, match="is the input"):
        check_output(clip, [clip], overwrite=True)
    soft, hard = tmp_path / "soft.mp4", tmp_path / "hard.mp4"
    soft.symlink_to(clip)
    os.link(exists, hard)
    with pytest.raises(OutputUnwritable, match="is the input"):
        check_output(soft, [clip], overwrite=True)
    with pytest.raises(OutputUnwritable, match="is the input"):
        check_output(hard, [exists], overwrite=True)
    (tmp_path / "dir.mp4").mkdir()
    with pytest.raises(OutputUnwritable, match="folder"):
        check_output(tmp_path / "dir.mp4", [], overwrite=True)


def test_disk_errors_are_told_apart(tmp_path: Path) -> None:
    with pytest.raises(DiskFull), disk_errors(tmp_path):
        raise OSError(errno.ENOSPC, "No space left on device")
    with pytest.raises(PermissionError), disk_errors(tmp_path):
        raise PermissionError(errno.EACCES, "no")
    with pytest.raises(MediaFailed), disk_errors(tmp_path):
        av.open(str(tmp_path / "none" / "x.mp4"))
    with pytest.raises(DiskFull):
        require_free_space(tmp_path, 1 << 62)
    require_free_space(tmp_path, 1)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs the always-full device")
def test_ffmpeg_errors_carry_its_words(tmp_path: Path, clip: Path) -> None:
    assert Path(ffmpeg_binary()).is_file()
    with pytest.raises(MediaFailed, match="none"):
        run_ffmpeg(["-i", str(tmp_path / "none.mp4"), str(tmp_path / "o.mp4")])
    full = tmp_path / "full.mkv"
    full.symlink_to("/dev/full")
    with pytest.raises(DiskFull):
        run_ffmpeg(["-i", str(clip), "-c", "copy", str(full)], path=full)
