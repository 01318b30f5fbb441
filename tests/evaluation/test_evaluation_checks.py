"""The checks of a dub pass what is right and fail each wrong for its own reason."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from evaluation_samples import RATE, noise, write_clip

from dubbing.demo import demo_portrait
from dubbing.errors import InputNotFound
from dubbing.evaluation.checks import (
    MAX_PSNR_DB,
    DubChecks,
    SquaredError,
    check_dub,
    rows_above_nose,
)
from dubbing.evaluation.sound import full_scale

FRAMES = 10
SECONDS = FRAMES / 25
SPEECH = noise(0.6)
SHOWN = round(SECONDS * RATE)
NOSE_ROW = 100  # of the 256-px portrait: between the eyes and the base of the nose


@pytest.fixture(scope="module")
def pictures() -> list[np.ndarray]:
    portrait = demo_portrait()[::2, ::2]
    return [np.roll(portrait, k % 3, axis=1) for k in range(FRAMES)]


@pytest.fixture(scope="module")
def given(
    pictures: list[np.ndarray], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Path]:
    """(source video, speech)."""
    folder = tmp_path_factory.mktemp("given")
    return (
        write_clip(folder / "source.mkv", pictures),
        write_clip(folder / "speech.mkv", pictures[:1], SPEECH),
    )


def failed(checks: DubChecks) -> set[str]:
    return {name for name, ok in checks.verdicts().items() if not ok}


def test_a_faultless_dub_meets_every_check(
    pictures: list[np.ndarray], given: tuple[Path, Path], tmp_path: Path
) -> None:
    mouths = [p.copy() for p in pictures]
    for p in mouths:
        p[150:] = 255 - p[150:]  # below the nose anything may change
        p[150:] = p[150:] // 8 + np.uint8(100)
    output = write_clip(tmp_path / "out.mkv", pictures, SPEECH[:SHOWN])
    checks = check_dub(*given, output)
    assert checks.ok
    assert checks.pictures.upper.psnr == MAX_PSNR_DB
    assert checks.pictures.faces == checks.pictures.kept == FRAMES
    changed = write_clip(tmp_path / "changed.mkv", mouths, SPEECH[:SHOWN])
    assert check_dub(*given, changed).pictures.upper.psnr == MAX_PSNR_DB


def test_pixels_that_change_above_the_nose_fail(
    pictures: list[np.ndarray], given: tuple[Path, Path], tmp_path: Path
) -> None:
    spoilt = [p.copy() for p in pictures]
    for p in spoilt:
        p[40:60, 100:140] //= 2
    checks = check_dub(*given, write_clip(tmp_path / "out.mkv", spoilt, SPEECH[:SHOWN]))
    assert failed(checks) == {"psnr"}
    assert 20 < checks.pictures.upper.psnr < 42


def test_a_face_that_is_lost_in_one_frame_of_ten_fails(
    pictures: list[np.ndarray], given: tuple[Path, Path], tmp_path: Path
) -> None:
    lost = [p.copy() for p in pictures]
    lost[4][:] = 128
    checks = check_dub(*given, write_clip(tmp_path / "out.mkv", lost, SPEECH[:SHOWN]))
    assert failed(checks) == {"face", "psnr"}
    assert checks.pictures.face_share == pytest.approx(0.9)


def test_missing_frames_and_another_size_fail(
    pictures: list[np.ndarray], given: tuple[Path, Path], tmp_path: Path
) -> None:
    short = write_clip(tmp_path / "short.mkv", pictures[:-1], SPEECH[:SHOWN])
    assert "frames" in failed(check_dub(*given, short))
    small = [p[:, :-16] for p in pictures]
    sized = write_clip(tmp_path / "sized.mkv", small, SPEECH[:SHOWN])
    assert {"size", "psnr"} <= failed(check_dub(*given, sized))


def test_times_may_be_off_by_matroskas_millisecond_and_no_more(
    pictures: list[np.ndarray], given: tuple[Path, Path], tmp_path: Path
) -> None:
    for away, verdict in ((1, True), (3, False)):
        pts = [40 * k + (away if k == 5 else 0) for k in range(FRAMES)]
        output = write_clip(tmp_path / f"{away}.mkv", pictures, SPEECH[:SHOWN], pts=pts)
        checks = check_dub(*given, output)
        assert checks.verdicts()["times"] is verdict
        assert float(checks.pictures.time_error) == pytest.approx(away / 1000)


def test_mp4_times_have_to_be_exact(
    pictures: list[np.ndarray], given: tuple[Path, Path], tmp_path: Path
) -> None:
    for away, verdict in ((0, True), (1, False)):
        pts = [512 * k + (away if k == 5 else 0) for k in range(FRAMES)]
        output = write_clip(
            tmp_path / f"{away}.mp4", pictures, SPEECH[:SHOWN], pts=pts, clock=12800,
            codec="libx264", fmt="yuv444p", sound="flac",
        )  # fmt: skip
        assert check_dub(*given, output).verdicts()["times"] is verdict


def sound_verdicts(
    pictures: list[np.ndarray], given: tuple[Path, Path], path: Path, samples: np.ndarray
) -> set[str]:
    checks = check_dub(*given, write_clip(path, pictures, samples))
    return failed(checks) & {"samples", "length", "start"}


def test_one_changed_sample_fails(
    pictures: list[np.ndarray], given: tuple[Path, Path], tmp_path: Path
) -> None:
    changed = SPEECH[:SHOWN].copy()
    changed[1234] += 1
    output = write_clip(tmp_path / "out.mkv", pictures, changed)
    checks = check_dub(*given, output)
    assert failed(checks) == {"samples"}
    assert (checks.sound.unequal, checks.sound.first_unequal) == (1, 1234)


def test_a_shift_by_one_sample_fails(
    pictures: list[np.ndarray], given: tuple[Path, Path], tmp_path: Path
) -> None:
    late = np.concatenate([np.zeros(1, np.int16), SPEECH])[:SHOWN]
    assert sound_verdicts(pictures, given, tmp_path / "out.mkv", late) == {"samples"}


def test_sound_ends_with_the_picture_within_one_packet(
    pictures: list[np.ndarray], given: tuple[Path, Path], tmp_path: Path
) -> None:
    for number, (samples, wrong) in enumerate(
        (
            (SHOWN + 1000, set()),
            (SHOWN - 1000, set()),
            (SHOWN - 3000, {"length"}),
            (len(SPEECH), {"length"}),
        )
    ):
        found = sound_verdicts(pictures, given, tmp_path / f"{number}.mkv", SPEECH[:samples])
        assert found == wrong, samples


def test_a_speech_shorter_than_the_picture_is_expected_whole(
    pictures: list[np.ndarray], given: tuple[Path, Path], tmp_path: Path
) -> None:
    speech = write_clip(tmp_path / "speech.mkv", pictures[:1], SPEECH[:4000])
    output = write_clip(tmp_path / "out.mkv", pictures, SPEECH[:4000])
    checks = check_dub(given[0], speech, output)
    assert checks.ok
    assert checks.sound.expected == 4000
    padded = np.concatenate([SPEECH[:4000], np.zeros(500, np.int16)])
    longer = write_clip(tmp_path / "longer.mkv", pictures, padded)
    assert failed(check_dub(given[0], speech, longer)) == {"length"}


def test_a_missing_output_is_an_error(given: tuple[Path, Path], tmp_path: Path) -> None:
    with pytest.raises(InputNotFound):
        check_dub(*given, tmp_path / "nothing.mkv")


def test_psnr_is_pooled_over_frames() -> None:
    error = SquaredError()
    flat = np.full((4, 4, 3), 100, np.uint8)
    error.add(flat, flat)
    assert error.psnr == MAX_PSNR_DB
    error.add(flat, flat + np.uint8(10))
    assert error.psnr == pytest.approx(10 * np.log10(255**2 / 50))


def test_rows_end_above_the_nose() -> None:
    landmarks = np.zeros((478, 3), np.float32)
    landmarks[2, 1], landmarks[152, 1] = 100, 140
    assert rows_above_nose(landmarks, 200) == 98
    assert rows_above_nose(landmarks, 50) == 50
    landmarks[2, 1], landmarks[152, 1] = -30, 10
    assert rows_above_nose(landmarks, 200) == 0


def test_full_scale_is_one_value_in_every_sample_type() -> None:
    wide = full_scale(np.array([[-32768, 16384]], np.int16))
    np.testing.assert_array_equal(wide, [[-1, 0.5]])
    np.testing.assert_array_equal(wide, full_scale(np.array([[-(2**31), 2**30]], np.int32)))
    np.testing.assert_array_equal(wide, full_scale(np.array([[0, 192]], np.uint8)))
    np.testing.assert_array_equal(wide, full_scale(np.array([[-1, 0.5]], np.float32)))
