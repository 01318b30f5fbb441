"""Draws source, dub and (where there is one) truth side by side, with mouth close-ups, as a PNG.

    python scripts/contact_sheet.py SOURCE OUTPUT PNG [--truth VIDEO] [--frames N]

Moments are taken evenly over the clip. Tiles of the output are cut where the source's face is.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from dubbing.errors import DubbingError
from dubbing.evaluation.sheets import contact_sheet, save_png


def main(arguments: list[str] | None = None) -> int:
    """Exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("source", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("png", type=Path, help="the picture to write")
    parser.add_argument("--truth", type=Path, help="a third video, shown below the others")
    parser.add_argument("--frames", type=int, default=8, help="moments shown (8)")
    args = parser.parse_args(arguments)
    if args.frames < 1:
        parser.error("--frames has to be at least 1")
    try:
        sheet = contact_sheet(args.source, args.output, args.truth, args.frames)
        save_png(args.png, sheet)
    except DubbingError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    print(args.png)
    return 0


if __name__ == "__main__":
    sys.exit(main())
