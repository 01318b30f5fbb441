from __future__ import annotations

import logging
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import av
import numpy as np
import pytest
from media_samples import TB_24000, TURN_90, VFR_PTS, make_video, picture

from dubbing.media.index import IndexBuilder
from dubbing.media.reader import VideoReader

LONG_GOP = {"crf": "10", "g": "8", "bf": "2", "sc_threshold": "0"}


def content(frame: av.VideoFrame) -> bytes:
    return frame.to_ndarray().tobytes()


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("reader") / "clip.mp4"
    return make_video(path, range(60), options=LONG_GOP)


@pytest.fixture(scope="module")
def forward(clip: Path) -> list[bytes]:
    return [content(frame.frame) for frame in VideoReader(clip)]


def test_pts_and_offsets_are_exact(tmp_path: Path) -> None:
    path = make_video(tmp_path / "vfr.mp4", VFR_PTS, TB_24000)
    with VideoReader(path) as reader:
        frames = list(reader)
        assert [frame.pts for frame in frames] == VFR_PTS
        assert [frame.index for frame in frames] == list(range(20))
        assert frames[3].time == Fraction(VFR_PTS[3], 24000)
        assert frames[3].offset == Fraction(VFR_PTS[3] - VFR_PTS[0], 24000)
        assert {frame.frame.time_base for frame in frames} == {TB_24000}
        assert list(reader.index.times) == [Fraction(p - VFR_PTS[0], 24000) for p in VFR_PTS]
        assert reader.index.duration > reader.index.times[-1]


def test_random_access_gives_exactly_the_frames_of_a_full_pass(
    clip: Path, forward: list[bytes]
) -> None:
    reader = VideoReader(clip)
    assert reader.index.count == 60 and len(reader.index.keys) == 8
    ranged = list(reader.read_range(29, 45))
    assert [frame.index for frame in ranged] == list(range(29, 45))
    assert [content(frame.frame) for frame in ranged] == forward[29:45]
    wanted = [0, 3, 3, 17, 40, 41, 59]
    picked = list(reader.read_indices(wanted))
    assert [frame.index for frame in picked] == wanted
    assert [content(frame.frame) for frame in picked] == [forward[i] for i in wanted]


@pytest.mark.parametrize("chunk", [1, 7, 32, 100])
def test_reverse_equals_the_forward_list_backwards(
    clip: Path, forward: list[bytes], chunk: int
) -> None:
    frames = list(VideoReader(clip).iter_reverse(5, 50, chunk=chunk))
    assert [frame.index for frame in frames] == list(range(49, 4, -1))
    assert [content(frame.frame) for frame in frames] == forward[5:50][::-1]


@pytest.mark.parametrize(
    ("name", "codec", "options"),
    [
        ("open.mkv", "libx264", LONG_GOP | {"x264-params": "open-gop=1"}),
        ("clip.mpg", "mpeg1video", {"g": "8", "bf": "2"}),
        ("clip.ts", "libx264", LONG_GOP),
        ("clip.avi", "mpeg4", {"g": "8", "bf": "2"}),
        ("clip.h264", "libx264", LONG_GOP),
    ],
)
def test_every_kind_of_container_is_read_at_random(
    tmp_path: Path, name: str, codec: str, options: dict[str, str]
) -> None:
    reader = VideoReader(make_video(tmp_path / name, range(40), codec=codec, options=options))
    whole = list(reader)
    assert len(whole) == 40
    pts = [frame.pts for frame in whole]
    assert all(b > a for a, b in pairwise(pts))
    shots = [content(frame.frame) for frame in whole]
    assert [content(f.frame) for f in reader.read_range(21, 35)] == shots[21:35]
    assert [content(f.frame) for f in reader.iter_reverse(11, 36, 9)] == shots[11:36][::-1]


def test_two_iterations_at_once_do_not_disturb_each_other(clip: Path, forward: list[bytes]) -> None:
    reader = VideoReader(clip)
    pairs = zip(reader, reader.read_range(10, 20), strict=False)
    for first, second in pairs:
        assert content(first.frame) == forward[first.index]
        assert content(second.frame) == forward[second.index]


def test_rgb_stands_upright(tmp_path: Path) -> None:
    plain = make_video(tmp_path / "plain.mp4", range(3))
    turned = make_video(tmp_path / "turned.mp4", range(3), matrix=TURN_90)
    stored = next(iter(VideoReader(plain))).rgb()
    frame = next(iter(VideoReader(turned)))
    assert frame.size == (48, 64)
    np.testing.assert_array_equal(frame.rgb(), np.rot90(stored, k=-1))
    assert frame.rgb((24, 32)).shape == (32, 24, 3)
    region = frame.rgb_region(5, 8, 20, 30).astype(int)
    assert region.shape == (30, 20, 3)
    assert np.abs(region - frame.rgb()[8:38, 5:25]).mean() < 3


def test_rgb_has_the_colours_that_were_encoded(tmp_path: Path) -> None:
    clip = make_video(tmp_path / "c.mp4", range(2), options={"crf": "1"})
    decoded = next(iter(VideoReader(clip))).rgb().astype(int)
    assert np.abs(decoded - picture(0, "rgb24").to_ndarray()).mean() < 4


def test_truncated_file_keeps_what_decodes(tmp_path: Path) -> None:
    path = make_video(tmp_path / "whole.mkv", range(40), options={"crf": "1", "g": "8"})
    cut = tmp_path / "cut.mkv"
    cut.write_bytes(path.read_bytes()[: path.stat().st_size * 6 // 10])
    whole = [content(frame.frame) for frame in VideoReader(path)]
    frames = list(VideoReader(cut))
    assert 10 < len(frames) < 40
    assert [content(frame.frame) for frame in frames[:-1]] == whole[: len(frames) - 1]


def test_damaged_packet_is_left_out_with_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "bad.mkv"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for index in range(10):
            for packet in stream.encode(picture(index)):
                if index == 4:
                    broken = av.Packet(b"\x00\x01\x02")
                    broken.pts, broken.dts = packet.pts, packet.dts
                    broken.time_base, broken.stream = packet.time_base, stream
                    packet = broken
                container.mux(packet)
    with caplog.at_level(logging.WARNING, logger="dubbing.media"):
        reader = VideoReader(path)
        frames = list(reader)
    assert [frame.pts for frame in frames] == [0, 40, 80, 120, 200, 240, 280, 320, 360]
    assert "1 damaged packet" in caplog.text
    assert [frame.index for frame in reader.iter_reverse(0, 9)] == list(range(8, -1, -1))


def test_missing_and_backward_time_stamps_are_mended() -> None:
    builder = IndexBuilder(Fraction(1, 1000), Fraction(25))

    def add(pts: int | None, duration: int = 40) -> int:
        frame = av.VideoFrame(16, 16, "yuv420p")
        frame.pts, frame.duration = pts, duration
        return builder.add(frame)

    assert [add(100), add(140), add(None)] == [100, 140, 180]
    assert add(180) == 181  # a repeat: one tick later, so that the next is right again
    assert add(220) == 220
    assert [add(9000), add(0), add(40)] == [9000, 9040, 9080]  # joined clips: goes on
    index = builder.build()
    assert not index.seekable
    assert index.last_duration == 40 and index.duration == Fraction(9020, 1000)


def test_ranges_outside_the_clip_are_refused(clip: Path) -> None:
    reader = VideoReader(clip)
    with pytest.raises(IndexError):
        list(reader.read_range(0, 61))
    with pytest.raises(ValueError, match="sorted"):
        list(reader.read_indices([3, 2]))
