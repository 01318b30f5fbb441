"""`dub batch`: parses, calls `dubbing.batch`, and says how it ended."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from dubbing.batch.options import BatchOptions
from dubbing.errors import OptionInvalid
from dubbing.options import DubOptions, check_device_name
from dubbing.options_cli import with_options
from dubbing.stopping import StopSignals

RUN = "run"


class JobsGroup(TyperGroup):
    """`dub batch JOBS ...` is `dub batch run JOBS ...`: what is no command is an argument."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if args and args[0] not in self.commands and args[0] not in ctx.help_option_names:
            args = [RUN, *args]
        return super().parse_args(ctx, args)


batch = typer.Typer(
    cls=JobsGroup,
    help="Dub thousands of videos: 'dub batch JOBS --output-dir DIR', 'dub batch status DIR'.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


@batch.command(RUN, no_args_is_help=True)
@with_options(DubOptions, leave_out=("report", "resume", "clean"))
@with_options(BatchOptions, "batch_options")
def run_command(
    jobs: Annotated[
        str,
        typer.Argument(
            metavar="JOBS",
            help="Jobs as JSON Lines or CSV (video, audio, output, and any option of 'dub run'), "
            "or a folder of videos with --pair.",
        ),
    ],
    output_dir: Annotated[str, typer.Option(help="Folder or URL for the results.")],
    options: DubOptions,
    batch_options: BatchOptions,
    sounds: Annotated[
        str | None, typer.Argument(metavar="[SPEECH]", help="With --pair: the folder of speech.")
    ] = None,
    pair: Annotated[
        str | None,
        typer.Option(
            metavar="stem|product",
            help="Pair two folders: files of one name (lesson.mp4 with lesson.de.wav), or every "
            "video with every speech.",
        ),
    ] = None,
    device: Annotated[
        str,
        typer.Option(metavar="auto|cpu|cuda", help="Where the networks run; 'auto' takes GPUs."),
    ] = "auto",
    checkpoint: Annotated[
        str, typer.Option(help="Name of a shipped checkpoint, or a folder that holds one.")
    ] = "default",
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the summary as JSON in place of tables.")
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="Show nothing but errors.")] = False,
) -> None:
    """Dub every job of JOBS into a folder. Options of 'dub run' hold for jobs that don't have
    their own.

    Ends with 0 if every job is done, with 30 + the number of failed jobs (at most 120) otherwise.
    """
    check_device_name(device)
    from dubbing.batch.jobs import read_jobs
    from dubbing.batch.pairing import pair_folders
    from dubbing.batch.runner import run_batch
    from dubbing.batch.view import JobLines, print_summary

    if pair is not None and sounds is not None:
        todo = pair_folders(jobs, sounds, pair, options)
    elif pair is None and sounds is None:
        todo = read_jobs(jobs, options)
    else:
        raise OptionInvalid("two folders and --pair belong together")
    with StopSignals("what is done is kept, --resume goes on"):
        summary = run_batch(
            todo,
            output_dir,
            batch_options,
            checkpoint=checkpoint,
            device=device,
            listener=None if quiet else JobLines(sys.stderr),
        )
    if as_json:
        typer.echo(summary.to_json(), nl=False)
    elif not quiet:
        print_summary(summary, sys.stdout)
    raise typer.Exit(summary.exit_code)


@batch.command("status", no_args_is_help=True)
def status_command(
    folder: Annotated[
        Path, typer.Argument(metavar="DIR", help="Output folder of a batch, or its --state-dir.")
    ],
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the state as JSON in place of tables.")
    ] = False,
) -> None:
    """Show how far the batch in DIR is, while it runs or after it."""
    from dubbing.batch.runner import batch_status
    from dubbing.batch.view import print_summary

    summary = batch_status(folder)
    if as_json:
        typer.echo(summary.to_json(), nl=False)
    else:
        print_summary(summary, sys.stdout)
