"""A job that was stopped goes on with the bytes that it would have made without the stop."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
from dataclasses import fields, replace
from fractions import Fraction
from pathlib import Path

import av
import pytest
import torch
from engine_samples import FRAMES, write_speech

from dubbing.analysis import easing
from dubbing.checksums import file_sha256
from dubbing.dubber import Dubber
from dubbing.errors import (
    AudioUnusable,
    DiskFull,
    InputChanged,
    InputTooLarge,
    OptionInvalid,
    OutputBusy,
    OutputUnwritable,
    UnfinishedJob,
)
from dubbing.job import SegmentRenderer, clean_state, state_path
from dubbing.job.planning import JobPlanner, Request
from dubbing.job.segments import Span
from dubbing.media.planes import plane_view
from dubbing.media.reader import VideoReader
from dubbing.media.timeline import iter_plan
from dubbing.options import DubOptions
from dubbing.persona import Persona
from dubbing.progress import ProgressCallback, ProgressEvent
from dubbing.render.registration import Registration
from dubbing.report import DubReport
from dubbing.stream import DubbedFrames, StreamFrame

PIECES = DubOptions(preset="ultrafast", segment_seconds=0.2)
RESUME = replace(PIECES, resume=True)


class Stop(Exception):
    pass


def stop_at(frame: int) -> ProgressCallback:
    def callback(event: ProgressEvent) -> None:
        if event["stage"] == "render" and event["done"] >= frame:
            raise Stop

    return callback


@pytest.fixture(autouse=True)
def every_event(monkeypatch: pytest.MonkeyPatch) -> None:
    """Progress events at every frame, so that stops come where they are asked for."""
    monkeypatch.setattr("dubbing.progress.StageProgress.interval_s", 0.0)


@pytest.fixture(scope="module")
def whole(
    dubber: Dubber,
    clip: Path,
    speech: Path,
    persona: Persona,
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[Path, DubReport]:
    """The uninterrupted result."""
    output = tmp_path_factory.mktemp("whole") / "o.mp4"
    return output, dubber.dub(clip, speech, output, PIECES, persona)


@pytest.fixture
def stopped(dubber: Dubber, clip: Path, speech: Path, persona: Persona, tmp_path: Path) -> Path:
    """The output of a run that was stopped in its second segment."""
    output = tmp_path / "o.mp4"
    with pytest.raises(Stop):
        dubber.dub(clip, speech, output, PIECES, persona, stop_at(8))
    assert not output.exists()
    return output


def decoded(path: Path) -> list[tuple[Fraction, list[bytes]]]:
    """Time and samples of every frame."""
    with VideoReader(path) as reader:
        return [
            (frame.time, [plane_view(frame.frame, k).tobytes() for k in range(3)])
            for frame in reader
        ]


def test_every_segment_is_encoded_for_itself(whole: tuple[Path, DubReport], clip: Path) -> None:
    output, report = whole
    assert report.segments is not None
    assert (report.segments.count, report.segments.reused) == (5, 0)
    with VideoReader(output) as made, VideoReader(clip) as source:
        times = [frame.time for frame in made]
        assert len(times) == report.output.frames
        assert times == source.index.times[: len(times)]  # to the tick
        assert made.index.duration == source.index.times[len(times)]
        assert len(made.index.keys) == 5
    with av.open(str(output)) as container:
        packets = [p for p in container.demux(video=0) if p.size]
    decoding = [p.dts for p in packets]
    assert decoding == sorted(set(decoding))
    assert all(p.dts <= p.pts for p in packets)
    assert len(packets) == report.output.frames
    assert sorted(output.parent.iterdir()) == [output]  # the state is gone


def test_segments_show_what_one_pass_shows(
    dubber: Dubber, clip: Path, persona: Persona, tmp_path: Path
) -> None:
    """Bit by bit before encoding: over ping-pong, face gaps and every seam, in any order."""
    threads = []
    register = Registration.register

    def noted(self: Registration, *given: torch.Tensor) -> torch.Tensor:
        threads.append(threading.current_thread() is threading.main_thread())
        return register(self, *given)

    longer = write_speech(tmp_path / "longer.flac", 1.4)
    lossless = DubOptions(codec="ffv1", segment_seconds=0.25)
    output = tmp_path / "o.mkv"
    with dubber.plan(clip, longer, output, lossless, persona) as job:
        assert job.plan.count > FRAMES
        assert len(job.spans) >= 5
        at_once = DubbedFrames(
            dubber.session(persona), dubber.lower,
            job.motion(Span(0, 0, job.plan.count)), job.findings.speaker,
            easing(job.findings.speaker.reasons, job.findings.index.count),
        )  # fmt: skip
        planned = (
            StreamFrame(f.number, f.source, float(f.time))
            for f in iter_plan(job.open_video(), job.plan)
        )
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Registration, "register", noted)
            expected = [
                [plane_view(done.frame, k).tobytes() for k in range(3)]
                for done in at_once.run(planned)
            ]
        assert threads.count(False) > threads.count(True)  # ahead, beside the drawing
        with SegmentRenderer(dubber, job) as renderer:
            for number in reversed(job.missing()):
                renderer.render(number)
        dubber.finish(job)
    assert [planes for _, planes in decoded(output)] == expected


def test_a_source_that_can_not_be_sought_gives_the_same(
    dubber: Dubber, clip: Path, speech: Path, persona: Persona, tmp_path: Path,
    whole: tuple[Path, DubReport],
) -> None:  # fmt: skip
    output = tmp_path / "o.mp4"
    with dubber.plan(clip, speech, output, PIECES, persona) as job:
        blind = replace(job.findings.index, seekable=False)
        counted = replace(job, findings=replace(job.findings, index=blind))
        with SegmentRenderer(dubber, counted) as renderer:
            for number in (1, 2, 3, 4, 0):
                renderer.render(number)
        dubber.finish(counted)
    assert output.read_bytes() == whole[0].read_bytes()


def test_resumed_result_has_the_same_bytes(
    dubber: Dubber, clip: Path, speech: Path, persona: Persona, stopped: Path,
    whole: tuple[Path, DubReport],
) -> None:  # fmt: skip
    events: list[ProgressEvent] = []
    report = dubber.dub(clip, speech, stopped, RESUME, persona, events.append)
    assert stopped.read_bytes() == whole[0].read_bytes()
    assert report.segments is not None
    assert 1 <= report.segments.reused < report.segments.count
    assert {e["stage"] for e in events} == {"render", "mux"}  # nothing is analysed again
    assert events[0]["done"] > 0
    assert report.passed_through == whole[1].passed_through
    assert report.frames_dubbed == whole[1].frames_dubbed
    assert report.checksums == whole[1].checksums
    assert report.checksums["output"] == file_sha256(stopped)
    assert [p.name for p in stopped.parent.iterdir()] == [stopped.name]


def test_a_damaged_segment_is_made_again(
    dubber: Dubber, clip: Path, speech: Path, persona: Persona, stopped: Path,
    whole: tuple[Path, DubReport],
) -> None:  # fmt: skip
    segment = state_path(stopped) / "segment-00000.video"
    data = bytearray(segment.read_bytes())
    data[len(data) // 2] ^= 1
    segment.write_bytes(data)
    report = dubber.dub(clip, speech, stopped, RESUME, persona)
    assert report.segments is not None
    assert report.segments.reused == 0  # it was the only one
    assert stopped.read_bytes() == whole[0].read_bytes()


def test_an_unfinished_job_is_neither_reused_nor_dropped_unasked(
    dubber: Dubber, clip: Path, speech: Path, persona: Persona, stopped: Path
) -> None:
    with pytest.raises(UnfinishedJob, match=r"--resume.*--clean"):
        dubber.dub(clip, speech, stopped, PIECES, persona)
    assert (state_path(stopped) / "segment-00000.video").exists()
    report = dubber.dub(clip, speech, stopped, replace(PIECES, clean=True), persona)
    assert report.segments is not None
    assert report.segments.reused == 0
    assert [p.name for p in stopped.parent.iterdir()] == [stopped.name]


def test_another_job_can_not_go_on_from_there(
    dubber: Dubber, clip: Path, speech: Path, persona: Persona, stopped: Path, tmp_path: Path
) -> None:
    with pytest.raises(UnfinishedJob, match="crf: 14 before, 20 now"):
        dubber.dub(clip, speech, stopped, replace(RESUME, crf=20), persona)
    other = write_speech(tmp_path / "other.flac", 1.0, start=3.0)
    with pytest.raises(UnfinishedJob, match=r"audio: .*other\.flac has another content"):
        dubber.dub(clip, other, stopped, RESUME, persona)
    with pytest.raises(UnfinishedJob, match="persona: another one"):
        dubber.dub(clip, speech, stopped, RESUME, replace(persona, rest=persona.rest * 0.5))
    job_file = state_path(stopped) / "job.json"
    job_file.write_text(job_file.read_text().replace('"schema": 1', '"schema": 99'))
    with pytest.raises(UnfinishedJob, match="schema 99"):
        dubber.dub(clip, speech, stopped, RESUME, persona)
    assert (state_path(stopped) / "segment-00000.video").exists()


def test_options_that_change_no_picture_may_change(
    dubber: Dubber, clip: Path, speech: Path, persona: Persona, stopped: Path, tmp_path: Path,
    whole: tuple[Path, DubReport],
) -> None:  # fmt: skip
    """Raised limits, a report that is wanted now, leave to overwrite."""
    again = replace(
        RESUME, max_pixels=RESUME.max_pixels * 2, max_duration=RESUME.max_duration * 2,
        report=tmp_path / "report.json", overwrite=True,
    )  # fmt: skip
    report = dubber.dub(clip, speech, stopped, again, persona)
    assert report.segments is not None
    assert report.segments.reused >= 1
    assert stopped.read_bytes() == whole[0].read_bytes()
    assert report.options["max_duration"] == again.max_duration
    assert again.report is not None and again.report.exists()


def test_limits_of_the_resumed_run_hold(
    dubber: Dubber, clip: Path, speech: Path, persona: Persona, stopped: Path
) -> None:
    with pytest.raises(InputTooLarge):
        dubber.dub(clip, speech, stopped, replace(RESUME, max_pixels=9), persona)
    assert (state_path(stopped) / "segment-00000.video").exists()


OTHERWISE: dict[str, object] = {
    "length": "video", "tail": "original", "speaker": "0", "max_yaw": 40.0, "min_face": 50.0,
    "min_confidence": 0.4, "min_sharpness": 0.3, "min_visible": 0.4, "style_strength": 1.1,
    "adapt": True, "codec": "libx265", "crf": 20, "preset": "fast", "decoder": "nvdec",
    "audio_codec": "aac", "segment_seconds": 0.5,
}  # fmt: skip
FREE = {"overwrite", "report", "resume", "clean", "max_pixels", "max_duration"}


@pytest.mark.parametrize("name", [f.name for f in fields(DubOptions) if f.name not in FREE])
def test_an_option_that_changes_the_result_is_named(
    name: str, dubber: Dubber, clip: Path, speech: Path, persona: Persona
) -> None:
    """Whatever is not known to change nothing is refused; a style counts as an input."""
    planner = JobPlanner(dubber)
    was = planner.describe(Request.of(clip, speech, None, PIECES, persona), speech)
    value = clip if name == "style" else OTHERWISE[name]
    changed = replace(RESUME, **{name: value})
    now = planner.describe(Request.of(clip, speech, None, changed, persona), speech)
    found = was.differences(now)
    assert len(found) == 1
    assert found[0].startswith("style file" if name == "style" else f"--{name.replace('_', '-')}:")


def test_resume_without_a_state_starts(
    dubber: Dubber, clip: Path, speech: Path, persona: Persona, tmp_path: Path,
    whole: tuple[Path, DubReport],
) -> None:  # fmt: skip
    dubber.dub(clip, speech, tmp_path / "o.mp4", RESUME, persona)
    assert (tmp_path / "o.mp4").read_bytes() == whole[0].read_bytes()
    with pytest.raises(OptionInvalid, match="contradict"):
        DubOptions(resume=True, clean=True)


def test_a_kill_after_the_last_step_costs_nothing(
    dubber: Dubber, clip: Path, speech: Path, persona: Persona, tmp_path: Path
) -> None:
    """The result is there, the state too, and nobody was told."""
    output = tmp_path / "o.mp4"
    with pytest.raises(Stop), dubber.plan(clip, speech, output, PIECES, persona) as job:
        dubber.render(job)
        dubber.finish(job)
        raise Stop
    made = output.stat().st_mtime_ns
    options = replace(RESUME, report=tmp_path / "report.json")
    report = dubber.dub(clip, speech, output, options, persona)
    assert output.stat().st_mtime_ns == made
    assert report.checksums["output"] == file_sha256(output)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["o.mp4", "report.json"]


def test_bad_input_leaves_no_state(
    dubber: Dubber, clip: Path, persona: Persona, tmp_path: Path
) -> None:
    short = tmp_path / "short.flac"
    write_speech(short, 0.1)
    with pytest.raises(AudioUnusable):
        dubber.dub(clip, short, tmp_path / "o.mp4", PIECES, persona)
    assert [p.name for p in tmp_path.iterdir()] == ["short.flac"]


def test_two_runs_do_not_make_one_output(
    dubber: Dubber, clip: Path, speech: Path, persona: Persona, tmp_path: Path
) -> None:
    output = tmp_path / "o.mp4"
    with pytest.raises(Stop), dubber.plan(clip, speech, output, PIECES, persona):
        with pytest.raises(OutputBusy, match=f"process {os.getpid()} on"):
            dubber.dub(clip, speech, output, replace(PIECES, clean=True), persona)
        with pytest.raises(OutputBusy):
            clean_state(output)
        raise Stop
    assert clean_state(output)
    assert not clean_state(output)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("when", ["render", "mux"])
def test_an_input_changed_during_the_run_gives_no_result(
    dubber: Dubber, clip: Path, speech: Path, persona: Persona, tmp_path: Path, when: str
) -> None:
    mine = tmp_path / "speech.flac"
    mine.write_bytes(speech.read_bytes())

    def change(event: ProgressEvent) -> None:
        if event["stage"] == when:
            before = mine.stat()
            data = bytearray(speech.read_bytes())
            data[-1] ^= 255
            mine.write_bytes(data)
            if when == "mux":  # not even the time of change tells: only the content does
                os.utime(mine, ns=(before.st_atime_ns, before.st_mtime_ns))

    with pytest.raises(InputChanged, match=r"speech\.flac: the audio was changed"):
        dubber.dub(clip, mine, tmp_path / "o.mp4", PIECES, persona, change)
    assert not (tmp_path / "o.mp4").exists()
    mine.write_bytes(speech.read_bytes())  # put back, it is the old job again
    dubber.dub(clip, mine, tmp_path / "o.mp4", RESUME, persona)


def test_touched_and_moved_inputs_are_the_same(
    dubber: Dubber, clip: Path, speech: Path, persona: Persona, stopped: Path, tmp_path: Path
) -> None:
    moved = tmp_path / "moved.flac"
    moved.write_bytes(speech.read_bytes())
    report = dubber.dub(clip, moved, stopped, RESUME, persona, lambda event: os.utime(moved))
    assert report.audio.path == str(moved)


@pytest.mark.parametrize("when", [8, 0])
def test_output_folder_removed_during_the_run(
    dubber: Dubber, clip: Path, speech: Path, persona: Persona, tmp_path: Path, when: int
) -> None:
    """In the second segment, or between the last one and the end."""
    folder = tmp_path / "results"
    folder.mkdir()

    def remove(event: ProgressEvent) -> None:
        hit = event["stage"] == "mux" if when == 0 else event["done"] == when
        if hit and folder.exists():
            shutil.rmtree(folder)

    with pytest.raises(OutputUnwritable, match="removed during the run"):
        dubber.dub(clip, speech, folder / "o.mp4", PIECES, persona, remove)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs the always-full device")
def test_full_disk_keeps_what_is_finished(
    dubber: Dubber, clip: Path, speech: Path, persona: Persona, tmp_path: Path,
    whole: tuple[Path, DubReport],
) -> None:  # fmt: skip
    """The second segment goes to a device that is always full."""
    output = tmp_path / "o.mp4"
    part = state_path(output) / f"segment-00001.video.{os.getpid()}.part"

    def fill(event: ProgressEvent) -> None:
        if event["stage"] == "render" and event["done"] == 2:
            part.symlink_to("/dev/full")

    with pytest.raises(DiskFull) as full:
        dubber.dub(clip, speech, output, PIECES, persona, fill)
    assert "--resume" in full.value.__notes__[0]
    assert not output.exists()
    assert not part.is_symlink()
    report = dubber.dub(clip, speech, output, RESUME, persona)
    assert report.segments is not None
    assert report.segments.reused == 1
    assert output.read_bytes() == whole[0].read_bytes()


def test_the_state_is_read_by_any_process(
    dubber: Dubber, clip: Path, speech: Path, persona: Persona, tmp_path: Path,
    whole: tuple[Path, DubReport],
) -> None:  # fmt: skip
    """What a worker does, with nothing but the folder."""
    output = tmp_path / "o.mp4"
    with dubber.plan(clip, speech, output, PIECES, persona) as job:
        code = (
            "import sys, torch; torch.set_num_threads(1)\n"
            "from dubbing import Dubber\n"
            "from dubbing.job import Job, SegmentRenderer\n"
            "job = Job.load(sys.argv[1])\n"
            "with SegmentRenderer(Dubber.from_pretrained(device='cpu'), job) as renderer:\n"
            "    [renderer.render(k) for k in job.missing()[::2]]\n"
        )
        subprocess.run([sys.executable, "-c", code, job.folder.path], check=True)
        assert job.missing() == [1, 3]
        dubber.render(job)
        dubber.finish(job)
    assert output.read_bytes() == whole[0].read_bytes()
