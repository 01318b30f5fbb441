"""Damage media, persona and checkpoint files and see that nothing crashes, hangs or is left behind.

python scripts/fuzz.py --count 2000            # 2000 media and 2000 weight files
python scripts/fuzz.py --kinds dubs --count 30 # whole dubs
python scripts/fuzz.py --seed 1234 --count 1   # one case again
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

from dubbing.evaluation.fuzz.runner import KINDS, MEDIA, WEIGHTS, FuzzResult, run_fuzz


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--count", type=int, default=2000, help="damaged files of each kind")
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=[MEDIA, WEIGHTS])
    parser.add_argument("--seed", type=int, default=0, help="number of the first case")
    parser.add_argument("--keep", type=Path, help="folder in which failing files stay")
    arguments = parser.parse_args()
    failed = 0
    with tempfile.TemporaryDirectory() as temporary:
        for kind in arguments.kinds:
            folder = (arguments.keep or Path(temporary)) / kind
            folder.mkdir(parents=True, exist_ok=True)
            start = time.perf_counter()
            shown = 0

            def progress(result: FuzzResult) -> None:
                nonlocal shown
                for failure in result.failures[shown:]:
                    print(failure, flush=True)
                shown = len(result.failures)
                if result.cases % 200 == 0:
                    print(f"  {result.cases} done", flush=True)

            result = run_fuzz(kind, arguments.count, folder, arguments.seed, progress)
            seconds = time.perf_counter() - start
            print(f"{kind}: {result.cases} files, {len(result.failures)} failures, {seconds:.0f} s")
            for word, number in result.outcomes.most_common():
                print(f"  {number:6} {word}")
            failed += len(result.failures)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
