"""Run the table of footage cases and print a row for each: case, pass, figure.

python scripts/footage.py                 # the short cases
python scripts/footage.py --long          # all of them
python scripts/footage.py --only alpha    # topics or names that hold a word
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from dubbing.evaluation.cases.registry import Bench, run_cases
from dubbing.evaluation.cases.table import all_cases


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--long", action="store_true", help="also run the long cases")
    parser.add_argument("--only", default="", help="cases whose topic or name holds this")
    arguments = parser.parse_args()
    chosen = [
        item
        for item in all_cases()
        if (arguments.long or not item.long) and arguments.only in f"{item.topic}: {item.name}"
    ]
    counts = {"pass": 0, "FAIL": 0, "skip": 0}
    with tempfile.TemporaryDirectory() as folder:
        for row in run_cases(chosen, Bench(Path(folder))):
            counts[row.status] += 1
            name = f"{row.case.topic}: {row.case.name}"
            print(f"{row.status:4}  {name:66}  {row.figure}  [{row.seconds:.1f} s]", flush=True)
    print(f"{counts['pass']} passed, {counts['FAIL']} failed, {counts['skip']} skipped")
    return 1 if counts["FAIL"] or not chosen else 0


if __name__ == "__main__":
    sys.exit(main())
