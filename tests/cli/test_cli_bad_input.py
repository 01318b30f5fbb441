"""Each kind of bad input ends with one sentence, its own exit code, and nothing left behind."""

from __future__ import annotations

import wave
from pathlib import Path

import av
import numpy as np
import pytest

from dubbing.cli import main

RATE = 16000


def write_video(path: Path, frames: int = 12) -> Path:
    """A grey ramp that moves: pictures without a face, and no sound."""
    with av.open(str(path), "w") as sink:
        stream = sink.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 160, 120, "yuv420p"
        for index in range(frames):
            picture = np.tile(np.arange(160, dtype=np.uint8)[None, :, None] + index, (120, 1, 3))
            sink.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        sink.mux(stream.encode(None))
    return path


def write_sound(path: Path, seconds: float, level: float = 0.3) -> Path:
    """A 16-bit mono tone; level 0 is digital silence."""
    times = np.arange(round(seconds * RATE)) / RATE
    samples = np.rint(level * 32767 * np.sin(2 * np.pi * 220 * times)).astype(np.int16)
    with wave.open(str(path), "wb") as sink:
        sink.setnchannels(1)
        sink.setsampwidth(2)
        sink.setframerate(RATE)
        sink.writeframes(samples.astype("<i2").tobytes())
    return path


class Bench:
    """A folder with good inputs, and a check that a failed run leaves it as it was."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str]):
        self.folder = folder
        self.video = write_video(folder / "speaker.mp4")
        self.audio = write_sound(folder / "speech.wav", 1.0)
        self.output = folder / "dubbed.mp4"
        self._capsys = capsys

    def fails(self, *arguments: str | Path) -> tuple[int, str]:
        """Exit code and message of `dub run ARGUMENTS --device cpu`."""
        before = {p: p.read_bytes() for p in self.folder.rglob("*") if p.is_file()}
        code = main(["run", *(str(a) for a in arguments), "--device", "cpu"])
        after = {p: p.read_bytes() for p in self.folder.rglob("*") if p.is_file()}
        assert after == before
        captured = self._capsys.readouterr()
        assert captured.out == ""
        *_, message = captured.err.strip().splitlines()
        assert message.startswith("error: ")
        assert "Traceback" not in captured.err
        return code, message


@pytest.fixture
def bench(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Bench:
    return Bench(tmp_path, capsys)


def test_missing_video(bench: Bench) -> None:
    missing = bench.folder / "absent.mp4"
    code, message = bench.fails(missing, bench.audio, "-o", bench.output)
    assert code == 3
    assert str(missing) in message


def test_missing_audio(bench: Bench) -> None:
    missing = bench.folder / "absent.wav"
    code, message = bench.fails(bench.video, missing, "-o", bench.output)
    assert code == 3
    assert str(missing) in message


@pytest.mark.parametrize("content", ["text", "sound", "empty"])
def test_not_a_video(bench: Bench, content: str) -> None:
    path = bench.folder / "fake.mp4"
    if content == "sound":
        path = write_sound(bench.folder / "only_sound.wav", 1.0)
    else:
        path.write_text("no pictures here" if content == "text" else "")
    code, message = bench.fails(path, bench.audio, "-o", bench.output)
    assert code == 4
    assert str(path) in message


@pytest.mark.parametrize("content", ["pictures", "text"])
def test_no_audio_stream(bench: Bench, content: str) -> None:
    path = bench.video
    if content == "text":
        path = bench.folder / "fake.wav"
        path.write_text("no sound here")
    code, message = bench.fails(bench.video, path, "-o", bench.output)
    assert code == 5
    assert str(path) in message


@pytest.mark.parametrize(("seconds", "level"), [(1.0, 0.0), (0.0, 0.0), (0.15, 0.3)])
def test_silent_empty_and_short_audio(bench: Bench, seconds: float, level: float) -> None:
    path = write_sound(bench.folder / "bad.wav", seconds, level)
    code, message = bench.fails(bench.video, path, "-o", bench.output)
    assert code == 6
    assert str(path) in message


def test_video_without_a_face(bench: Bench) -> None:
    code, message = bench.fails(bench.video, bench.audio, "-o", bench.output)
    assert code == 7
    assert str(bench.video) in message


@pytest.mark.parametrize("which", ["video", "audio"])
def test_output_is_an_input(bench: Bench, which: str) -> None:
    same = getattr(bench, which)
    code, message = bench.fails(bench.video, bench.audio, "-o", same, "--overwrite")
    assert code == 8
    assert str(same) in message


def test_output_is_an_input_by_another_name(bench: Bench) -> None:
    link = bench.folder / "link.mp4"
    link.hardlink_to(bench.video)
    code, _ = bench.fails(bench.video, bench.audio, "-o", link, "--overwrite")
    assert code == 8


def test_output_folder_is_missing(bench: Bench) -> None:
    code, message = bench.fails(
        bench.video, bench.audio, "-o", bench.folder / "nowhere" / "dubbed.mp4"
    )
    assert code == 8
    assert "nowhere" in message
    assert not (bench.folder / "nowhere").exists()


def test_output_exists(bench: Bench) -> None:
    bench.output.write_bytes(b"the work of hours")
    code, message = bench.fails(bench.video, bench.audio, "-o", bench.output)
    assert code == 8
    assert "overwrite" in message


def test_unknown_checkpoint(bench: Bench) -> None:
    code, message = bench.fails(
        bench.video, bench.audio, "-o", bench.output, "--checkpoint", "no-such-checkpoint"
    )
    assert code == 9
    assert "no-such-checkpoint" in message


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        (("--crf", "99"), "crf"),
        (("--length", "forever"), "length"),
        (("--style-strength", "1.6"), "style_strength"),
        (("--style-strength", "nan"), "style_strength"),
        (("--speaker", "tallest"), "speaker"),
        (("--codec", "mpeg1"), "codec"),
        (("--device", "abacus"), "device"),
    ],
)
def test_option_outside_its_range(
    bench: Bench, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], name: str
) -> None:
    files = [str(bench.video), str(bench.audio), "-o", str(bench.output)]
    assert main(["run", *files, *arguments]) == 13
    assert capsys.readouterr().err.startswith(f"error: {name} is ")
    assert not bench.output.exists()


def test_persona_file_that_is_none(bench: Bench) -> None:
    path = bench.folder / "speaker.persona"
    path.write_text("nobody")
    code, message = bench.fails(bench.video, bench.audio, "-o", bench.output, "--persona", path)
    assert code == 14
    assert str(path) in message


def test_inspect_of_a_missing_video_makes_no_folder(tmp_path: Path) -> None:
    folder = tmp_path / "seen"
    code = main(["inspect", str(tmp_path / "absent.mp4"), "--output-dir", str(folder)])
    assert code == 3
    assert not folder.exists()


def test_playlist_or_url_in_place_of_a_video(bench: Bench) -> None:
    playlist = bench.folder / "list.mp4"
    playlist.write_text(f"ffconcat version 1.0\nfile '{bench.video.name}'\n")
    code, message = bench.fails(playlist, bench.audio, "-o", bench.output)
    assert code == 4 and "names other files" in message
    code, message = bench.fails("http://127.0.0.1:9/a.mp4", bench.audio, "-o", bench.output)
    assert code == 3 and "only local files" in message


def test_input_over_the_limits(bench: Bench) -> None:
    given = (bench.video, bench.audio, "-o", bench.output)
    code, message = bench.fails(*given, "--max-pixels", "1000")
    assert code == 20 and "160 x 120" in message and "--max-pixels" in message
    code, message = bench.fails(*given, "--max-duration", "0.3")
    assert code == 20 and "--max-duration" in message


def test_names_with_a_leading_dash(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.video.rename(bench.folder / "-x.mp4")
    monkeypatch.chdir(bench.folder)
    arguments = ["-o", str(bench.output), "--device", "cpu", "--", "-x.mp4", str(bench.audio)]
    assert main(["run", *arguments]) == 7  # it was read: no face is in it
    assert not bench.output.exists()
