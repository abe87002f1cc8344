"""Runs every sharp edge's test clean and with its fault: `python -m tests.privacy.mutations`.

An edge is caught if its test passes clean and fails, by an assertion, while the fault is in
place. A test that fails clean, or a fault that ends in any other error, is not caught. The
faults are put into the running process; a few processes share the edges.
"""

import argparse
import inspect
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import tests.conftest  # noqa: F401  (eight devices, before jax starts)
from tests.privacy.mutations.table import EDGES, Edge

ROOT = pathlib.Path(__file__).resolve().parents[3]
FAILURE = "Failed"
"""Name of what `pytest.fail` and an unmet `pytest.raises` raise."""


def main(argv: Sequence[str]) -> int:
    """Prints the table; returns 0 if every edge was caught, else 1."""
    parser = argparse.ArgumentParser(prog="python -m tests.privacy.mutations", description=__doc__)
    parser.add_argument("--workers", type=int, default=min(2, os.cpu_count() or 1))
    parser.add_argument("--only", default="", help="numbers of edges, as 1,5,9; all if left out")
    parser.add_argument("--in-process", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args(argv)
    numbers = [int(n) for n in options.only.split(",") if n] or sorted(EDGES)
    if options.in_process:
        for number in numbers:
            print(json.dumps(verdict(EDGES[number])), flush=True)
        return 0
    return _report(numbers, options.workers)


def verdict(edge: Edge) -> dict[str, Any]:
    """Returns number, title, `caught`, what happened clean and with the fault, and seconds."""
    begun = time.monotonic()
    clean = outcome(edge.test)
    with edge.fault():
        faulty = outcome(edge.test)
    return {
        "number": edge.number,
        "title": edge.title,
        "caught": clean == "passes" and faulty == "fails",
        "clean": clean,
        "faulty": faulty,
        "seconds": round(time.monotonic() - begun, 1),
    }


def outcome(test: Callable[..., None]) -> str:
    """Returns "passes", "fails" (an assertion), or the name and text of any other error."""
    with tempfile.TemporaryDirectory() as folder:
        given = {"tmp_path": pathlib.Path(folder)} if inspect.signature(test).parameters else {}
        try:
            test(**given)
        except AssertionError:
            return "fails"
        except BaseException as error:
            if type(error).__name__ == FAILURE:
                return "fails"
            if isinstance(error, KeyboardInterrupt):
                raise
            return f"{type(error).__name__}: {' '.join(str(error).split())[:160]}"
    return "passes"


def _report(numbers: list[int], workers: int) -> int:
    begun, verdicts = time.monotonic(), []
    for found in _verdicts(numbers, workers):
        verdicts.append(found)
        mark = "caught    " if found["caught"] else "NOT CAUGHT"
        print(
            f"{found['number']:2d}  {mark} {found['seconds']:5.1f} s  {found['title']}", flush=True
        )
        if not found["caught"]:
            print(f"      clean: {found['clean']}; with the fault: {found['faulty']}")
    caught = sum(found["caught"] for found in verdicts)
    print(f"{caught}/{len(numbers)} caught in {time.monotonic() - begun:.0f} s")
    return 0 if caught == len(numbers) else 1


def _verdicts(numbers: list[int], workers: int) -> Iterator[dict[str, Any]]:
    """Yields verdicts from `workers` processes, each with every n-th edge."""
    shares = [numbers[i::workers] for i in range(workers) if numbers[i::workers]]
    command = [sys.executable, "-m", "tests.privacy.mutations", "--in-process", "--only"]
    processes = [
        subprocess.Popen(
            [*command, ",".join(map(str, share))], stdout=subprocess.PIPE, text=True, cwd=ROOT
        )
        for share in shares
    ]
    for process in processes:
        assert process.stdout is not None
        yield from (json.loads(line) for line in process.stdout)
        process.wait()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
