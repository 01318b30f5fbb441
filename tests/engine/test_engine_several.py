"""Several speakers in one pass, each with a speech of their own."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from engine_samples import write_clip, write_speech
from numpy.typing import NDArray

from dubbing.cli import main
from dubbing.demo import demo_pose
from dubbing.dubber import Dubber
from dubbing.errors import OptionInvalid
from dubbing.evaluation.cases.people import other_person, small_puppet
from dubbing.media.audio import decode_audio
from dubbing.media.mixing import CEILING
from dubbing.media.planes import plane_view
from dubbing.media.reader import VideoReader
from dubbing.options import DubOptions
from dubbing.report import DubReport

FRAMES, SIDE = 14, 240
LEFT, RIGHT = "120,110@0", "360,110@0.2"
LOSSLESS = DubOptions(codec="ffv1", length="video", segment_seconds=0.25)


@pytest.fixture(scope="module")
def pair(folder: Path) -> Path:
    """Two people side by side, [240, 480]."""
    puppet = small_puppet()
    own = [puppet.frame(demo_pose(0.1 * k)) for k in range(FRAMES)]
    still = other_person(own[0])
    shown = [np.hstack([p, np.roll(still, k % 3, 1)]) for k, p in enumerate(own)]
    return write_clip(folder / "pair.mp4", shown, [24 * k for k in range(FRAMES)])


@pytest.fixture(scope="module")
def speeches(folder: Path) -> tuple[Path, Path]:
    return (
        write_speech(folder / "first.flac", 0.6, start=0.3),
        write_speech(folder / "second.flac", 0.4, start=3.3),
    )


@pytest.fixture(scope="module")
def both(
    dubber: Dubber, pair: Path, speeches: tuple[Path, Path], folder: Path
) -> tuple[Path, DubReport]:
    output = folder / "both.mkv"
    said = {LEFT: speeches[0], RIGHT: speeches[1]}
    return output, dubber.dub_speakers(pair, said, output, LOSSLESS)


def luma(path: Path) -> list[NDArray[np.uint8]]:
    with VideoReader(path) as reader:
        return [plane_view(frame.frame, 0).copy() for frame in reader]


def test_each_says_their_own(
    both: tuple[Path, DubReport], dubber: Dubber, pair: Path, speeches: tuple[Path, Path],
    tmp_path: Path,
) -> None:  # fmt: skip
    """The left half is that of a dub of the left one alone, whose right half is the source's."""
    alone = tmp_path / "alone.mkv"
    dubber.dub_speakers(pair, {LEFT: speeches[0]}, alone, LOSSLESS)
    source, one, two = luma(pair), luma(alone), luma(both[0])
    assert len(source) == len(one) == len(two) == FRAMES
    changed = [0, 0]
    for a, b, c in zip(source, one, two, strict=True):
        assert np.array_equal(b[:, SIDE:], a[:, SIDE:])
        assert np.array_equal(c[:, :SIDE], b[:, :SIDE])
        changed[0] += int((b[:, :SIDE] != a[:, :SIDE]).any())
        changed[1] += int((c[:, SIDE:] != a[:, SIDE:]).any())
    assert min(changed) > FRAMES - 4


def test_the_report_names_both(both: tuple[Path, DubReport], speeches: tuple[Path, Path]) -> None:
    report = both[1]
    assert sum(face.dubbed for face in report.faces) == 2
    assert all(face.confidence is not None for face in report.faces)
    assert report.audio.path == " + ".join(map(str, speeches))
    assert {f"speech of speaker {who}" for who in (LEFT, RIGHT)} <= set(report.checksums)
    assert report.frames_dubbed == FRAMES


def test_the_sound_is_the_sum(both: tuple[Path, DubReport], speeches: tuple[Path, Path]) -> None:
    out, rate = decode_audio(both[0])
    (a, first), (b, second) = (decode_audio(path) for path in speeches)
    assert rate == first == second
    wanted = a[0].astype(np.float64)
    wanted[: b.shape[1]] += b[0]
    got = out[0].astype(np.float64) / 2**16
    count = min(len(got), len(wanted))
    assert count > 0.5 * rate
    scale = float(got[:count] @ wanted[:count] / (wanted[:count] @ wanted[:count]))
    assert scale == pytest.approx(min(1.0, CEILING * 2**15 / np.abs(wanted).max()), rel=1e-4)
    assert np.abs(got[:count] - scale * wanted[:count]).max() <= 1


def test_contradictions_are_refused(
    dubber: Dubber, pair: Path, speeches: tuple[Path, Path], tmp_path: Path
) -> None:
    output = tmp_path / "o.mkv"
    with pytest.raises(OptionInvalid, match="one face"):
        dubber.dub_speakers(pair, {LEFT: speeches[0], "110,100@0.1": speeches[1]}, output)
    with pytest.raises(OptionInvalid, match="x,y@t"):
        dubber.dub_speakers(pair, {"left": speeches[0]}, output)
    with pytest.raises(OptionInvalid):
        dubber.dub_speakers(pair, {}, output)
    with pytest.raises(OptionInvalid, match="adapt"):
        dubber.dub_speakers(pair, {LEFT: speeches[0]}, output, DubOptions(adapt=True))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "wrong",
    [
        [],
        ["a.wav", "--map", "0=a.wav"],
        ["--map", "0"],
        ["--map", "=a.wav", "--mix"],
        ["--map", "0=a.wav", "--map", "0=b.wav"],
        ["a.wav", "--mix", "b.wav"],
        ["--map", "0=a.wav", "--persona", "p.persona"],
    ],
)
def test_the_command_line_says_what_is_missing(wrong: list[str], tmp_path: Path) -> None:
    assert main(["run", "v.mp4", *wrong, "-o", str(tmp_path / "o.mp4")]) in (2, 13)
