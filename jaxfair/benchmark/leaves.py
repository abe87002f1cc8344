"""Each leaf's norms and sum alone: the seconds that the cost rule predicts, and those it takes.

Only of the batched way, which goes leaf by leaf. On a CPU the rates are those of a CPU and the ways
those that a GPU takes.
"""

import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from jaxfair.benchmark import stopwatch
from jaxfair.benchmark.workload import Workload
from jaxfair.engine.chunk import unit_keys
from jaxfair.privacy.sums import batched, choice, clipping, costs, fast
from jaxfair.privacy.sums.batched import Prepared

__all__ = ["compared", "table"]

COLUMNS = ("leaf", "way", "predicted_ms", "norms_ms", "sum_ms")


def compared(work: Workload, how: Any, clip: float, *, rounds: int = 3) -> list[dict[str, Any]]:
    """Returns a row for each leaf: COLUMNS, and `reason` in words.

    Args:
      how: `choice.How` of the private sum.
      clip: C.
      rounds: medians are over so many calls.
    """
    form, rows = how.form, len(work.chunk.is_padding)
    loss_fn = lambda p, example, key: work.method.loss(p, work.frozen, example, key)[0]
    keys, plans = unit_keys(work.words, work.chunk.unit_id), []

    def made(params: Any) -> tuple[list[Any], list[Any]]:
        found = batched.prepare(loss_fn, params, work.chunk.examples, keys, form=form)
        plans.append(found)
        return found.operands, found.coefficients

    operands, coefficients = jax.jit(made)(work.params)
    prepared = plans[0]._replace(operands=operands, coefficients=coefficients)
    example = jax.tree.map(lambda x: x[0], work.chunk.examples)
    named = choice.explain(how, loss_fn, work.params, example, keys[0])
    norms = jax.jit(lambda p: fast.joint([_norms(prepared, p, i)[0] for i in range(len(named))]))(
        operands
    )
    scales = clipping.scales_from_norms(norms, jnp.ones(rows, bool), clip, form.margin)
    out = []
    for i, ((path, _, reason), leaf) in enumerate(zip(named, prepared.plan.leaves, strict=True)):
        took = _taken(prepared, i, scales, rounds)
        given = (leaf.way, leaf.sites, math.prod(leaf.shape), rows, form)
        predicted = 1e3 * costs.leaf_seconds(*given, prepared.machine)
        row = {"leaf": path, "way": leaf.way, "predicted_ms": predicted, "reason": reason}
        out.append(row | {name: 1e3 * value for name, value in took.items()})
    return out


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Returns the rows as a Markdown table."""
    show = lambda v: f"{v:.3g}" if isinstance(v, float) else str(v)
    lines = ["| " + " | ".join(COLUMNS) + " |", "|" + "---|" * len(COLUMNS)]
    return "\n".join(lines + ["| " + " | ".join(show(r[c]) for c in COLUMNS) + " |" for r in rows])


def _norms(prepared: Prepared, operands: list[Any], number: int) -> Any:
    return batched.leaf_norms(prepared._replace(operands=operands), number)


def _taken(prepared: Prepared, number: int, scales: jax.Array, rounds: int) -> dict[str, float]:
    """Median seconds of one leaf's norms and of its sum."""
    at = lambda mine: [mine if i == number else None for i in range(len(prepared.operands))]
    norms = jax.jit(lambda mine: _norms(prepared, at(mine), number))
    total = jax.jit(
        lambda mine, scales, held: batched.leaf_sum(
            prepared._replace(operands=at(mine)), number, scales, held
        )
    )
    mine = prepared.operands[number]
    held = norms(mine)[1]
    calls = {"norms_ms": lambda: norms(mine), "sum_ms": lambda: total(mine, scales, held)}
    taken = stopwatch.interleaved(calls, rounds=rounds, seconds=20)
    return {name: stopwatch.summary(t[:, 0])["median"] for name, t in taken.items()}
