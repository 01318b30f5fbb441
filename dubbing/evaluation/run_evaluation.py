"""`dub evaluate` and `dub protocol` without their command line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from dubbing.dubber import Dubber
from dubbing.errors import OptionInvalid
from dubbing.evaluation.baselines import (
    REST,
    UNCHANGED,
    WARP,
    RestingDubber,
    UnchangedSystem,
    WarpingDubber,
)
from dubbing.evaluation.clips import Clip, load_clips
from dubbing.evaluation.evaluate import TRUTH, Evaluation, TruthSystem
from dubbing.evaluation.evaluation_options import EvaluateOptions
from dubbing.evaluation.evaluation_report import save_report
from dubbing.evaluation.protocol_file import EvaluationProtocol, load_protocol, make_protocol
from dubbing.evaluation.studio import Studio
from dubbing.evaluation.systems import (
    CommandSystem,
    EngineSystem,
    FolderSystem,
    System,
    named,
)
from dubbing.evaluation.video_judges import VideoJudges
from dubbing.persona import Persona
from dubbing.progress import ProgressCallback

OURS = "ours"


def run_evaluation(
    protocol_file: Path,
    options: EvaluateOptions,
    videos: list[str],
    commands: list[str],
    checkpoint: str = "default",
    device: str = "auto",
    progress: ProgressCallback | None = None,
    note: Callable[[str], None] = lambda text: None,
) -> str:
    """Evaluate systems on a protocol; what an earlier run into the same folder finished is kept.

    Args:
        videos: NAME=FOLDER of finished videos; commands: NAME=TEMPLATE of programs.
        checkpoint: of the engine that is evaluated. Judges and baselines are always the packaged.
        note: is told of every step.

    Returns:
        the tables as text; the files lie in `options.output`.

    Raises:
        DubbingError: the protocol, a judge's weights or the engine can't be used. A system that
            fails on a case is counted and raises nothing.
    """
    protocol = load_protocol(protocol_file, options.root)
    options.output.mkdir(parents=True, exist_ok=True)
    packaged = Dubber.from_pretrained("default", device=device)
    studio = Studio(packaged, options.output / "personas", progress)
    with VideoJudges.load(options.perceptual, options.syncnet, options.inception) as judges:
        evaluation = Evaluation(protocol, studio, judges, options, note)
        judged: list[System] = []
        if options.ours:
            engine = packaged
            if checkpoint != "default":
                engine = Dubber.from_pretrained(checkpoint, device=device)
            judged.append(EngineSystem(OURS, engine))
        judged += [FolderSystem(name, Path(folder)) for name, folder in named(videos, "videos")]
        judged += [
            CommandSystem(name, template, options.timeout)
            for name, template in named(commands, "command")
        ]
        baselines = baseline_systems(studio) if options.baselines else []
        if not judged and not baselines:
            raise OptionInvalid(
                "nothing is to be evaluated", hint="see --ours, --videos and --command"
            )
        rows = evaluation.run([*judged, *baselines, TruthSystem(protocol)])
        names = [s.name for s in judged], [s.name for s in (*baselines,)] + [TRUTH]
        return save_report(evaluation, rows, *names)


def baseline_systems(studio: Studio) -> list[System]:
    """Source unchanged, rest pose, nearest lips by mesh warp; with the packaged checkpoint."""
    engine = studio.dubber

    def persona(video: Path, speaker: str) -> Persona:
        return studio.persona(Clip(video, speaker))

    parts = (engine.weights, engine.device, engine.checkpoint)
    return [
        UnchangedSystem(UNCHANGED),
        EngineSystem(REST, RestingDubber(*parts), "rest", persona),
        EngineSystem(WARP, WarpingDubber(*parts), "warp", persona),
    ]


def write_protocol(
    folder: Path, manifest: Path | None, output: Path, name: str, role: str = "dev"
) -> EvaluationProtocol:
    """Write a protocol file of every protocol over the clips of a folder.

    Raises:
        InputNotFound: no such folder or manifest.
        OptionInvalid: no clip, or of one speaker only.
        OutputUnwritable, DiskFull: see `save_bytes`.
    """
    clips = load_clips(folder, manifest, role)
    if not clips:
        raise OptionInvalid(f"{folder} holds no clip that counts")
    protocol = make_protocol(clips, folder.resolve(), name)
    protocol.save(output)
    return protocol
