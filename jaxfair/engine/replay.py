"""What a step reads, by content: the fingerprint of a run is made of it.

Only what is equal in all of this is the same run, whose steps replay bit by bit and are not paid
for again (protocol P6).
"""

import functools
import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from jaxfair.data.loader import Fields
from jaxfair.engine.assembly import Assembly
from jaxfair.engine.population import Population
from jaxfair.methods.base import Stage
from jaxfair.privacy.cliprules.apply import first_state, informed, no_answers
from jaxfair.privacy.plan import PrivacyPlan
from jaxfair.run import fingerprint

__all__ = ["parts_of_people", "parts_of_stages"]

_ROWS = 256
"""Rows that are read at once where the data have no digest yet."""


def parts_of_stages(stages: Sequence[Assembly]) -> dict[str, str]:
    """Returns plan, losses, optimiser and first variables of all stages, by a readable name."""
    found = {"plan": repr(stages[0].plan), "clip rule": _rule(stages[0].plan, stages[0].example)}
    for number, assembly in enumerate(stages):
        mark = f" of stage {number + 1}" if number else ""
        found |= {f"{name}{mark}": part for name, part in _learned(assembly).items()}
    for number, stage in enumerate(stages[0].method.stages):
        found[f"begin of stage {number + 2}"] = _begin(stage, stages[number])
    return found


def parts_of_people(population: Population, fields: Fields, *, private: bool) -> dict[str, str]:
    """Returns the data and who may be drawn; without a digest of the data they are read for it."""
    rows, people = population.rows, population
    lengths = np.asarray([len(unit) for unit in rows])
    known = people.digest or not private
    return {
        "data": people.digest if known else _digest_of_rows(fields, people.all_rows),
        "population": fingerprint.digest_of_arrays(
            [lengths, people.all_rows, people.ids, np.asarray(people.groups, np.int64)]
        ),
    }


def _learned(assembly: Assembly) -> dict[str, str]:
    """Of one stage. The gradient is read and not the loss, as it may have one of its own."""
    method, optimizer, params = assembly.method, assembly.optimizer, assembly.params
    example, key = dict(assembly.example), jax.random.key(0)
    state = jax.eval_shape(optimizer.init, params)
    told = informed(assembly.plan, assembly.frozen, first_state(assembly.plan))
    variables, equations = (params, told), fingerprint.digest_of_equations
    grad = jax.value_and_grad(method.loss, has_aux=True)
    found = {
        "loss": equations(grad, *variables, example, key),
        "batch_loss": "",
        "prepare": "",
        "schedule": "",
        "optimizer": equations(optimizer.update, params, state, params),
        "first state of the optimizer": equations(optimizer.init, params),
        "first parameters": fingerprint.digest_of_arrays((params, assembly.frozen)),
    }
    if method.batch_loss is not None:
        found["batch_loss"] = equations(method.batch_loss, *variables, *_of_batch(example, key))
    if method.prepare is not None:
        found["prepare"] = equations(method.prepare, assembly.frozen, dict(assembly.spec))
    if method.schedule is not None:
        progress = jax.ShapeDtypeStruct((), np.float32)
        found["schedule"] = equations(method.schedule, assembly.frozen, progress)
    return {f"{name}{_mark(digest)}": digest for name, digest in found.items()}


def _rule(plan: PrivacyPlan, example: Mapping[str, Any]) -> str:
    """Name, queries, first state and equations of the plan's clip rule; "" for none."""
    rule = plan.rule
    if rule is None:
        return ""
    units, groups = np.zeros(1, np.float32), np.zeros(1, np.int32)
    state, update = first_state(plan), rule.update
    calls: dict[str, tuple[Any, tuple[Any, ...]]] = {
        "factor": (rule.factor, (units, groups, state)),
        "answers": (rule.answers, (units, units, groups, state)),
        "update": (update and functools.partial(_updated, plan), (state, no_answers(plan))),
        "rescale": (rule.rescale, (state,)),
        "group": (rule.group, (dict(example),)),
        "inputs": (rule.method_inputs, (state,)),
    }
    parts = [
        f"{name} {fingerprint.digest_of_equations(function, *given)}"
        for name, (function, given) in calls.items()
        if function is not None
    ]
    first = fingerprint.digest_of_arrays(state)
    return " ".join([rule.name, str(rule.queries), str(rule.reads_losses), first, *parts])


def _updated(plan: PrivacyPlan, state: Any, answers: Mapping[str, Any]) -> Any:
    update: Any = plan.rule and plan.rule.update
    return update(state, answers, plan.expected_batch_size)


def _mark(digest: str) -> str:
    unseen = digest.endswith(fingerprint.UNSEEN)
    return " (or what its callback on the host computes)" if unseen else ""


def _begin(stage: Stage, before: Assembly) -> str:
    """Share and equations; a `begin` that jax cannot trace is known by what it makes alone."""
    begin = lambda *variables: stage.begin(*variables, jax.random.key(0), dict(before.spec))
    try:
        made = fingerprint.digest_of_equations(begin, before.params, before.frozen)
    except TypeError:
        made = ""
    return f"{stage.share} {stage.averaged} {made}"


def _of_batch(example: dict[str, Any], key: jax.Array) -> tuple[Any, Any, Any]:
    """Returns (examples, mask, keys) of a batch of two, as a `batch_loss` gets them."""
    batch = jax.tree.map(lambda s: jax.ShapeDtypeStruct((2, *s.shape), s.dtype), example)
    return batch, jax.ShapeDtypeStruct((2,), bool), jax.random.split(key, 2)


def _digest_of_rows(fields: Fields, rows: np.ndarray) -> str:
    digest = hashlib.sha256()
    for name, read in sorted(fields.items()):
        digest.update(name.encode() + b"\0")
        for start in range(0, len(rows), _ROWS):
            values = np.ascontiguousarray(read(rows[start : start + _ROWS]))
            digest.update(f"{values.dtype} {values.shape}".encode() + values.tobytes())
    return digest.hexdigest()
