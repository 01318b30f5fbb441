from __future__ import annotations

import dataclasses
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from media_samples import TB_24000, TURN_90, VFR_PTS, make_video, noise_frame, picture, planes_of

from dubbing.errors import DiskFull, MediaFailed, OptionInvalid
from dubbing.media.encoders import choose_pix_fmt
from dubbing.media.probe import VideoStreamInfo, require_video
from dubbing.media.reader import VideoReader
from dubbing.media.writer import VideoWriter


@pytest.fixture(scope="module")
def like(tmp_path_factory: pytest.TempPathFactory) -> VideoStreamInfo:
    path = tmp_path_factory.mktemp("writer") / "like.mp4"
    make_video(path, VFR_PTS, TB_24000, matrix=TURN_90, tags=(1, 1, 1, 1))
    video = require_video(path).video
    assert video is not None
    return dataclasses.replace(video, sample_aspect_ratio=Fraction(4, 3))


def write(path: Path, like: VideoStreamInfo, pts: list[int], codec: str, fmt: str) -> VideoReader:
    with VideoWriter(path, like, codec, preset="veryfast") as writer:
        for index, value in enumerate(pts):
            writer.write(picture(index, fmt), value)
    return VideoReader(path)


@pytest.mark.parametrize("codec", ["libx264", "libx265", "ffv1", "libvpx-vp9"])
@pytest.mark.parametrize(
    ("time_base", "pts"),
    [
        (TB_24000, VFR_PTS),
        (Fraction(1, 1000), [7, 40, 90, 91, 130]),
        (Fraction(1001, 24000), [3, 4, 5, 8, 9]),
        (Fraction(1, 90000), [0, 1, 3600, 7201]),
    ],
)
def test_times_are_kept_to_the_tick(
    tmp_path: Path, like: VideoStreamInfo, codec: str, time_base: Fraction, pts: list[int]
) -> None:
    like = dataclasses.replace(like, time_base=time_base)
    reader = write(tmp_path / "out.part", like, pts, codec, "yuv420p")
    assert [frame.time for frame in reader] == [value * time_base for value in pts]
    video = reader.video
    assert (video.rotation, video.display_matrix) == (90, TURN_90)
    assert video.sample_aspect_ratio == Fraction(4, 3)
    assert (video.color_range, video.color_space) == (1, 1)
    assert (video.color_primaries, video.color_trc) == (1, 1)


@pytest.mark.parametrize("fmt", ["yuv420p", "yuv422p10le", "yuvj420p"])
def test_ffv1_gives_back_every_sample(tmp_path: Path, like: VideoStreamInfo, fmt: str) -> None:
    source = [noise_frame(fmt, seed=seed) for seed in range(3)]
    like = dataclasses.replace(like, pix_fmt=fmt, color_range=2 if "j" in fmt else 1)
    with VideoWriter(tmp_path / "x", like, "ffv1") as writer:
        for index, frame in enumerate(source):
            writer.write(frame, index * 10)
            assert frame.pts is None  # the caller's frame is as it was
    for given, back in zip(source, VideoReader(tmp_path / "x"), strict=True):
        for a, b in zip(planes_of(given), planes_of(back.frame), strict=True):
            np.testing.assert_array_equal(a, b)


def test_key_frames_of_the_source_do_not_force_key_frames(
    tmp_path: Path, like: VideoStreamInfo
) -> None:
    source = make_video(tmp_path / "intra.mp4", range(12), options={"g": "1", "crf": "10"})
    like = dataclasses.replace(like, time_base=VideoReader(source).time_base)
    with VideoWriter(tmp_path / "x", like) as writer:
        for frame in VideoReader(source):
            writer.write(frame.frame, frame.pts)
    assert list(VideoReader(tmp_path / "x").index.keys) == [0]


def test_negative_start_is_moved_to_zero(tmp_path: Path, like: VideoStreamInfo) -> None:
    reader = write(tmp_path / "x", like, [-500, 0, 700], "libx264", "yuv420p")
    assert [frame.pts for frame in reader] == [0, 500, 1200]


def test_pixel_format_is_the_source_s_or_the_nearest() -> None:
    assert choose_pix_fmt("yuv420p10le", "libx264", 64, 48) == "yuv420p10le"
    assert choose_pix_fmt("nv12", "libx264", 64, 48) == "nv12"
    assert choose_pix_fmt("p010le", "libx264", 64, 48) == "yuv420p10le"
    assert choose_pix_fmt("yuva420p", "libx264", 64, 48) == "yuv420p"
    assert choose_pix_fmt("yuv422p12le", "libx264", 64, 48) == "yuv422p10le"
    assert choose_pix_fmt("rgb24", "libx264", 64, 48) == "yuv444p"
    assert choose_pix_fmt("yuv411p", "libx264", 64, 48) == "yuv422p"
    assert choose_pix_fmt("yuv420p", "libx264", 63, 47) == "yuv444p"
    assert choose_pix_fmt("yuv420p", "ffv1", 63, 47) == "yuv420p"


def test_rgb_source_is_tagged_as_what_it_becomes(tmp_path: Path, like: VideoStreamInfo) -> None:
    like = dataclasses.replace(
        like, pix_fmt="rgb24", color_space=0, color_range=2, display_matrix=None
    )
    with VideoWriter(tmp_path / "x", like, crf=1) as writer:
        writer.write(picture(0, "rgb24"), 0)
    back = next(iter(VideoReader(tmp_path / "x")))
    assert (back.frame.format.name, int(back.frame.colorspace)) == ("yuv444p", 6)
    assert np.abs(back.rgb().astype(int) - picture(0, "rgb24").to_ndarray()).max() <= 6


def test_wrong_options_are_named(tmp_path: Path, like: VideoStreamInfo) -> None:
    with pytest.raises(OptionInvalid, match="libx264"):
        VideoWriter(tmp_path / "x", like, "nonsense")
    with pytest.raises(OptionInvalid, match="there are"):
        VideoWriter(tmp_path / "x", like, "aac")
    with pytest.raises(OptionInvalid, match="51"):
        VideoWriter(tmp_path / "x", like, crf=70)
    with (
        pytest.raises(OptionInvalid, match="does not start"),
        VideoWriter(tmp_path / "x", like, preset="no-such-preset") as writer,
    ):
        writer.write(picture(0), 0)


def test_misuse_is_refused(tmp_path: Path, like: VideoStreamInfo) -> None:
    with VideoWriter(tmp_path / "x", like) as writer:
        writer.write(picture(0), 10)
        with pytest.raises(ValueError, match="follow"):
            writer.write(picture(1), 10)
        with pytest.raises(ValueError, match="64x48"):
            writer.write(picture(1, width=32), 11)
    with pytest.raises(MediaFailed, match="no frame"), VideoWriter(tmp_path / "y", like):
        pass


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs the always-full device")
def test_full_disk_has_its_own_error(tmp_path: Path, like: VideoStreamInfo) -> None:
    path = tmp_path / "full"
    path.symlink_to("/dev/full")
    with pytest.raises(DiskFull), VideoWriter(path, like, "ffv1") as writer:
        for index in range(200):
            writer.write(noise_frame("yuv420p", seed=index), index)
