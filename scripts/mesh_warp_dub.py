"""Dubs a video with no renderer: the nearest lip reference, pasted by a mesh warp.

    python scripts/mesh_warp_dub.py VIDEO AUDIO OUTPUT

A baseline as a program of its own, for
`dub evaluate PROTOCOL --command "warp=python scripts/mesh_warp_dub.py {video} {audio} {output}"`.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from dubbing.errors import DubbingError
from dubbing.evaluation.baselines import WarpingDubber
from dubbing.options import DubOptions


def main(arguments: list[str] | None = None) -> int:
    """Exit status: 0, or that of the error."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("video", type=Path)
    parser.add_argument("audio", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"))
    args = parser.parse_args(arguments)
    try:
        dubber = WarpingDubber.from_pretrained(device=args.device)
        options = DubOptions(overwrite=True, audio_codec="aac")
        report = dubber.dub(args.video, args.audio, args.output, options)
    except DubbingError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    print(f"{args.output}: {report.output.frames} frames")
    return 0


if __name__ == "__main__":
    sys.exit(main())
