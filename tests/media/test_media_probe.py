from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from media_samples import TB_24000, TURN_90, VFR_PTS, make_audio, make_video, picture, tone

from dubbing.errors import InputNotFound, MediaFailed, NoAudioStream, NotAVideo
from dubbing.media.probe import probe, require_audio, require_video
from dubbing.media.rotation import (
    rotate_region,
    rotation_of,
    stored_to_upright_rect,
    upright_size,
    upright_to_stored_rect,
)


def test_probe_tells_time_size_rotation_and_colour(tmp_path: Path) -> None:
    clip = make_video(
        tmp_path / "clip.mp4", VFR_PTS, TB_24000, matrix=TURN_90, tags=(2, 1, 1, 1), fmt="yuv420p"
    )
    video = require_video(clip).video
    assert video is not None
    assert (video.codec, video.width, video.height) == ("h264", 64, 48)
    assert video.display_size == (48, 64)
    assert video.rotation == 90 and video.display_matrix == TURN_90
    assert video.time_base == TB_24000 and video.start_pts == VFR_PTS[0]
    assert video.start_time == Fraction(VFR_PTS[0], 24000)
    assert video.bit_depth == 8
    assert (video.color_range, video.color_space) == (2, 1)
    assert (video.color_primaries, video.color_trc) == (1, 1)


def test_missing_file_folder_and_garbage_have_their_own_errors(tmp_path: Path) -> None:
    with pytest.raises(InputNotFound):
        probe(tmp_path / "none.mp4")
    with pytest.raises(InputNotFound):
        probe(tmp_path)
    text = tmp_path / "text.mp4"
    text.write_text("not a film " * 100)
    with pytest.raises(MediaFailed):
        probe(text)
    with pytest.raises(NotAVideo):
        require_video(text)
    with pytest.raises(NoAudioStream):
        require_audio(text)


def test_sound_without_picture_and_picture_without_sound(tmp_path: Path) -> None:
    sound = make_audio(tmp_path / "a.wav", "pcm_s16le", tone(0.3, 16000), 16000)
    clip = make_video(tmp_path / "v.mp4")
    with pytest.raises(NotAVideo):
        require_video(sound)
    with pytest.raises(NoAudioStream):
        require_audio(clip)
    stream = require_audio(sound).audio[0]
    assert (stream.codec, stream.sample_rate, stream.channels) == ("pcm_s16le", 16000, 1)


def test_cover_art_is_not_a_video(tmp_path: Path) -> None:
    path = tmp_path / "song.mp4"
    with av.open(str(path), "w") as container:
        sound = container.add_stream("aac", rate=16000)
        cover = container.add_stream("mjpeg", rate=1)
        cover.width, cover.height, cover.pix_fmt = 64, 48, "yuvj420p"
        cover.disposition = av.stream.Disposition.attached_pic
        container.mux(cover.encode(picture(0, "yuvj420p")))
        container.mux(cover.encode(None))
        frame = av.AudioFrame.from_ndarray(
            np.zeros((1, 16000), np.float32), format="fltp", layout="mono"
        )
        frame.sample_rate = 16000
        resampler = av.AudioResampler("fltp", "mono", 16000, frame_size=1024)
        for part in [*resampler.resample(frame), *resampler.resample(None)]:
            container.mux(sound.encode(part))
        container.mux(sound.encode(None))
    info = probe(path)
    assert info.video is None
    assert [s.type for s in info.other_streams] == ["cover"]
    with pytest.raises(NotAVideo):
        require_video(path)


@pytest.mark.parametrize("rotation", [0, 90, 180, 270])
def test_upright_rectangles_point_at_the_same_pixels(rotation: int) -> None:
    stored = np.arange(30 * 50).reshape(30, 50)
    upright = rotate_region(stored, rotation)
    assert upright.shape[::-1] == upright_size(50, 30, rotation)
    rect = (4, 7, 9, 11)
    x, y, w, h = upright_to_stored_rect(*rect, rotation, 50, 30)
    region = rotate_region(stored[y : y + h, x : x + w], rotation)
    np.testing.assert_array_equal(region, upright[7:18, 4:13])
    assert stored_to_upright_rect(x, y, w, h, rotation, 50, 30) == rect


def test_rotation_ignores_a_mirror() -> None:
    one = 65536
    assert rotation_of(None) == 0
    assert rotation_of((one, 0, 0, 0, one, 0, 0, 0, 1 << 30)) == 0
    assert rotation_of((-one, 0, 0, 0, -one, 0, 0, 0, 1 << 30)) == 180
    assert rotation_of((0, -one, 0, one, 0, 0, 0, 0, 1 << 30)) == 270
    assert rotation_of((-one, 0, 0, 0, one, 0, 0, 0, 1 << 30)) == 0  # mirrored upright
