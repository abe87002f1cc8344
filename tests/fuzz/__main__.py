"""Reads damaged files of every format: `python -m tests.fuzz [--files N] [--seed S] [--keep DIR]`.

Ends with 1 where a file ended its process, took more time or memory than it may, or was lost.
"""

import argparse
import pathlib
import sys
import tempfile
import time

from tests.fuzz.run import FATAL, fuzz, kept, summary


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--files", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=pathlib.Path, help="folder for the files that failed")
    parser.add_argument("--processes", type=int, help="default: one a core")
    chosen = parser.parse_args()
    start = time.monotonic()
    with tempfile.TemporaryDirectory() as place:
        folder = pathlib.Path(place)
        outcomes = fuzz(
            chosen.files, chosen.seed, folder, processes=chosen.processes, progress=True
        )
        print(summary(outcomes, chosen.seed, time.monotonic() - start))
        if chosen.keep:
            print(*(f"kept: {name}" for name in kept(outcomes, folder, chosen.keep)), sep="\n")
    return int(any(outcome.verdict in FATAL for outcome in outcomes))


if __name__ == "__main__":
    sys.exit(main())
