"""The command line `dub`: parses, calls the API, and maps exceptions to exit codes."""

from __future__ import annotations

import functools
import json
import logging
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import fields
from importlib import import_module
from importlib.metadata import version as installed_version
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from dubbing.cli_batch import batch
from dubbing.console import shown_progress
from dubbing.errors import DubbingError, OptionInvalid
from dubbing.evaluation.evaluation_options import EvaluateOptions
from dubbing.face.limits import FaceLimits
from dubbing.options import DubOptions, check_device_name
from dubbing.options_cli import with_options
from dubbing.progress import ProgressCallback
from dubbing.speaker_choice import mapped
from dubbing.stopping import StopSignals
from dubbing.training.options import (
    GeometryTrainOptions,
    PrepareOptions,
    RendererTrainOptions,
    StyleTrainOptions,
    SyncTrainOptions,
)

if TYPE_CHECKING:
    from dubbing.dubber import Dubber

app = typer.Typer(
    help="Dub a video: the speaker's lips follow a new speech track, everything else stays.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,  # its boxes cut long option names off
    pretty_exceptions_enable=False,
)
train = typer.Typer(
    help="Train the networks on footage of your own.", no_args_is_help=True, rich_markup_mode=None
)
app.add_typer(train, name="train")
app.add_typer(batch, name="batch")
export = typer.Typer(
    help="Write networks in other formats.", no_args_is_help=True, rich_markup_mode=None
)
app.add_typer(export, name="export")

DeviceOption = Annotated[
    str, typer.Option(metavar="auto|cpu|cuda", help="Where the networks run; 'auto' takes a GPU.")
]
CheckpointOption = Annotated[
    str, typer.Option(help="Name of a shipped checkpoint, or a folder that holds one.")
]
QuietOption = Annotated[bool, typer.Option("--quiet", help="Show nothing but errors.")]
SPEAKER_FIELDS = ("speaker", *(f.name for f in fields(FaceLimits)), "max_pixels", "max_duration")
VideoArgument = Annotated[Path, typer.Argument(metavar="VIDEO", help="Video of the speaker.")]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line on `arguments` (default: those of the process); the exit status.

    0 is success, 2 a command line that does not parse; each class of `dubbing.errors` has its own.
    """
    try:
        app(args=None if arguments is None else list(arguments), prog_name="dub")
    except DubbingError as error:
        for note in getattr(error, "__notes__", ()):
            typer.echo(note, err=True)
        typer.echo(f"error: {error}", err=True)
        return error.exit_code
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    return 0


_signals = StopSignals()


def _cancellable(command: Callable[..., None]) -> Callable[..., None]:
    """Turn Ctrl-C and SIGTERM into the engine's own Cancelled, which has a message and an exit
    status."""

    @functools.wraps(command)
    def run(*positional: Any, **values: Any) -> None:
        with _signals:
            command(*positional, **values)

    return run


@contextmanager
def _progress(quiet: bool) -> Iterator[ProgressCallback]:
    """Progress shown on stderr; it also ends a job that has been asked to stop."""
    with shown_progress(sys.stderr, quiet=quiet) as progress:
        yield _signals.watched(progress)


def _loaded(checkpoint: str, device: str) -> Dubber:
    """The engine; only commands that need it pay for its import."""
    from dubbing.dubber import Dubber
    from dubbing.threads import settle_threads

    settle_threads()
    return Dubber.from_pretrained(checkpoint, device=device)


@app.command("run", no_args_is_help=True)
@with_options(DubOptions)
@_cancellable
def run_command(
    video: VideoArgument,
    output: Annotated[Path, typer.Option("--output", "-o", help="The dubbed video to write.")],
    options: DubOptions,
    audio: Annotated[
        Path | None, typer.Argument(metavar="AUDIO", help="The new speech, of one speaker.")
    ] = None,
    speeches: Annotated[
        list[str] | None,
        typer.Option(
            "--map",
            metavar="SPEAKER=AUDIO",
            help="In place of AUDIO, once per speaker: who (as --speaker says it) says what.",
        ),
    ] = None,
    mix: Annotated[
        Path | None,
        typer.Option(
            help="With --map: the sound of the result. Default: the speeches, added together."
        ),
    ] = None,
    device: DeviceOption = "auto",
    checkpoint: CheckpointOption = "default",
    persona: Annotated[
        Path | None, typer.Option(help="Speaker prepared by 'dub persona', to save that work.")
    ] = None,
    quiet: QuietOption = False,
) -> None:
    """Dub VIDEO with AUDIO, or several of its speakers with one speech each."""
    check_device_name(device)
    said = mapped(speeches or [])
    if (audio is None) == (not said):
        raise OptionInvalid("give either AUDIO or one --map SPEAKER=AUDIO per speaker")
    if (said and persona is not None) or (mix is not None and not said):
        raise OptionInvalid("--persona is for one speaker, --mix for several with --map")
    from dubbing.persona import Persona

    dubber = _loaded(checkpoint, device)
    prepared = Persona.load(persona) if persona else None
    with _progress(quiet) as progress:
        if audio is None:
            report = dubber.dub_speakers(video, said, output, options, mix, progress)
        else:
            report = dubber.dub(video, audio, output, options, prepared, progress)
    if not quiet:
        for warning in report.warnings:
            typer.echo(f"warning: {warning}", err=True)
        typer.echo(f"{output}: {report.output.frames} frames at {report.fps:.1f} fps")


@app.command("persona", no_args_is_help=True)
@with_options(DubOptions, only=(*SPEAKER_FIELDS, "style", "adapt"))
@_cancellable
def persona_command(
    video: VideoArgument,
    output: Annotated[Path, typer.Option("--output", "-o", help="The persona file to write.")],
    options: DubOptions,
    device: DeviceOption = "auto",
    checkpoint: CheckpointOption = "default",
    quiet: QuietOption = False,
) -> None:
    """Learn the speaker of VIDEO once, so that many dubs of that video pay once."""
    check_device_name(device)
    dubber = _loaded(checkpoint, device)
    with _progress(quiet) as progress:
        persona = dubber.prepare(video, options=options, progress=progress)
        persona.save(output)
    if not quiet:
        typer.echo(f"{output}: persona of {video}")
        if persona.adaptation is not None:
            typer.echo(persona.adaptation.text)


@app.command("inspect", no_args_is_help=True)
@with_options(DubOptions, only=SPEAKER_FIELDS)
@_cancellable
def inspect_command(
    video: VideoArgument,
    options: DubOptions,
    output_dir: Annotated[
        Path | None,
        typer.Option(help="Folder for the preview sheet and the JSON. Default: VIDEO's name."),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the facts as JSON in place of tables.")
    ] = False,
    device: DeviceOption = "auto",
    checkpoint: CheckpointOption = "default",
    quiet: QuietOption = False,
) -> None:
    """Show what the engine sees in VIDEO: media, faces, references, what would pass through."""
    check_device_name(device)
    from dubbing.inspection_view import print_facts, save_inspection

    dubber = _loaded(checkpoint, device)
    with _progress(quiet) as progress:
        inspection = dubber.inspect(video, options, progress)
    facts = inspection.to_dict()
    saved = save_inspection(facts, inspection.preview, output_dir or Path(f"{video.stem}-inspect"))
    if as_json:
        typer.echo(json.dumps(facts, indent=2, ensure_ascii=False))
    elif not quiet:
        print_facts(facts, title=str(video))
        typer.echo(f"saved {saved.sheet} and {saved.facts}")


@app.command("clean", no_args_is_help=True)
def clean_command(
    output: Annotated[Path, typer.Argument(metavar="OUTPUT", help="Output of the stopped run.")],
) -> None:
    """Remove what a stopped 'dub run' has left beside OUTPUT."""
    from dubbing.job.folder import clean_state, state_path

    if clean_state(output):
        typer.echo(f"removed {state_path(output)}")
    else:
        typer.echo(f"nothing to remove: no run to {output} was stopped")


@app.command("evaluate", no_args_is_help=True)
@with_options(EvaluateOptions)
@_cancellable
def evaluate_command(
    protocol: Annotated[
        Path, typer.Argument(metavar="PROTOCOL", help="File with the cases, see 'dub protocol'.")
    ],
    options: EvaluateOptions,
    videos: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=FOLDER", help="Also judge finished videos FOLDER/CASE.mp4; repeatable."
        ),
    ] = None,
    command: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=TEMPLATE",
            help="Also run and judge a program, as in "
            "'peer=tool {video} {audio} {output}'; repeatable.",
        ),
    ] = None,
    device: DeviceOption = "auto",
    checkpoint: CheckpointOption = "default",
    quiet: QuietOption = False,
) -> None:
    """Measure dubbing systems on the cases of PROTOCOL, side by side with truth and baselines."""
    check_device_name(device)
    from dubbing.evaluation.run_evaluation import run_evaluation
    from dubbing.threads import settle_threads

    settle_threads()

    def note(text: str) -> None:
        if not quiet:
            typer.echo(text, err=True)

    with _progress(quiet) as progress:
        text = run_evaluation(
            protocol, options, videos or [], command or [], checkpoint, device, progress, note
        )
    if not quiet:
        typer.echo(text)
        typer.echo(f"{options.output / 'index.html'}")


@app.command("protocol", no_args_is_help=True)
@_cancellable
def protocol_command(
    folder: Annotated[
        Path, typer.Argument(metavar="FOLDER", help="Clips that carry their speakers' own sound.")
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="The protocol file to write.")],
    manifest: Annotated[
        Path | None,
        typer.Option(help="CSV with file, role and speaker; without it each clip is a speaker."),
    ] = None,
    role: Annotated[str, typer.Option(help="Lines of the manifest that count.")] = "dev",
    name: Annotated[str, typer.Option(help="Name of the protocol.")] = "dev",
) -> None:
    """Write the cases that 'dub evaluate' runs: which clip speaks with whose sound."""
    from dubbing.evaluation.run_evaluation import write_protocol

    protocol = write_protocol(folder, manifest, output, name, role)
    typer.echo(f"{output}: {len(protocol.cases)} cases, {protocol.digest()}")


@app.command("demo")
@_cancellable
def demo_command(
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for the files.")] = Path(
        "out/demo"
    ),
    device: DeviceOption = "auto",
    checkpoint: CheckpointOption = "default",
    quiet: QuietOption = False,
) -> None:
    """Dub an embedded speaker with embedded speech, and say where the result is."""
    check_device_name(device)
    from dubbing.demo import run_demo
    from dubbing.threads import settle_threads

    settle_threads()
    with _progress(quiet) as progress:
        report = run_demo(output, device=device, checkpoint=checkpoint, progress=progress)
    if not quiet:
        typer.echo(f"speaker: {report.video.path}")
        typer.echo(f"speech:  {report.audio.path}")
        typer.echo(f"dubbed:  {report.output.path}")


@export.command("onnx", no_args_is_help=True)
@_cancellable
def export_onnx_command(
    output: Annotated[Path, typer.Argument(metavar="OUTPUT", help="The .onnx file to write.")],
    checkpoint: CheckpointOption = "default",
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace the output file if it exists.")
    ] = False,
    quiet: QuietOption = False,
) -> None:
    """Write the renderer as ONNX, checked against torch."""
    from dubbing.export import export_renderer
    from dubbing.weights import RENDERER, load_renderer, resolve

    renderer = load_renderer(resolve(checkpoint) / f"{RENDERER}.safetensors")
    made = export_renderer(renderer, output, overwrite)
    if not quiet:
        typer.echo(
            f"{made.path}: {made.bytes / 1e6:.1f} MB, differs from torch by {made.difference:.1e}"
        )


@app.command("version")
def version_command() -> None:
    """Print the version of the engine."""
    typer.echo(installed_version("persona-dub"))


def _train_command(module: str) -> Callable[..., None]:
    def command(options: object) -> None:
        logging.basicConfig(format="%(message)s")
        logging.getLogger("dubbing").setLevel(logging.INFO)  # what training says of itself
        # the training modules import torch: only the command that is run pays for that
        run = cast(Callable[[object], object], import_module(module).run)
        run(options)

    return _cancellable(command)


for _name, _kind, _help in (
    ("prepare", PrepareOptions, "Track, filter and store footage for training."),
    ("geometry", GeometryTrainOptions, "Train stage 1: speech to lower-face geometry."),
    ("renderer", RendererTrainOptions, "Train stage 2: geometry and references to pixels."),
    ("sync", SyncTrainOptions, "Train the experts that tell whether sound and mouth fit."),
    ("style", StyleTrainOptions, "Train the encoder that compares speaking styles."),
):
    _command = with_options(_kind)(_train_command(f"dubbing.training.{_name}"))
    train.command(_name, help=_help, no_args_is_help=True)(_command)


if __name__ == "__main__":
    sys.exit(main())
