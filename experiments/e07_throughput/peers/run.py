"""Peers side by side: `make bench-peers`, or `python run.py --out FILE [--works fae ...]`.

Every way runs in its own process; the processes take turns, round after round, so that a
neighbour's load on the machine falls on all of them. Ratios are taken within a round. Works
that FILE holds already, measured by the same code on the same machine, stay in it.

On a GPU (torch and jax built for it): `--budget_s 240 --precision tf32`; one precision a call. Then
one process after the other has the card, in order of worth, at the batches of GPU_ROWS; each row is
written as it is measured, and who runs out of memory is tried with half the batch, and says so.
"""

import argparse
import importlib.metadata
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
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
GPU_ROWS = {"fae": 512, "resnet18_224": 128, "resnet9_128": 256, "resnet9_3d": 64}
WORTH = ("jaxfair-fast", "jaxfair", "torch", "opacus-hooks", "opacus-ghost", "jax-privacy")
MEMORY = ("out of memory", "resource_exhausted", "outofmemory")
PEERS = ("torch", "opacus", "jax-privacy")


class Worker:
    """One process of worker.py; `turn` runs it once."""

    def __init__(self, way: str, work: str, rows: int, clip: float, precision: str, errors=None):
        command = [sys.executable, str(HERE / "worker.py"), way, work, str(rows), str(clip)]
        command.append(precision)
        self.way, self.turns = way, []
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, text=True,
            cwd=HERE, env={"XLA_PYTHON_CLIENT_PREALLOCATE": "false", **os.environ},
        )  # fmt: skip
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


def alone(work: str, rows: int, way: str, rounds: int, precision: str, until: float) -> Worker:
    """Returns a way's own process, done, at the largest of rows, rows / 2, ... that fits.

    `facts` then holds `out_of_memory_at`, the smallest batch that did not fit, or None. Raises
    RuntimeError where it ends for another reason.
    """
    failed = None
    while True:
        with tempfile.TemporaryFile("w+") as errors:
            try:
                worker = Worker(way, work, rows, 0.01, precision, errors)
                for done in range(rounds):
                    if done < 3 or time.monotonic() < until:
                        worker.turn()
                worker.close()
                worker.facts |= {"rows": rows, "out_of_memory_at": failed}
                return worker
            except RuntimeError:
                errors.seek(0)
                said = errors.read()
                if rows == 1 or not any(word in said.lower() for word in MEMORY):
                    raise RuntimeError(f"{way} ended: {said.strip()[-300:]}") from None
        failed, rows = rows, rows // 2


def budgeted(given: argparse.Namespace, keep) -> None:
    """Measures in order of worth until the budget is spent; `keep` gets the rows of each way."""
    until = time.monotonic() + given.budget_s
    for work in given.works or GPU_ROWS:
        rows, fast = given.rows or GPU_ROWS.get(work) or ROWS[work], None
        for way in given.ways or WORTH:
            if time.monotonic() > until:
                return
            load = {"precision": given.precision, "load_before": os.getloadavg()[0]}
            try:
                worker = alone(work, rows, way, given.rounds, given.precision, until)
            except RuntimeError as error:
                print(error, file=sys.stderr, flush=True)
                continue
            fast = fast or worker
            keep({**_row(work, worker.facts["rows"], worker, fast), **load})


def _row(work: str, rows: int, worker: Worker, fast: Worker) -> dict:
    pairs = list(zip(worker.turns, fast.turns))
    walls = sorted(turn["wall"] for turn in worker.turns)
    more = fast.facts.get("rows", rows) / rows  # who had half the batch did half the work
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
        "fast_is_x_faster": more * statistics.median(a["wall"] / b["wall"] for a, b in pairs),
        "fast_is_x_faster_cpu": more * statistics.median(a["cpu"] / b["cpu"] for a, b in pairs),
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
    known = list({**ROWS, **GPU_ROWS})
    parser.add_argument("--works", nargs="+", choices=known)
    parser.add_argument("--ways", nargs="+", choices=list(WAYS))
    parser.add_argument("--budget_s", type=float, help="one way after the other, so many seconds")
    parser.add_argument("--rows", type=int, help="examples in the batch, instead of the default")
    parser.add_argument("--precision", default="float32", choices=["float32", "tf32", "bfloat16"])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=120.0)
    given = parser.parse_args()
    rows: list[dict] = []
    if given.budget_s:
        budgeted(given, lambda row: (rows.append(row), write(given.out, rows)))
        return
    for work in given.works or ROWS:
        count, ways = given.rows or ROWS[work], given.ways or list(WAYS)
        rows += measure(work, count, ways, given.rounds, given.seconds, given.precision)
    write(given.out, rows)


def write(out: str, rows: list[dict]) -> None:
    environment = results.environment(sorted({row["device"] for row in rows}))
    environment["versions"] |= {name: version(name) for name in PEERS}
    written = results.write(out, {"environment": environment, "rows": rows})
    print(table(written["rows"]), flush=True)


def version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


if __name__ == "__main__":
    main()
