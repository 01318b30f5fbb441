"""The demo's speaker moves as told, and only where told; its speech is what it says it is."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import pytest

from dubbing.demo import SIZE, demo_pose, demo_puppet, demo_speech, make_demo_video
from dubbing.errors import OutputUnwritable
from dubbing.face.detector import FaceDetector
from dubbing.face.landmarks import FaceMesher
from dubbing.puppet import PortraitPuppet, PuppetPose

UPPER_LIP, LOWER_LIP = 13, 14


@pytest.fixture(scope="module")
def puppet() -> PortraitPuppet:
    return demo_puppet()


def lip_gap(frame: np.ndarray) -> float:
    """Distance of the inner lips in pixels, as the mesh network sees it."""
    with FaceDetector() as detector:
        (box,) = detector.detect(frame)
    points = FaceMesher().landmarks(frame, box)
    assert points is not None
    return float(points[LOWER_LIP, 1] - points[UPPER_LIP, 1])


def test_mouth_opens_and_closes_as_told(puppet: PortraitPuppet) -> None:
    closed, rest, wide = (lip_gap(puppet.frame(PuppetPose(mouth=m))) for m in (-1.0, 0.0, 1.0))
    assert closed < 3
    assert closed + 5 < rest < wide - 5


def test_mouth_leaves_the_upper_face_alone(puppet: PortraitPuppet) -> None:
    rest, wide = puppet.frame(PuppetPose()), puppet.frame(PuppetPose(mouth=1.0))
    mouth_row = 222
    assert np.array_equal(rest[: mouth_row - 20], wide[: mouth_row - 20])
    assert not np.array_equal(rest[mouth_row:], wide[mouth_row:])


def test_head_turn_leaves_the_corners_alone(puppet: PortraitPuppet) -> None:
    rest, turned = puppet.frame(PuppetPose()), puppet.frame(PuppetPose(yaw=0.08, shift_y=2.0))
    for rows in (slice(0, 8), slice(-8, None)):
        for columns in (slice(0, 8), slice(-8, None)):
            assert np.array_equal(rest[rows, columns], turned[rows, columns])
    assert np.abs(rest.astype(int) - turned).mean() > 1


def test_pose_is_a_function_of_time() -> None:
    assert demo_pose(1.23) == demo_pose(1.23)
    mouths = [demo_pose(t / 25).mouth for t in range(200)]
    assert min(mouths) < -0.9
    assert max(mouths) > 0.9


def test_clip_has_the_frames_asked_for(tmp_path: Path, puppet: PortraitPuppet) -> None:
    path = tmp_path / "speaker.mp4"
    make_demo_video(path, seconds=0.48, fps=25)
    assert [p.name for p in tmp_path.iterdir()] == ["speaker.mp4"]
    with av.open(str(path)) as source:
        assert source.streams.video[0].codec_context.name == "h264"
        frames = list(source.decode(video=0))
    assert len(frames) == 12
    assert [frame.pts * frame.time_base * 25 for frame in frames] == list(range(12))
    first = frames[0].to_ndarray(format="rgb24").astype(float)
    assert first.shape == (SIZE, SIZE, 3)
    error = np.mean((first - puppet.frame(demo_pose(0.0))) ** 2)
    assert 10 * np.log10(255**2 / error) > 35


def test_clip_into_a_missing_folder_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(OutputUnwritable, match="nowhere"):
        make_demo_video(tmp_path / "nowhere" / "speaker.mp4", seconds=0.04)
    assert list(tmp_path.iterdir()) == []


def test_speech_is_shipped() -> None:
    with av.open(str(demo_speech())) as source:
        stream = source.streams.audio[0]
        assert (stream.codec_context.name, stream.rate, stream.channels) == ("flac", 16000, 1)
        samples = np.concatenate([f.to_ndarray().reshape(-1) for f in source.decode(audio=0)])
    assert 6 < len(samples) / 16000 < 8
    assert 0.5 < np.abs(samples / 32768).max() < 0.8
    assert demo_speech().stat().st_size < 400_000
