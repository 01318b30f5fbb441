"""From finished segments to the result at its place, and its report."""

from __future__ import annotations

import json
import os
import resource
import sys
import time
from dataclasses import replace
from pathlib import Path

from dubbing.checksums import file_sha256
from dubbing.errors import DubbingError, OutputUnwritable
from dubbing.job.description import JobDescription
from dubbing.job.folder import JobFolder
from dubbing.job.inputs import InputFile
from dubbing.job.job import Job
from dubbing.job.joining import Piece, join_segments
from dubbing.job.segments import SegmentRecord
from dubbing.media.encoders import encoding_losses, tag_losses
from dubbing.media.ffmpeg import writes_hdr
from dubbing.media.mux import MuxResult, mux
from dubbing.media.output import check_output, disk_errors
from dubbing.media.probe import probe, require_audio
from dubbing.media.reader import VideoReader
from dubbing.media.writer import codec_muxer
from dubbing.report import (
    AudioAction,
    CheckpointFacts,
    DubReport,
    PictureFacts,
    SegmentFacts,
    SoundFacts,
    StageTime,
    joined_intervals,
    timed_intervals,
)


def marking(engine_version: str) -> str:
    """The provenance text that every result carries."""
    return (
        f"Synthetic media: mouth and lower face generated to new speech by Persona Dub "
        f"{engine_version}"
    )


def finish_job(job: Job, checkpoint: str, notes: list[str], overwrite: bool) -> DubReport:
    """Join the segments, put the sound to them, and move the result to its place.

    Args:
        checkpoint: name of the weights, for the report.
        notes: warnings for the report.
        overwrite: whether an existing output is replaced.

    Raises:
        UnfinishedJob: a segment is missing.
        InputChanged: an input is not what the job was planned for.
        OutputUnwritable: the output's folder has vanished, or something lies in its place.
        DiskFull, MediaFailed: joining or muxing failed.
    """
    start = time.perf_counter()
    result = job.folder.path / f"result{job.target.suffix}"
    picture = job.folder.path / "picture.part"
    reader = job.open_video()
    try:
        records = list(job.records())
        _join(job, reader, records, picture)
        mixed = _mux(job, reader, picture, result)
        job.description.check_inputs(whole=True)
        digest = file_sha256(result)
    except (OSError, DubbingError) as error:
        job.description.check_inputs()
        _require_folder(job, error)
        raise
    finally:
        picture.unlink(missing_ok=True)
    mux_time = StageTime("mux", time.perf_counter() - start, 1)
    report = _report(job, reader, records, mixed, mux_time, checkpoint, notes)
    report.checksums["output"] = digest
    report.save(job.folder.report)
    if job.target.exists() and not overwrite:
        check_output(job.target, (), overwrite)
    try:
        with disk_errors(job.target):
            os.replace(result, job.target)
    except OSError as error:
        _require_folder(job, error)
        raise
    return report


def finished_report(folder: JobFolder, target: Path, now: JobDescription) -> DubReport | None:
    """The report of the job that `now` describes, where its result lies at its place already and
    only its state was not removed, or not all of it; else None."""
    try:
        report = DubReport.from_dict(json.loads(folder.report.read_text()))
        done = report.checksums["output"] == file_sha256(target)
    except (OSError, ValueError, KeyError):
        return None
    roles = report.checksums.keys() - {"output", "persona"}
    if now.input("audio") is None:  # the mix of the speeches, which are inputs themselves
        roles -= {"audio"}
    then = replace(
        now,
        inputs=tuple(InputFile(role, "", 0, 0, report.checksums[role]) for role in roles),
        options=report.options,
        persona=report.checksums.get("persona", ""),
        weights=report.checkpoint.sha256,
        device=report.device,
        engine=report.engine_version,
        libraries=report.libraries,
    )
    return report if done and not then.differences(now) else None


def _require_folder(job: Job, error: Exception) -> None:
    if not job.folder.path.is_dir():
        raise OutputUnwritable(
            "the folder was removed during the run", path=job.folder.path
        ) from error


def _join(job: Job, reader: VideoReader, records: list[SegmentRecord], picture: Path) -> None:
    pieces = [
        Piece(job.folder.segment(r.number), r.start, r.stop - r.start, r.delay) for r in records
    ]
    muxer = codec_muxer(job.options.codec, reader.video)
    join_segments(pieces, picture, muxer, reader.time_base, job.pts, job.last_duration)


def _mux(job: Job, reader: VideoReader, picture: Path, result: Path) -> MuxResult:
    note = marking(job.description.engine)
    old = reader.info.metadata.get("comment", "")
    comment = note if not old or old.startswith("Synthetic media") else f"{old} | {note}"
    return mux(
        picture, job.audio, reader.path, result,
        duration=job.plan.duration, audio_codec=job.options.audio_codec,
        extra_metadata={"comment": comment}, overwrite=True,
    )  # fmt: skip


def _report(
    job: Job, reader: VideoReader, records: list[SegmentRecord], mixed: MuxResult,
    mux_time: StageTime, checkpoint: str, notes: list[str],
) -> DubReport:  # fmt: skip
    width, height = reader.video.display_size
    index, plan, description = job.findings.index, job.plan, job.description
    source = PictureFacts(
        str(reader.path), index.count, width, height, float(index.pts[0] * reader.time_base),
        float(index.duration), reader.video.codec,
    )  # fmt: skip
    sound = require_audio(job.audio, None).audio[0]
    mixed_here = job.audio == job.folder.sound
    names = " + ".join(map(str, job.speeches.values())) if mixed_here else str(job.audio)
    joined = joined_intervals(interval for record in records for interval in record.passed)
    passed = timed_intervals(
        joined, lambda k: float(plan.frame(k).time if k < plan.count else plan.duration)
    )
    reused = sum(record.seconds for record in records if record.number in job.reused)
    earlier = sum(stage.seconds for stage in job.findings.stages) if job.resumed else 0.0
    learned = job.persona.adaptation
    light, made = reader.video.hdr, probe(mixed.path, None).video
    return DubReport(
        video=source,
        audio=SoundFacts(
            names, sound.codec, sound.sample_rate, sound.channels,
            float(job.findings.audio_seconds),
        ),
        output=replace(
            source, path=str(job.target), frames=plan.count, duration_s=float(plan.duration),
            start_s=float(mixed.video_start), codec=job.options.codec,
        ),
        options=description.options,
        checkpoint=CheckpointFacts(checkpoint, description.weights),
        device=description.device,
        engine_version=description.engine,
        marking=marking(description.engine),
        frames_dubbed=plan.count - sum(interval.frames for interval in passed),
        passed_through=passed,
        faces=job.findings.faces,
        lip_references=job.persona.bank_frames,
        audio_action=AudioAction(mixed.audio_action, mixed.audio_codec),
        stages=[
            *job.findings.stages,
            StageTime("render and encode", sum(r.seconds for r in records), plan.count),
            mux_time,
        ],
        total_seconds=time.perf_counter() - job.started + reused + earlier,
        peak_memory_mib=peak_memory_mib(),
        warnings=[
            *(f"not taken over: {name}" for name in mixed.dropped),
            *encoding_losses(
                reader.video.pix_fmt, job.options.codec, reader.video.width, reader.video.height,
                job.target.suffix.lower(),
            ),
            *(light.losses(job.options.codec, writes_hdr()) if light else []),
            *(tag_losses(reader.video, made) if made else []),
            *notes,
        ],
        adaptation=learned.facts() if learned else None,
        sync_offset_s=None if learned is None or learned.lag is None else learned.lag / 25,
        segments=SegmentFacts(len(records), len(job.reused)),
        checksums={item.role: item.sha256 for item in description.inputs}
        | ({"persona": description.persona} if description.persona else {}),
        libraries=description.libraries,
    )  # fmt: skip


def peak_memory_mib() -> float:
    """Largest resident memory of this process so far in MiB; it never falls, so of several dubs
    in one process it is that of the hungriest."""
    status = Path("/proc/self/status")
    if status.exists():  # getrusage would count what the parent had before it started this process
        for line in status.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 1024 if sys.platform != "darwin" else peak / 2**20
