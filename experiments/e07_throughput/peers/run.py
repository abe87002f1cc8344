"""Peers side by side: `make bench-peers`, or `python run.py --out FILE [--works fae ...]`.

Every way runs in its own process; the processes take turns, round after round, so that a
neighbour's load on the machine falls on all of them. Ratios are taken within a round. Works
that FILE holds already, measured by the same code on the same machine, stay in it.

On a GPU (torch and jax built for it): `--rows 512 --precision tf32`; one precision a call.
"""

import argparse
import importlib.metadata
import json
import os
import pathlib
import statistics
import subprocess
import sys
import time

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[2]))

from jaxfair.benchmark import results  # noqa: E402

WAYS = (
    "jaxfair",
    "jaxfair-vmap",
    "jaxfair-fast",
    "jax-privacy",
    "torch",
    "opacus-hooks",
    "opacus-ghost",
    "opacus-functorch",
)
ROWS = {"fae": 32, "resnet9_64": 32, "resnet9_128": 16}
PEERS = ("torch", "opacus", "jax-privacy")


class Worker:
    """One process of worker.py; `turn` runs it once."""

    def __init__(self, way: str, work: str, rows: int, clip: float, precision: str):
        command = [sys.executable, str(HERE / "worker.py"), way, work, str(rows), str(clip)]
        command.append(precision)
        self.way, self.turns = way, []
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=HERE
        )
        self.facts = self._read()

    def turn(self) -> None:
        self.process.stdin.write("step\n")
        self.process.stdin.flush()
        self.turns.append(self._read())

    def close(self) -> None:
        self.process.stdin.close()
        self.facts |= self._read()
        self.process.wait()

    def _read(self) -> dict:
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"The process of {self.way} ended; its error is above.")
        return json.loads(line)


def measure(
    work: str, rows: int, ways: list[str], rounds: int, seconds: float, precision: str
) -> list[dict]:
    load, workers = os.getloadavg()[0], []
    for way in ways:
        try:
            workers.append(Worker(way, work, rows, 0.01, precision))
        except RuntimeError as error:
            print(error, file=sys.stderr)
    begin = time.perf_counter()
    for done in range(rounds):
        if done >= 3 and time.perf_counter() - begin > seconds:
            break
        for worker in workers:
            worker.turn()
    for worker in workers:
        worker.close()
    if len({worker.facts["parameters"] for worker in workers}) > 1:
        raise RuntimeError(f"The models of {work} differ in the number of their parameters.")
    fast = next((w for w in workers if w.way == "jaxfair-fast"), workers[0])
    shared = {"precision": precision, "load_before": load}
    return [{**_row(work, rows, worker, fast), **shared} for worker in workers]


def _row(work: str, rows: int, worker: Worker, fast: Worker) -> dict:
    pairs = list(zip(worker.turns, fast.turns, strict=True))
    walls = sorted(turn["wall"] for turn in worker.turns)
    return {
        "work": work,
        "batch": rows,
        "way": worker.way,
        "rounds": len(walls),
        "seconds_median": statistics.median(walls),
        "seconds_min": walls[0],
        "seconds_max": walls[-1],
        "cpu_seconds_median": statistics.median(t["cpu"] for t in worker.turns),
        "examples_per_second": rows / statistics.median(walls),
        "fast_is_x_faster": statistics.median(a["wall"] / b["wall"] for a, b in pairs),
        "fast_is_x_faster_cpu": statistics.median(a["cpu"] / b["cpu"] for a, b in pairs),
        **worker.facts,
    }


COLUMNS = (
    *("work", "batch", "way", "examples_per_second"),
    *("seconds_median", "seconds_min", "seconds_max"),
    *("fast_is_x_faster", "fast_is_x_faster_cpu", "peak_process_mib"),
)


def table(rows: list[dict]) -> str:
    show = lambda v: f"{v:.3g}" if isinstance(v, float) else str(v)
    lines = ["| " + " | ".join(COLUMNS) + " |", "|" + "---|" * len(COLUMNS)]
    lines += ["| " + " | ".join(show(row[c]) for c in COLUMNS) + " |" for row in rows]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", required=True)
    parser.add_argument("--works", nargs="+", default=list(ROWS), choices=list(ROWS))
    parser.add_argument("--ways", nargs="+", default=list(WAYS), choices=list(WAYS))
    parser.add_argument("--rows", type=int, help="examples in the batch, instead of the default")
    parser.add_argument("--precision", default="float32", choices=["float32", "tf32", "bfloat16"])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=120.0)
    given = parser.parse_args()
    rows = []
    for work in given.works:
        count = given.rows or ROWS[work]
        rows += measure(work, count, given.ways, given.rounds, given.seconds, given.precision)
    environment = results.environment(sorted({row["device"] for row in rows}))
    environment["versions"] |= {name: importlib.metadata.version(name) for name in PEERS}
    written = results.write(given.out, {"environment": environment, "rows": rows})
    print(table(written["rows"]))


if __name__ == "__main__":
    main()
