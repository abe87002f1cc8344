"""Measures what a private step costs.

    jaxfair benchmark --config throughput:quick --out FILE.json

For each model: the sum of gradients without privacy, clipped by vmap, and clipped the fast
way, in interleaved rounds; beside each speed its relative error against a loop over single
examples, its memory, its compile time and its share of the machine's matrix-product
ceiling. `--devices 1,2` runs one process per count. Batches are made up; no data is read.
`--budget_s 240` measures in the order of `config.only`, writes each work as it is measured, and
ends in time. `--explain` adds each leaf alone, predicted and measured.
"""

import dataclasses
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from typing import Any

from ml_collections import ConfigDict

from jaxfair.benchmark import results
from jaxfair.benchmark.config import BenchmarkConfig, sections
from jaxfair.benchmark.measure import COLUMNS
from jaxfair.cli import Command, Flag, Line, execute
from jaxfair.cli.fields import checked
from jaxfair.errors import InputError

__all__ = ["COMMAND", "main", "run", "table"]


def run(
    config: ConfigDict,
    out: str | os.PathLike[str],
    *,
    devices: Sequence[int] = (1,),
    budget_s: float | None = None,
) -> Any:
    """Measures every work of `config.works` on each device count and writes `out` (json).

    Returns the content: `{"environment": {...}, "ceilings": {...}, "rows": [...]}`, one
    row per work, way, device count and precision. Works that `out` holds already and that
    are not in `config.only` stay there if nothing else has changed (`results.write`). Raises
    InputError for a work that is not in the config, or a device count that the machine does
    not have.

    Args:
      budget_s: seconds after which the process that measures is ended; what it has measured by
        then stands in `out`. For one device count.
    """
    missing = sorted(set(config.only or ()) - set(config.works))
    if missing:
        raise InputError(f"only = {missing} are no works; known are {', '.join(config.works)}.")
    if budget_s is not None:
        return _within(config, out, devices, budget_s)
    parts = [_in_own_process(config, count) for count in devices]
    content = {
        "environment": parts[0]["environment"],
        "ceilings": parts[0]["ceilings"],
        "rows": [row for part in parts for row in part["rows"]],
    }
    return results.write(out, content)


def _within(
    config: ConfigDict, out: str | os.PathLike[str], devices: Sequence[int], budget_s: float
) -> Any:
    """Measures until the budget is spent; returns what stands in `out` then."""
    begun, path = time.time(), pathlib.Path(out)
    if len(devices) != 1:
        raise InputError(f"--budget_s is for one device count; --devices has {len(devices)}.")
    _in_own_process(config, devices[0], (str(path.absolute()), str(budget_s)), budget_s)
    if not path.exists() or path.stat().st_mtime < begun:
        raise InputError(
            f"--budget_s {budget_s:g} was over before one work was measured: give more seconds, or "
            "fewer works by --config.only."
        )
    return json.loads(path.read_text())


def _in_own_process(
    config: ConfigDict, devices: int, more: tuple[str, ...] = (), limit: float | None = None
) -> dict[str, Any]:
    """The number of devices is fixed before jax starts, so each count has its own process.

    Without preallocation on a GPU, for several processes on one card starve each other; after
    `limit` seconds it is ended.
    """
    with tempfile.TemporaryDirectory() as folder:
        given, found = pathlib.Path(folder, "config.json"), pathlib.Path(folder, "out.json")
        given.write_text(config.to_json())
        env = dict(os.environ)
        host = f"--xla_force_host_platform_device_count={devices}"
        env["XLA_FLAGS"] = f"{env.get('XLA_FLAGS', '')} {host}".strip()
        module = [sys.executable, "-m", "jaxfair.benchmark.measure"]
        env.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
        command = [*module, str(given), str(found), str(devices), *more]
        try:
            done = subprocess.run(command, env=env, check=False, timeout=limit)
        except subprocess.TimeoutExpired:
            return {}
        if done.returncode or not found.exists():
            raise InputError(f"The process with {devices} devices ended without a result.")
        return json.loads(found.read_text())


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Returns the rows as a Markdown table."""
    show = lambda v: "" if v is None else f"{v:.3g}" if isinstance(v, float) else str(v)
    lines = ["| " + " | ".join(COLUMNS) + " |", "|" + "---|" * len(COLUMNS)]
    lines += ["| " + " | ".join(show(r.get(c)) for c in COLUMNS.values()) + " |" for r in rows]
    return "\n".join(lines)


def _counts(texts: Sequence[str]) -> list[int]:
    if not texts or not all(text.isdigit() and int(text) > 0 for text in texts):
        raise InputError(f"--devices {','.join(texts)} must be counts such as 1,2,4.")
    return [int(text) for text in texts]


COMMAND = Command(
    name="benchmark",
    about=__doc__,
    flags=(
        Flag("out", str, None, "file for the result (json)"),
        Flag("devices", list, ["1"], "device counts, one process each"),
        Flag("budget_s", float, None, "seconds, after which what was measured is all"),
        Flag("explain", bool, False, "each leaf alone: predicted and measured milliseconds"),
    ),
    sections=sections,
)


def main(argv: Sequence[str]) -> int:
    """Runs the command; returns its exit status: 0, or 2 for refused input."""
    return execute(COMMAND, argv, _act)


def _act(line: Line) -> int:
    config = ConfigDict(dataclasses.asdict(checked(BenchmarkConfig, line.config.to_dict(), "")))
    if not line.flags["out"]:
        raise InputError("Give --out FILE.json: it holds the result.")
    counts, budget = _counts(line.flags["devices"] or []), line.flags["budget_s"]
    if budget is not None and not budget > 0:
        raise InputError(f"--budget_s is {budget:g}; it must be a positive number of seconds.")
    config.explain = config.explain or line.flags["explain"]
    print(table(run(config, line.flags["out"], devices=counts, budget_s=budget)["rows"]))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv))
