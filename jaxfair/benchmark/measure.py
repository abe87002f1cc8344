"""The measuring process: each work on a fixed number of devices, way beside way."""

import functools
import json
import os
import pathlib
import sys
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict

from jaxfair import files
from jaxfair.benchmark import results, stopwatch
from jaxfair.benchmark.workload import PRECISIONS, Workload, make_workload
from jaxfair.engine.chunk import unit_keys
from jaxfair.engine.mesh import make_mesh
from jaxfair.engine.step import sharded_sum
from jaxfair.errors import InputError
from jaxfair.methods.base import PyTree
from jaxfair.privacy.cliprules.apply import Sums
from jaxfair.privacy.config import PrivacyConfig
from jaxfair.privacy.plan import make_plan
from jaxfair.privacy.sums import clipping, rounding, twofloat

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


def measure(config: ConfigDict, *, devices: int) -> dict[str, Any]:
    """Measures every work in this process, on the first `devices` devices."""
    mesh, rows, limits = make_mesh(devices), [], {}
    for precision in config.precisions:
        with jax.default_matmul_precision(PRECISIONS.get(precision, "highest")):
            limits[precision] = stopwatch.ceilings(precision)
            for name in config.only or config.works:
                rows += _measure_work(config, name, mesh, precision, limits[precision])
    names = {f"{d.device_kind} ({d.platform})" for d in mesh.devices.flat}
    return {"environment": results.environment(sorted(names)), "ceilings": limits, "rows": rows}


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
    clip = rounding.bound(config.l2_clip_norm, count)  # as of the plan of `_sum_fn`
    truths = _loop(work, clip) if config.check else {}
    rows = []
    for way, made in built.items():
        row = {**shared, "way": way, **_speed(times[way], times[config.ways[0]], count)}
        row |= {"compile_seconds": made.compile_seconds, "memory_mib": made.memory_mib}
        row |= _errors(made.call, arguments, *truths[way == "non-private"]) if truths else {}
        row |= _roofline(built[config.ways[0]], row["seconds"]["median"], mesh, limits)
        if config.largest_batch:
            row |= _largest_batch(spec, way, work, mesh, made.memory_mib, count, config)
        rows.append(row)
        print(_line(row), file=sys.stderr, flush=True)
    return rows


def _sum_fn(way: str, work: Workload, mesh: Mesh, clip: float) -> Callable[..., PyTree]:
    """Returns the step's own sum, `(params, frozen, chunk, words) -> sum over all devices`."""
    if way not in WAYS:
        raise InputError(f"The way {way!r} is none of {', '.join(WAYS)}.")
    private, rows = way != "non-private", len(work.chunk.is_padding)
    promise = PrivacyConfig(enabled=private, l2_clip_norm=clip, clipping=way if private else "auto")
    plan = make_plan(promise, steps=1, expected_batch_size=rows, public_size=rows)
    add = sharded_sum(work.method, plan, mesh, rows)  # all rows of a device at once

    def total(params: PyTree, *given: Any) -> PyTree:
        nothing = jax.tree.map(lambda p: jnp.zeros(p.shape, jnp.float32), params)
        return add(params, *given, twofloat.from_float(Sums(nothing, {})), {}).high.grads

    return total


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
    call: Any, arguments: Any, total: list[np.ndarray], last: list[np.ndarray]
) -> dict[str, float]:
    """Relative errors against the loop over single examples, of all, and of the last alone."""
    *variables, chunk, words = arguments
    alone = jnp.arange(len(chunk.is_padding)) == len(chunk.is_padding) - 1
    return {
        "relative_error": _difference(call(*arguments), total),
        "isolation_error": _difference(
            call(*variables, chunk._replace(is_padding=~alone), words), last
        ),
    }


def _loop(work: Workload, clip: float) -> dict[bool, tuple[list[np.ndarray], list[np.ndarray]]]:
    """(sum, last summand) over single examples in float64; True: plain, False: clipped."""
    grad = jax.jit(jax.grad(lambda *row: work.method.loss(*row)[0]))
    keys = unit_keys(work.words, work.chunk.unit_id)
    plain: list[np.ndarray] = []
    clipped: list[np.ndarray] = []
    for i, key in enumerate(keys):
        example = jax.tree.map(lambda x, i=i: x[i], work.chunk.examples)
        leaves = jax.tree.leaves(grad(work.params, work.frozen, example, key))
        single = [np.asarray(g, np.float64) for g in leaves]
        norm = np.sqrt(sum(np.vdot(g, g) for g in single))
        scale = min(1.0, clip * (1 - clipping.CLIP_MARGIN) / norm)
        if not plain:
            plain, clipped = ([np.zeros_like(g) for g in single] for _ in range(2))
        for sum_plain, sum_clipped, g in zip(plain, clipped, single, strict=True):
            sum_plain += g
            sum_clipped += scale * g
    return {True: (plain, single), False: (clipped, [scale * g for g in single])}


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


def _main(given: str, found: str, devices: str) -> None:
    jax.config.update("jax_enable_compilation_cache", False)  # its seconds are a column
    config = ConfigDict(json.loads(pathlib.Path(given).read_text()))
    files.write_json(found, measure(config, devices=int(devices)))


if __name__ == "__main__":
    _main(*sys.argv[1:])
