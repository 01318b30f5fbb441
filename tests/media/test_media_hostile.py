"""Files that name other files, and headers that promise too much."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import pytest
from media_samples import make_audio, make_video, noise_frame, tone

from dubbing.errors import InputNotFound, InputTooLarge, MediaFailed, NoAudioStream, NotAVideo
from dubbing.media.audio import audio_duration, load_speech
from dubbing.media.ffmpeg import run_ffmpeg
from dubbing.media.index import IndexBuilder
from dubbing.media.limits import Limits
from dubbing.media.mux import mux
from dubbing.media.opening import existing_file
from dubbing.media.probe import probe, require_audio, require_video
from dubbing.media.reader import VideoReader
from dubbing.options import DubOptions

PLAYLISTS = {
    "list.m3u8": "#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:1,\n{name}\n#EXT-X-ENDLIST\n",
    "list.mp4": "#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:1,\n{name}\n#EXT-X-ENDLIST\n",
    "concat.mp4": "ffconcat version 1.0\nfile {name}\n",
    "concat.txt": "ffconcat version 1.0\nfile {name}\n",
    "radio.sdp": "v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\ns=x\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\n",
    "dash.mpd": '<?xml version="1.0"?><MPD><Period><BaseURL>{name}</BaseURL></Period></MPD>',
}


@pytest.mark.parametrize("name", PLAYLISTS)
def test_files_that_name_other_files_are_refused(tmp_path: Path, name: str) -> None:
    make_video(tmp_path / "secret.mp4")
    path = tmp_path / name
    path.write_text(PLAYLISTS[name].format(name="secret.mp4"), newline="")
    for refuse, kind in ((probe, MediaFailed), (require_video, NotAVideo)):
        with pytest.raises(kind):
            refuse(path)
    with pytest.raises(NoAudioStream):
        require_audio(path)


def test_the_message_says_what_a_playlist_is(tmp_path: Path) -> None:
    path = tmp_path / "list.m3u8"
    path.write_text(PLAYLISTS["list.m3u8"].format(name="a.ts"))
    with pytest.raises(NotAVideo, match="playlist names other files"):
        require_video(path)


def test_a_picture_sequence_is_not_followed(tmp_path: Path) -> None:
    for number in range(3):
        make_video(tmp_path / f"shot{number}.png", [0], codec="png", fmt="rgb24")
    pattern = tmp_path / "shot%d.png"
    with pytest.raises(InputNotFound):
        probe(pattern)
    pattern.write_bytes((tmp_path / "shot0.png").read_bytes())
    with pytest.raises(MediaFailed):  # its name alone would make ffmpeg read the others
        probe(pattern)


def test_muxing_opens_no_playlist_either(tmp_path: Path) -> None:
    clip = make_video(tmp_path / "clip.mp4")
    sound = make_audio(tmp_path / "s.wav", "pcm_s16le", tone(0.5, 16000), 16000)
    source = make_video(tmp_path / "source.mp4")
    result = tmp_path / "o.mp4"
    mux(clip, sound, source, result)
    playlist = tmp_path / "list.m3u8"
    playlist.write_text(PLAYLISTS["list.m3u8"].format(name="clip.mp4"))
    args = ["-protocol_whitelist", "file", "-format_whitelist", "mov", "-i", str(playlist)]
    with pytest.raises(MediaFailed):
        run_ffmpeg([*args, "-c", "copy", str(tmp_path / "x.mp4")])


@pytest.mark.parametrize(
    "url", ["http://host/film.mp4", "rtmp://host/x", "https://a/b", "concat:a|b", "file:///etc/a"]
)
def test_urls_are_no_files(url: str) -> None:
    with pytest.raises(InputNotFound) as caught:
        existing_file(url)
    assert ("only local files" in str(caught.value)) == (not url.startswith("concat"))


def test_names_that_are_no_names() -> None:
    with pytest.raises(InputNotFound):
        existing_file("nul\0l.mp4")
    with pytest.raises(InputNotFound):
        existing_file("x" * 5000)


def test_pictures_over_the_limit_are_refused_before_decoding(tmp_path: Path) -> None:
    clip = make_video(tmp_path / "v.mp4")
    assert require_video(clip, Limits(pixels=64 * 48)).video is not None
    with pytest.raises(InputTooLarge, match="64 x 48"):
        require_video(clip, Limits(pixels=64 * 48 - 1))
    with pytest.raises(InputTooLarge):
        VideoReader(clip, limits=Limits(pixels=100))
    assert VideoReader(clip, limits=None).index.count == 24


def test_a_picture_that_grows_inside_the_clip_is_left_out(tmp_path: Path) -> None:
    small = make_video(tmp_path / "a.ts", range(5), Fraction(1, 25))
    large = make_video(tmp_path / "b.ts", range(5, 10), Fraction(1, 25), size=(640, 480))
    joined = tmp_path / "j.ts"
    joined.write_bytes(small.read_bytes() + large.read_bytes())
    frames = list(VideoReader(joined, limits=Limits(pixels=64 * 48)))
    assert len(frames) <= 5
    frames = list(VideoReader(joined))
    assert {(f.frame.width, f.frame.height) for f in frames} == {(64, 48)}
    assert len(frames) == 10


def test_length_over_the_limit_is_refused(tmp_path: Path) -> None:
    clip = make_video(tmp_path / "v.mp4")
    sound = make_audio(tmp_path / "s.wav", "pcm_s16le", tone(1.5, 16000), 16000)
    for path, look in ((clip, require_video), (sound, require_audio), (sound, load_speech)):
        look(path, Limits(seconds=1.6))
        with pytest.raises(InputTooLarge, match="limit of 1 s"):
            look(path, Limits(seconds=0.9))
    with pytest.raises(InputTooLarge):
        audio_duration(sound, Limits(seconds=1.4))
    raw = make_video(tmp_path / "v.h264", range(40))  # no header says how long it is
    with pytest.raises(InputTooLarge):
        list(VideoReader(raw, limits=Limits(seconds=0.9)))


def test_options_carry_the_limits() -> None:
    assert DubOptions().limits == Limits()
    assert DubOptions(max_pixels=100, max_duration=7).limits == Limits(100, 7)


def test_stamps_that_leave_no_time_are_spaced_evenly() -> None:
    builder = IndexBuilder(Fraction(1, 90000), Fraction(25))
    for _ in range(30):
        frame = noise_frame("gray", 16, 16)
        frame.pts = 7
        builder.add(frame)
    index = builder.build()
    assert list(index.pts) == [7 + 3600 * i for i in range(30)]
    assert index.last_duration == 3600 and not index.seekable
