"""`dub train prepare`: what is kept of a clip, and what is said about it."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from puppet_footage import CLIPS, FRAMES, RATE, SIDE, sound

from dubbing.errors import InputNotFound, MediaFailed
from dubbing.media.reader import VideoReader
from dubbing.render.crop import cut_crop
from dubbing.training.clips import load_landmarks, load_speech_samples, prepared_names
from dubbing.training.options import PrepareOptions
from dubbing.training.prepare import CROP_SIZE, clip_names, run
from dubbing.training.render_clips import CropFile

NAMES = ["one__take0", "one__take1", "one__take2", "two__take0"]


def test_every_talking_clip_is_kept_under_its_own_name(prepared: Path) -> None:
    assert prepared_names(prepared) == NAMES
    report = json.loads((prepared / "prepare.json").read_text())
    assert report["kept"] == report["with_crops"] == CLIPS
    assert report["dropped"] == {"no face": 1}
    assert {c["file"]: c["dropped"] for c in report["clips"]}["wall.mp4"] == "no face"
    assert not list(prepared.glob("wall*.npz"))
    assert not list(prepared.glob(".*"))  # nothing half written


def test_tracks_times_and_sound_are_those_of_the_clip(prepared: Path) -> None:
    for clip, name in enumerate(NAMES):
        with np.load(prepared / f"{name}.npz") as file:
            assert file["frames"].tolist() == list(range(FRAMES))
            assert np.allclose(file["times"], np.arange(FRAMES) / 25)
            assert file["boxes"].shape == (FRAMES, 3)
            points = file["landmarks"]
        assert points.shape == (FRAMES, 478, 3)
        assert points[..., :2].min() > 0
        assert points[..., :2].max() < SIDE
        assert load_landmarks(prepared, name).shape == (FRAMES, 478, 3)
        samples = load_speech_samples(prepared, name).numpy()
        assert len(samples) == int(FRAMES / 25 * RATE)
        assert np.abs(samples * 32767 - sound(clip)[0]).max() <= 1


def test_crops_are_the_boxes_of_the_frames(prepared: Path, footage: Path) -> None:
    crops = CropFile(prepared / "two__take0.crops.npz")
    assert len(crops) == FRAMES
    with np.load(prepared / "two__take0.npz") as file:
        boxes = file["boxes"]
    with VideoReader(footage / "two" / "take0.mkv") as reader:
        for frame in reader:
            if frame.index not in (0, 11, FRAMES - 1):
                continue
            truth = cut_crop(frame.rgb(), boxes[frame.index], CROP_SIZE)
            seen = crops[frame.index]
            assert seen.shape == (CROP_SIZE, CROP_SIZE, 3)
            assert cv2.PSNR(seen, truth) > 36  # JPEG; another frame or colour order is far off


def test_a_damaged_crop_says_where(prepared: Path, tmp_path: Path) -> None:
    with np.load(prepared / "one__take0.crops.npz") as file:
        data, ends = file["data"].copy(), file["ends"]
    data[ends[3] : ends[4]] = 0
    np.savez(tmp_path / "bad.crops.npz", data=data, ends=ends)
    crops = CropFile(tmp_path / "bad.crops.npz")
    assert crops[3].shape == (CROP_SIZE, CROP_SIZE, 3)
    with pytest.raises(MediaFailed, match="crop 4") as caught:
        crops[4]
    assert "bad.crops.npz" in str(caught.value)


def test_finished_clips_are_not_done_again(prepared: Path, footage: Path) -> None:
    stamps = {p: p.stat().st_mtime_ns for p in prepared.glob("*.npz")}
    clips = run(PrepareOptions(data=footage, output=prepared, workers=1, care=False))
    assert len(clips) == CLIPS + 1
    assert {p: p.stat().st_mtime_ns for p in prepared.glob("*.npz")} == stamps


def test_names_stay_apart() -> None:
    root = Path("data")
    videos = [root / p for p in ("a.mp4", "a.mkv", "x/a.mp4", "y/a.mp4")]
    assert clip_names(videos, root) == ["a.mp4", "a.mkv", "x__a", "y__a"]


def test_a_folder_without_videos_says_so(tmp_path: Path) -> None:
    with pytest.raises(InputNotFound, match="no videos"):
        run(PrepareOptions(data=tmp_path, output=tmp_path / "out"))
    assert not (tmp_path / "out").exists()
    with pytest.raises(InputNotFound, match="no prepared clips"):
        prepared_names(tmp_path)
