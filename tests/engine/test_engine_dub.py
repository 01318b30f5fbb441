"""The whole path on real pictures with the shipped checkpoint."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import av
import numpy as np
import pytest
from engine_samples import BLANK, FRAMES, write_clip, write_speech
from numpy.typing import NDArray

from dubbing.dubber import Dubber
from dubbing.errors import CheckpointCorrupt, OptionInvalid, PersonaInvalid
from dubbing.face.limits import NO_FACE
from dubbing.job import clean_state
from dubbing.media.audio import decode_audio
from dubbing.media.planes import plane_view
from dubbing.media.reader import VideoReader
from dubbing.options import DubOptions
from dubbing.persona import Persona
from dubbing.progress import ProgressEvent
from dubbing.report import DubReport
from dubbing.weights import KINDS, OPTIONAL, PACKAGED

LOSSLESS = DubOptions(length="video", codec="ffv1")


def planes(path: Path) -> tuple[list[list[NDArray[np.int16]]], list[float]]:
    """Planes and times of every frame."""
    pictures, times = [], []
    with VideoReader(path) as reader:
        for frame in reader:
            pictures.append([plane_view(frame.frame, k).astype(np.int16).copy() for k in range(3)])
            times.append(float(frame.time))
    return pictures, times


@pytest.fixture(scope="module")
def dubbed(
    dubber: Dubber, clip: Path, speech: Path, persona: Persona, folder: Path
) -> tuple[Path, DubReport]:
    output = folder / "lossless.mkv"
    options = replace(LOSSLESS, report=folder / "report.json")
    return output, dubber.dub(clip, speech, output, options, persona)


def test_every_frame_is_kept_at_its_time(dubbed: tuple[Path, DubReport], clip: Path) -> None:
    _, times = planes(dubbed[0])
    _, wanted = planes(clip)
    assert len(times) == FRAMES
    assert np.abs(np.array(times) - np.array(wanted)).max() <= 0.0005  # Matroska counts ms


def test_only_the_lower_face_changes(
    dubbed: tuple[Path, DubReport], clip: Path, persona: Persona
) -> None:
    source, _ = planes(clip)
    output, _ = planes(dubbed[0])
    row_of = {int(f): k for k, f in enumerate(persona.track_frames.tolist())}
    changed = 0
    for k, (a, b) in enumerate(zip(source, output, strict=True)):
        differs = [np.abs(x - y) > 0 for x, y in zip(a, b, strict=True)]
        if k in BLANK:
            assert not any(d.any() for d in differs), f"frame {k} has no face and was changed"
            continue
        pose = persona.track_pose[row_of[k]]
        middle_y, half = float(pose[5]), float(pose[3].exp())  # nose region, half a face height
        above = int(middle_y - 0.05 * half)
        assert not differs[0][:above].any(), f"frame {k} changed above the nose"
        assert not differs[1][: above // 2].any()
        rows, columns = differs[0].nonzero()
        if len(rows):
            changed += 1
            assert columns.max() - columns.min() < 2.6 * half
            assert rows.max() < middle_y + 2.0 * half
    assert changed > FRAMES // 2


def test_frames_without_a_face_are_reported(dubbed: tuple[Path, DubReport], folder: Path) -> None:
    report = dubbed[1]
    assert report.frames_dubbed == FRAMES - len(BLANK)
    assert report.pass_through_counts == {NO_FACE: len(BLANK)}
    only = report.passed_through[0]
    assert (only.start_frame, only.stop_frame) == (BLANK[0], BLANK[-1] + 1)
    saved = json.loads((folder / "report.json").read_text())
    assert saved["frames_dubbed"] == report.frames_dubbed
    assert saved["passed_through"][0]["reason"] == NO_FACE
    assert set(saved["checkpoint"]["sha256"]) == {*KINDS, *OPTIONAL}


def test_sound_is_the_speech_sample_by_sample(dubbed: tuple[Path, DubReport], speech: Path) -> None:
    out, rate = decode_audio(dubbed[0])
    wanted, wanted_rate = decode_audio(speech)
    assert rate == wanted_rate
    count = min(out.shape[1], wanted.shape[1])
    assert count == wanted.shape[1]  # the picture is longer: nothing was cut
    assert np.array_equal(out[:, :count], wanted[:, :count])
    assert dubbed[1].audio_action is not None
    assert dubbed[1].audio_action.action == "copied"


def test_result_says_that_it_is_synthetic(dubbed: tuple[Path, DubReport]) -> None:
    with av.open(str(dubbed[0])) as container:
        tags = {k.lower(): v for k, v in container.metadata.items()}
    assert tags["comment"] == dubbed[1].marking
    assert "Synthetic media" in dubbed[1].marking


def test_speech_decides_the_picture(
    dubbed: tuple[Path, DubReport], dubber: Dubber, clip: Path, persona: Persona, folder: Path
) -> None:
    other = write_speech(folder / "other.flac", 1.0, start=3.0)
    output = folder / "other.mkv"
    dubber.dub(clip, other, output, LOSSLESS, persona)
    a, _ = planes(dubbed[0])
    b, _ = planes(output)
    assert sum(int((x[0] != y[0]).any()) for x, y in zip(a, b, strict=True)) > FRAMES // 2


def test_saved_persona_gives_the_same_film(
    dubbed: tuple[Path, DubReport], dubber: Dubber, clip: Path, speech: Path, persona: Persona,
    folder: Path,
) -> None:  # fmt: skip
    persona.save(folder / "speaker.persona")
    loaded = Persona.load(folder / "speaker.persona")
    output = folder / "again.mkv"
    dubber.dub(clip, speech, output, LOSSLESS, loaded)
    a, _ = planes(dubbed[0])
    b, _ = planes(output)
    for x, y in zip(a, b, strict=True):
        assert all(np.array_equal(p, q) for p, q in zip(x, y, strict=True))


def test_persona_of_another_model_is_refused(
    dubber: Dubber, clip: Path, speech: Path, persona: Persona, tmp_path: Path
) -> None:
    with pytest.raises(PersonaInvalid):
        dubber.dub(clip, speech, tmp_path / "o.mp4", None, replace(persona, morphable="other"))
    (tmp_path / "not.persona").write_bytes(b"0123456789")
    with pytest.raises(PersonaInvalid):
        Persona.load(tmp_path / "not.persona")
    assert not (tmp_path / "o.mp4").exists()


def test_longer_speech_goes_on_by_ping_pong(
    dubber: Dubber, clip: Path, persona: Persona, tmp_path: Path
) -> None:
    speech = write_speech(tmp_path / "long.flac", 1.6)
    events: list[ProgressEvent] = []
    report = dubber.dub(clip, speech, tmp_path / "o.mp4", None, persona, events.append)
    with VideoReader(tmp_path / "o.mp4") as reader:
        end = float(reader.index.duration)
        count = reader.index.count
    assert count == report.output.frames > FRAMES
    assert 1.6 <= end < 1.6 + 0.07
    assert {"geometry", "render", "mux"} <= {e["stage"] for e in events}
    last = [e for e in events if e["stage"] == "render"][-1]
    assert last["done"] == last["total"] == count
    assert set(last) == {"stage", "done", "total", "fps", "eta_s"}


def test_shortest_cuts_the_picture(
    dubber: Dubber, clip: Path, speech: Path, persona: Persona, tmp_path: Path
) -> None:
    options = DubOptions(length="shortest")
    report = dubber.dub(clip, speech, tmp_path / "o.mp4", options, persona)
    assert report.output.frames < FRAMES
    assert 1.0 <= report.output.duration_s < 1.0 + 0.07


def test_style_of_another_clip(
    dubbed: tuple[Path, DubReport], dubber: Dubber, clip: Path, speech: Path, persona: Persona,
    pictures: list[NDArray[np.uint8]], tmp_path: Path,
) -> None:  # fmt: skip
    calm = [p for p in pictures for _ in range(2)][: FRAMES // 2]  # slower, and only the first half
    other = write_clip(tmp_path / "other.mp4", calm, [24 * k for k in range(len(calm))])
    options = replace(LOSSLESS, style=other, style_strength=1.5, report=None)
    report = dubber.dub(clip, speech, tmp_path / "o.mkv", options, persona)
    assert report.options["style"] == str(other)
    a, _ = planes(dubbed[0])
    b, _ = planes(tmp_path / "o.mkv")
    assert sum(int((x[0] != y[0]).any()) for x, y in zip(a, b, strict=True)) > FRAMES // 2


def test_exception_in_progress_cancels_and_leaves_only_the_state(
    dubber: Dubber, clip: Path, speech: Path, persona: Persona, tmp_path: Path
) -> None:
    class Stop(Exception):
        pass

    def stop(event: ProgressEvent) -> None:
        if event["stage"] == "render" and event["done"] > 3:
            raise Stop

    (tmp_path / "o.mp4").write_bytes(b"older work")
    with pytest.raises(Stop) as stopped:
        dubber.dub(clip, speech, tmp_path / "o.mp4", DubOptions(overwrite=True), persona, stop)
    assert "--resume" in stopped.value.__notes__[0]
    assert sorted(p.name for p in tmp_path.iterdir()) == [".o.mp4.dub", "o.mp4"]
    assert (tmp_path / "o.mp4").read_bytes() == b"older work"
    assert clean_state(tmp_path / "o.mp4")
    assert [p.name for p in tmp_path.iterdir()] == ["o.mp4"]


def test_corrupt_checkpoint(tmp_path: Path) -> None:
    for kind in KINDS:
        data = (PACKAGED / f"{kind}.safetensors").read_bytes()
        (tmp_path / f"{kind}.safetensors").write_bytes(data)
    whole = (tmp_path / "renderer.safetensors").read_bytes()
    (tmp_path / "renderer.safetensors").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(CheckpointCorrupt, match=r"renderer\.safetensors"):
        Dubber.from_pretrained(tmp_path)


def test_unknown_device() -> None:
    with pytest.raises(OptionInvalid):
        Dubber.from_pretrained(device="abacus")


def test_inspection_shows_tracks_and_gaps(dubber: Dubber, clip: Path) -> None:
    found = dubber.inspect(clip)
    facts = found.to_dict()
    assert facts["frames"] == FRAMES
    assert facts["dubbed_frames"] == FRAMES - len(BLANK)
    (track,) = facts["face_tracks"]  # three grey frames are no shot of their own
    assert track["confidence"] > 0.9
    assert facts["speaker_tracks"] == [t["id"] for t in facts["face_tracks"]]
    gap = facts["passes_through"][0]
    assert (gap["start_frame"], gap["stop_frame"]) == (BLANK[0], BLANK[-1] + 1)
    with VideoReader(clip) as reader:
        times = [float(t) for t in reader.index.times]
    assert gap["start_s"] == pytest.approx(times[BLANK[0]], abs=1e-5)
    assert gap["stop_s"] == pytest.approx(times[BLANK[-1] + 1], abs=1e-5)
    assert facts["lip_references"]
    assert found.preview.dtype == np.uint8
    assert found.preview.ndim == 3
