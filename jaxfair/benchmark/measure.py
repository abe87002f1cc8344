"""What a private step costs: `python -m jaxfair.benchmark --config FILE.py --out FILE.json`.

For each model: the sum of gradients without privacy, clipped by vmap, and clipped the fast
way, in interleaved rounds; beside each speed its relative error against a loop over single
examples, its memory, its compile time and its share of the machine's matrix-product
ceiling. `--devices 1,2` runs one process per count. Batches are made up; no data is read.
"""

import functools
import json
import os
import pathlib
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags
from jax.sharding import Mesh, PartitionSpec
from ml_collections import ConfigDict

from jaxfair import files, runlog, stopwatch
from jaxfair.config import parse_command
from jaxfair.errors import InputError
from jaxfair.mesh import AXIS, make_mesh
from jaxfair.methods.base import PyTree
from jaxfair.privacy import clipping, fast
from jaxfair.workload import PRECISIONS, Workload, make_workload

__all__ = ["main", "run"]

WAYS = ("non-private", "vmap", "fast")
COLUMNS = {
    "work": "work",
    "way": "way",
    "devices": "devices",
    "precision": "precision",
    "batch": "batch",
    "examples/s": "examples_per_second",
    "x non-private": "ratio",
    "(CPU time)": "cpu_ratio",
    "MiB": "memory_mib",
    "compile s": "compile_seconds",
    "error": "relative_error",
    "% GEMM": "percent_of_gemm",
    "largest": "largest_batch",
}


def run(config: ConfigDict, out: str | os.PathLike[str], *, devices: Sequence[int] = (1,)) -> Any:
    """Measures every work of `config.works` on each device count and writes `out` (json).

    Returns the content: `{"environment": {...}, "ceilings": {...}, "rows": [...]}`, one
    row per work, way, device count and precision. Raises InputError for a work that is not
    in the config, or a device count that the machine does not have.
    """
    missing = sorted(set(config.only or ()) - set(config.works))
    if missing:
        raise InputError(f"only = {missing} are no works; known are {', '.join(config.works)}.")
    parts = [_in_own_process(config, count) for count in devices]
    content = {
        "environment": parts[0]["environment"],
        "ceilings": parts[0]["ceilings"],
        "rows": [row for part in parts for row in part["rows"]],
    }
    files.write_json(out, content)
    return content


def measure(config: ConfigDict, *, devices: int) -> dict[str, Any]:
    """Measures every work in this process, on the first `devices` devices."""
    mesh, rows, limits = make_mesh(devices), [], {}
    for precision in config.precisions:
        with jax.default_matmul_precision(PRECISIONS.get(precision, "highest")):
            limits[precision] = stopwatch.ceilings(precision)
            for name in config.only or config.works:
                gflops = limits[precision]["gemm_gflops"]
                rows += _measure_work(config, name, mesh, precision, gflops)
    names = [f"{d.device_kind} ({d.platform})" for d in mesh.devices.flat]
    return {"environment": runlog.environment(names), "ceilings": limits, "rows": rows}


def _measure_work(
    config: ConfigDict, name: str, mesh: Mesh, precision: str, gflops: float
) -> list[dict[str, Any]]:
    spec = config.works[name]
    count = -(-spec.batch // mesh.size) * mesh.size
    work = make_workload(spec, rows=count, precision=precision)
    arguments = (work.params, work.frozen, work.batch, work.keys, jnp.ones(count, bool))
    ways = {way: _sum_fn(way, work, mesh, config.l2_clip_norm) for way in config.ways}
    built = {way: stopwatch.build(fun, *arguments) for way, fun in ways.items()}
    calls = {way: functools.partial(b.call, *arguments) for way, b in built.items()}
    times = stopwatch.interleaved(calls, rounds=config.rounds, seconds=config.seconds)
    shared = {"work": name, "devices": mesh.size, "precision": precision, "batch": count}
    rows = []
    for way, made in built.items():
        row = {**shared, "way": way, **_speed(times[way], times[config.ways[0]], count)}
        row |= {"compile_seconds": made.compile_seconds, "memory_mib": made.memory_mib}
        row |= _errors(way, made.call, work, arguments, config) if config.check else {}
        row |= _roofline(built[config.ways[0]], row["seconds"]["median"], gflops * mesh.size)
        if config.largest_batch:
            row |= _largest_batch(spec, way, work, mesh, made.memory_mib, count, config)
        rows.append(row)
        print(_line(row), file=sys.stderr, flush=True)
    return rows


def _sum_fn(way: str, work: Workload, mesh: Mesh, clip: float) -> Callable[..., PyTree]:
    """Returns `(params, frozen, batch, keys, mask) -> sum over all devices`."""
    if way not in WAYS:
        raise InputError(f"The way {way!r} is none of {', '.join(WAYS)}.")

    def local(params: PyTree, frozen: PyTree, batch: PyTree, keys: Any, mask: Any) -> PyTree:
        loss_fn = lambda p, example, key: work.loss_fn(p, frozen, example, key)
        if way == "non-private":
            total = clipping.summed_grads(loss_fn, params, batch, keys, mask)
        else:
            summed = clipping.clipped_sum if way == "vmap" else fast.clipped_sum
            total = summed(loss_fn, params, batch, keys, mask, l2_clip_norm=clip)
        return jax.lax.psum(total, AXIS)

    one, many = PartitionSpec(), PartitionSpec(AXIS)
    specs = (one, one, many, many, many)
    return jax.shard_map(local, mesh=mesh, in_specs=specs, out_specs=one, check_vma=False)


def _speed(taken: np.ndarray, base: np.ndarray, count: int) -> dict[str, Any]:
    seconds = stopwatch.summary(taken[:, 0])
    ratio, cpu = (stopwatch.summary(taken[:, i] / base[:, i]) for i in (0, 1))
    return {
        "seconds": seconds,
        "cpu_seconds": stopwatch.summary(taken[:, 1]),
        "rounds": len(taken),
        "examples_per_second": count / seconds["median"],
        "ratio": ratio["median"],
        "ratio_spread": ratio,
        "cpu_ratio": cpu["median"],
    }


def _roofline(plain: stopwatch.Built, seconds: float, gflops: float) -> dict[str, float]:
    """Useful work is that of the non-private sum, whichever way it was done."""
    return {
        "useful_gflop": plain.flops / 1e9,
        "useful_gbytes": plain.bytes_accessed / 1e9,
        "percent_of_gemm": 100 * plain.flops / 1e9 / seconds / gflops,
    }


def _errors(
    way: str, call: Any, work: Workload, arguments: Any, config: ConfigDict
) -> dict[str, float]:
    """Relative errors against a loop over single examples, of all, and of the last alone."""
    *rest, mask = arguments
    clip = None if way == "non-private" else config.l2_clip_norm
    total, last = _loop(work, clip)
    alone = jnp.arange(len(mask)) == len(mask) - 1
    return {
        "relative_error": _difference(call(*arguments), total),
        "isolation_error": _difference(call(*rest, alone), last),
    }


def _loop(work: Workload, clip: float | None) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """The (clipped) sum of single-example gradients in float64, and the last one."""
    grad = jax.jit(jax.grad(work.loss_fn))
    total: list[np.ndarray] = []
    for i in range(len(work.keys)):
        example = jax.tree.map(lambda x, i=i: x[i], work.batch)
        leaves = jax.tree.leaves(grad(work.params, work.frozen, example, work.keys[i]))
        single = [np.asarray(g, np.float64) for g in leaves]
        norm = np.sqrt(sum(np.sum(g * g) for g in single))
        bound = np.inf if clip is None else clip * (1 - clipping.CLIP_MARGIN)
        single = [g * min(1.0, bound / norm) for g in single]
        total = [a + g for a, g in zip(total, single, strict=True)] if total else single
    return total, single


def _difference(tree: PyTree, truth: list[np.ndarray]) -> float:
    leaves = [np.asarray(x, np.float64) for x in jax.tree.leaves(tree)]
    apart = sum(np.sum((x - y) ** 2) for x, y in zip(leaves, truth, strict=True))
    return float(np.sqrt(apart / sum(np.sum(y * y) for y in truth)))


def _largest_batch(
    spec: ConfigDict, way: str, work: Workload, mesh: Mesh, mib: float, count: int, config: Any
) -> dict[str, Any]:
    """Examples that fit in `memory_gib` per device: two compiles, and a line through them."""
    half = max(mesh.size, count // 2 // mesh.size * mesh.size)
    shrink = lambda x: jax.ShapeDtypeStruct((half, *x.shape[1:]), x.dtype)
    batch, keys = jax.tree.map(shrink, (work.batch, work.keys))
    mask = jax.ShapeDtypeStruct((half,), bool)
    fun = _sum_fn(way, work, mesh, config.l2_clip_norm)
    low = stopwatch.build(fun, work.params, work.frozen, batch, keys, mask).memory_mib
    if half == count or mib <= low:
        return {"largest_batch": None}
    per_row = (mib - low) / (count - half)
    room = config.memory_gib * 2**10 - (mib - per_row * count)
    return {"largest_batch": int(room / per_row) * mesh.size, "memory_gib": config.memory_gib}


def _in_own_process(config: ConfigDict, devices: int) -> dict[str, Any]:
    """The number of devices is fixed before jax starts, so each count has its own process."""
    with tempfile.TemporaryDirectory() as folder:
        given, found = pathlib.Path(folder, "config.json"), pathlib.Path(folder, "out.json")
        given.write_text(config.to_json())
        env = dict(os.environ)
        host = f"--xla_force_host_platform_device_count={devices}"
        env["XLA_FLAGS"] = f"{env.get('XLA_FLAGS', '')} {host}".strip()
        code = "import sys; from jaxfair import benchmark; benchmark._child(*sys.argv[1:])"
        command = [sys.executable, "-c", code, str(given), str(found), str(devices)]
        done = subprocess.run(command, env=env, check=False)
        if done.returncode or not found.exists():
            raise InputError(f"The process with {devices} devices ended without a result.")
        return json.loads(found.read_text())


def _child(given: str, found: str, devices: str) -> None:
    config = ConfigDict(json.loads(pathlib.Path(given).read_text()))
    files.write_json(found, measure(config, devices=int(devices)))


def _line(row: dict[str, Any]) -> str:
    show = lambda v: f"{v:.3g}" if isinstance(v, float) else str(v)
    return "  ".join(f"{k} {show(row.get(v))}" for k, v in COLUMNS.items())


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Returns the rows as a Markdown table."""
    show = lambda v: "" if v is None else f"{v:.3g}" if isinstance(v, float) else str(v)
    lines = ["| " + " | ".join(COLUMNS) + " |", "|" + "---|" * len(COLUMNS)]
    lines += ["| " + " | ".join(show(r.get(c)) for c in COLUMNS.values()) + " |" for r in rows]
    return "\n".join(lines)


def _define_flags(values: flags.FlagValues) -> None:
    flags.DEFINE_string("out", None, "file for the result (json)", flag_values=values)
    flags.DEFINE_list("devices", ["1"], "device counts, one process each", flag_values=values)


def main(argv: Sequence[str]) -> int:
    """Runs the command; returns its exit status: 0, or 2 for refused input."""
    try:
        config, values = parse_command(argv, _define_flags)
        if not values["out"].value:
            raise InputError("Give --out FILE.json: it holds the result.")
        if not all(d.isdigit() and int(d) > 0 for d in values["devices"].value):
            raise InputError(f"--devices {values['devices'].value} must be counts such as 1,2,4.")
        counts = [int(d) for d in values["devices"].value]
        content = run(config, values["out"].value, devices=counts)
    except InputError as error:
        print(error, file=sys.stderr)
        return 2
    print(table(content["rows"]))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv))
