"""The measuring process: each work on a fixed number of devices, way beside way."""

import functools
import json
import os
import pathlib
import sys
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict

from jaxfair import files
from jaxfair.benchmark import leaves, results, stopwatch
from jaxfair.benchmark.workload import PRECISIONS, Workload, make_workload
from jaxfair.engine.chunk import unit_keys
from jaxfair.engine.mesh import make_mesh
from jaxfair.engine.step import sharded_sum
from jaxfair.errors import InputError
from jaxfair.methods.base import PyTree
from jaxfair.privacy.cliprules.apply import Sums
from jaxfair.privacy.config import PrivacyConfig
from jaxfair.privacy.plan import make_plan
from jaxfair.privacy.sums import choice, twofloat

__all__ = ["COLUMNS", "WAYS", "measure"]

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
    "alone": "isolation_error",
    "GFLOP": "useful_gflop",
    "% GEMM": "percent_of_gemm",
    "% copy": "percent_of_copy",
    "largest": "largest_batch",
}


Keep = Callable[[dict[str, Any]], Any]


def measure(
    config: ConfigDict, *, devices: int, until: float = float("inf"), keep: Keep | None = None
) -> dict[str, Any]:
    """Measures every work in this process, on the first `devices` devices.

    Args:
      until: `time.monotonic()` after which no further work and precision begins.
      keep: called with what was measured so far, after each.
    """
    mesh = make_mesh(devices)
    names = {f"{d.device_kind} ({d.platform})" for d in mesh.devices.flat}
    found: dict[str, Any] = {"environment": results.environment(sorted(names))}
    found |= {"ceilings": {}, "rows": []}
    works = config.only or tuple(config.works)
    for name, precision in ((n, p) for n in works for p in config.precisions):
        if time.monotonic() > until:
            break
        with jax.default_matmul_precision(PRECISIONS.get(precision, "highest")):
            limits = found["ceilings"].get(precision) or stopwatch.ceilings(precision)
            found["ceilings"][precision] = limits
            found["rows"] += _measure_work(config, name, mesh, precision, limits)
        if keep is not None:
            keep(found)
    return found


def _measure_work(
    config: ConfigDict, name: str, mesh: Mesh, precision: str, limits: dict[str, float]
) -> list[dict[str, Any]]:
    spec, load = config.works[name], os.getloadavg()[0]
    count = -(-spec.batch // mesh.size) * mesh.size
    work = make_workload(spec, rows=count, precision=precision)
    arguments = (work.params, work.frozen, work.chunk, work.words)
    ways = {way: _sum_fn(way, work, mesh, config.l2_clip_norm) for way in config.ways}
    built = {way: stopwatch.build(fun, *arguments) for way, fun in ways.items()}
    calls = {way: functools.partial(b.call, *arguments) for way, b in built.items()}
    times = stopwatch.interleaved(calls, rounds=config.rounds, seconds=config.seconds)
    shared = {"work": name, "devices": mesh.size, "precision": precision, "batch": count}
    shared |= {"load_before": load, **limits}
    some = config.check_rows or count
    truths = _loop(work, config.l2_clip_norm, min(some, count)) if config.check else {}
    rows = []
    for way, made in built.items():
        row = {**shared, "way": way, **_speed(times[way], times[config.ways[0]], count)}
        row |= {"compile_seconds": made.compile_seconds, "memory_mib": made.memory_mib}
        if truths:
            row |= _errors(made.call, arguments, some, *truths[how_of(way, work)])
        row |= _roofline(built[config.ways[0]], row["seconds"]["median"], mesh, limits)
        if config.largest_batch:
            row |= _largest_batch(spec, way, work, mesh, made.memory_mib, count, config)
        if config.explain and way == "fast":
            row |= {"leaves": leaves.compared(work, how_of(way, work), config.l2_clip_norm)}
            print(leaves.table(row["leaves"]), file=sys.stderr, flush=True)
        rows.append(row)
        print(_line(row), file=sys.stderr, flush=True)
    return rows


def _sum_fn(way: str, work: Workload, mesh: Mesh, clip: float) -> Callable[..., PyTree]:
    """Returns the step's own sum, `(params, frozen, chunk, words) -> sum over all devices`."""
    if way not in WAYS:
        raise InputError(f"The way {way!r} is none of {', '.join(WAYS)}.")
    how, rows = how_of(way, work), len(work.chunk.is_padding)
    promise = PrivacyConfig(
        enabled=how is not None,
        l2_clip_norm=clip,
        clipping=how.clipping if how else "auto",
        precision=how.precision if how else "float32",
    )
    plan = make_plan(promise, steps=1, expected_batch_size=rows, public_size=rows)
    add = sharded_sum(work.method, plan, mesh, rows)  # all rows of a device at once

    def total(params: PyTree, *given: Any) -> PyTree:
        nothing = jax.tree.map(lambda p: jnp.zeros(p.shape, jnp.float32), params)
        return add(params, *given, twofloat.from_float(Sums(nothing, {})), {}).high.grads

    return total


def how_of(way: str, work: Workload) -> choice.How | None:
    """Returns how a way makes its sum: the fast one in the precision of the work; None: plain."""
    precision = work.precision if way == "fast" else "float32"
    return None if way == "non-private" else choice.How(way, precision)


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


def _roofline(
    plain: stopwatch.Built, seconds: float, mesh: Mesh, limits: dict[str, float]
) -> dict[str, float]:
    """Useful work is that of the non-private sum, whichever way it was done.

    The compiler counts the work of one device; on CPU all devices share what one reaches alone.
    """
    device = mesh.devices.flat[0]
    several = mesh.size if device.platform == "cpu" else 1
    gflop, gbytes = several * plain.flops / 1e9, several * plain.bytes_accessed / 1e9
    return {
        "useful_gflop": gflop,
        "useful_gbytes": gbytes,
        "percent_of_gemm": 100 * gflop / seconds / limits["gemm_gflops"],
        "percent_of_copy": 100 * gbytes / seconds / limits["copy_gbytes"],
    }


def _errors(
    call: Any, arguments: Any, rows: int, total: list[np.ndarray], last: list[np.ndarray]
) -> dict[str, float]:
    """Relative errors against the loop over single examples, of `rows`, and of the last alone."""
    *variables, chunk, words = arguments
    number = jnp.arange(len(chunk.is_padding))
    alone, some = number == len(number) - 1, number < rows
    return {
        "relative_error": _difference(
            call(*variables, chunk._replace(is_padding=~some), words), total
        ),
        "isolation_error": _difference(
            call(*variables, chunk._replace(is_padding=~alone), words), last
        ),
    }


Summed = tuple[list[np.ndarray], list[np.ndarray]]


def _loop(work: Workload, clip: float, rows: int) -> dict[choice.How | None, Summed]:
    """(sum of the first rows, last example) in float64 by how it is made; None: unclipped."""
    grad = jax.jit(jax.grad(lambda *row: work.method.loss(*row)[0]))
    keys = unit_keys(work.words, work.chunk.unit_id)
    count = len(work.chunk.is_padding)
    hows = {how_of(way, work) for way in WAYS}
    sums: dict[choice.How | None, Summed] = {how: ([], []) for how in hows}
    for place, i in enumerate([*range(rows), count - 1]):
        example = jax.tree.map(lambda x, i=i: x[i], work.chunk.examples)
        leaves = jax.tree.leaves(grad(work.params, work.frozen, example, keys[i]))
        single = [np.asarray(g, np.float64) for g in leaves]
        norm = np.sqrt(sum(np.vdot(g, g) for g in single))
        for how in hows:
            scale = 1.0
            if how is not None:
                bound = choice.strict_bound(how, clip, count)  # as of the plan of `_sum_fn`
                scale = min(1.0, float(bound) / norm)
            total = sums[how][0] or [np.zeros_like(g) for g in single]
            own = [scale * g for g in single]
            added = [t + g for t, g in zip(total, own)] if place < rows else total
            sums[how] = (added, own)
    return sums


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
    chunk = jax.tree.map(shrink, work.chunk)
    fun = _sum_fn(way, work, mesh, config.l2_clip_norm)
    low = stopwatch.build(fun, work.params, work.frozen, chunk, work.words).memory_mib
    if half == count or mib <= low:
        return {"largest_batch": None}
    per_row = (mib - low) / (count - half)
    room = config.memory_gib * 2**10 - (mib - per_row * count)
    return {"largest_batch": int(room / per_row) * mesh.size, "memory_gib": config.memory_gib}


def _line(row: dict[str, Any]) -> str:
    show = lambda v: f"{v:.3g}" if isinstance(v, float) else str(v)
    return "  ".join(f"{k} {show(row.get(v))}" for k, v in COLUMNS.items())


def _main(given: str, found: str, devices: str, out: str = "", seconds: str = "inf") -> None:
    """Measures; with `out`, which a budget needs, everything is written there as it is measured."""
    jax.config.update("jax_enable_compilation_cache", False)  # its seconds are a column
    config = ConfigDict(json.loads(pathlib.Path(given).read_text()))
    keep = (lambda content: results.write(out, content)) if out else None
    until = time.monotonic() + float(seconds)
    files.write_json(found, measure(config, devices=int(devices), until=until, keep=keep))


if __name__ == "__main__":
    _main(*sys.argv[1:])
