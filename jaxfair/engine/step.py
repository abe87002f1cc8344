"""Method x PrivacyPlan -> one jitted, sharded update.

This is where images and privacy meet. A draw arrives in chunks of one fixed shape; the step
adds each chunk's clipped gradients to a running sum, and with the last chunk of a draw it
adds the noise, once, and updates the parameters:

    per_example_grads -> clipped_sum (all chunks, all devices) -> noisy_sum -> noisy_mean -> optax

A plan's clip rule (`privacy/cliprules`) scales the gradients; the answers to its side queries are
summed beside them, get their noise once with the last chunk, and make the rule's next state.

The sums over microbatches, devices and chunks are totals of two float32 numbers (`sums/twofloat`),
so that rounding does not add up over a draw; `sums/rounding` says what is left and who pays for it.
Noise is added to the total rounded once to float32.

Two traps of sharding decide the shape of the code (tests/engine/test_step.py holds both): under
`jit` with sharded inputs, vmapped convolution gradients of examples beyond the first device
come out as zero; and inside `shard_map` with its default checks, the gradient of replicated
parameters is summed over devices before it could be clipped. So the per-example part runs
in `shard_map` with `check_vma=False`, where a device sees only its own examples, and the
clipped sums are gathered and added by hand.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import flax.errors
import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh, PartitionSpec

from jaxfair.engine.chunk import Chunk, Randomness, unit_keys
from jaxfair.engine.mesh import AXIS
from jaxfair.errors import InputError
from jaxfair.methods.base import Method, PyTree
from jaxfair.privacy import noise
from jaxfair.privacy.cliprules import apply
from jaxfair.privacy.cliprules.apply import Sums
from jaxfair.privacy.plan import PrivacyPlan
from jaxfair.privacy.sums import twofloat
from jaxfair.privacy.sums.twofloat import TwoFloat

__all__ = [
    "DEFAULT_MICROBATCH",
    "Step",
    "TrainState",
    "make_step",
    "refuse_coupling",
    "scheduled",
    "sharded_sum",
]

DEFAULT_MICROBATCH = 32
"""Examples per device whose gradients are held at once, where the config leaves it open."""


class TrainState(NamedTuple):
    """What a run carries from step to step.

    Attributes:
      params: trained parameters.
      opt_state: state of the optax optimiser; it sees noisy means only.
      clipped_sum: float32 sum over the chunks of the draw under way; zero between draws.
      sum_rest: what float32 has rounded off `clipped_sum`; the two together are the sum.
      step: int32, draws completed. The accountant reads this count and no other.
      answers, answers_rest: the same two of the answers to the clip rule's side queries, by name.
      rule_state: public state of the clip rule; it sees noisy answers only. {} without a rule.
    """

    params: PyTree
    opt_state: PyTree
    clipped_sum: PyTree
    sum_rest: PyTree
    step: jax.Array
    answers: PyTree
    answers_rest: PyTree
    rule_state: PyTree


class Step(NamedTuple):
    """Attributes:
    init: `(params) -> TrainState` with zeroed counters.
    update: `(state, frozen, chunk, randomness, is_last) -> (state, released)`; jitted,
      compiled once for any draw, gives the state's memory back. `released` holds functions
      of the noisy mean and the parameters, zero until `is_last`.
    """

    init: Callable[[PyTree], TrainState]
    update: Any


def make_step(
    method: Method,
    plan: PrivacyPlan,
    optimizer: optax.GradientTransformation,
    mesh: Mesh,
    *,
    microbatch: int,
) -> Step:
    """Joins a Method and a plan into the update of one draw.

    Args:
      microbatch: examples per device whose gradients are held at once; a chunk with more
        rows per device is summed in a loop. It changes memory and speed, nothing else (a
        `batch_loss`, of a plain run, sees one microbatch at a time).

    Raises InputError if the plan is private and the Method couples the examples of a batch, or
    at the first call with a chunk that does not divide.
    """
    refuse_coupling(method, plan)
    sum_chunk = sharded_sum(method, plan, mesh, microbatch)

    def init(params: PyTree) -> TrainState:
        zeros = lambda: jax.tree.map(lambda p: jnp.zeros(p.shape, jnp.float32), params)
        step, answers = jnp.zeros((), jnp.int32), lambda: apply.no_answers(plan)
        begun = (params, optimizer.init(params), zeros(), zeros(), step)
        return TrainState(*begun, answers(), answers(), apply.first_state(plan))

    def update(
        state: TrainState, frozen: PyTree, chunk: Chunk, randomness: Randomness, is_last: jax.Array
    ) -> tuple[TrainState, dict[str, jax.Array]]:
        frozen = scheduled(method, plan, frozen, state.step)
        high, low = Sums(state.clipped_sum, state.answers), Sums(state.sum_rest, state.answers_rest)
        given = (chunk, randomness.examples, TwoFloat(high, low), state.rule_state)
        (high, low) = sum_chunk(state.params, frozen, *given)
        state = state._replace(clipped_sum=high.grads, sum_rest=low.grads,
                               answers=high.answers, answers_rest=low.answers)  # fmt: skip
        finish = lambda s: _finish(s, plan, optimizer, randomness)
        return jax.lax.cond(is_last, finish, _keep, state)

    return Step(init, jax.jit(update, donate_argnums=0))


def scheduled(method: Method, plan: PrivacyPlan, frozen: PyTree, step: Any) -> PyTree:
    """Returns what is frozen as it stands in step `step`, counted from 0 over the whole run.

    Guarantee: it is a function of the step, of the plan's number of steps and of what was frozen,
    which are the same whoever takes part; so the clip bounds a gradient as before.
    """
    if method.schedule is None:
        return frozen
    return method.schedule(frozen, jnp.asarray(step, jnp.float32) / plan.steps)


def refuse_coupling(method: Method, plan: PrivacyPlan) -> None:
    """Raises InputError for a private plan and a Method that says it couples examples."""
    if plan.private and (method.couples_examples or method.batch_loss is not None):
        how = "has a batch_loss" if method.batch_loss is not None else "couples_examples is True"
        raise InputError(
            f"Method {method.name!r} couples the examples of a batch ({how}), so one patient's "
            "data reaches other patients' gradients and clipping bounds nothing: train it with "
            "dp.enabled=False, or choose a Method whose loss is a sum over examples."
        )


def sharded_sum(method: Method, plan: PrivacyPlan, mesh: Mesh, microbatch: int) -> Callable:
    """Returns `(params, frozen, chunk, key_words, total, rule_state) -> TwoFloat` of `Sums`.

    It is `total` with the chunk, over all devices, before noise; the benchmark measures it alone.

    Args:
      microbatch: as of `make_step`.
    """

    def local_sum(
        params: PyTree, frozen: PyTree, chunk: Chunk, words: Any, total: TwoFloat, rule_state: Any
    ) -> TwoFloat:
        frozen = apply.informed(plan, frozen, rule_state)
        loss_fn = lambda p, example, key: method.loss(p, frozen, example, key)[0]

        def microbatch_sum(rows: Chunk) -> Sums:
            keys, mask = unit_keys(words, rows.unit_id), ~rows.is_padding
            found = apply.sums(plan, loss_fn, params, rows.examples, keys, mask, rule_state)
            if method.batch_loss is None:
                return found
            coupled = _batch_grads(method, params, frozen, rows.examples, mask, keys)
            return found._replace(grads=jax.tree.map(jnp.add, found.grads, coupled))

        if mesh.size == 1:
            return _add_microbatches(total, microbatch_sum, chunk, microbatch)
        nothing = jax.tree.map(jnp.zeros_like, total)
        own = _add_microbatches(nothing, microbatch_sum, chunk, microbatch)
        return twofloat.join([total, *_of_all_devices(own, mesh.size)])

    spec = PartitionSpec
    sharded = jax.shard_map(
        local_sum,
        mesh=mesh,
        in_specs=(spec(), spec(), spec(AXIS), spec(), spec(), spec()),
        out_specs=spec(),
        check_vma=False,
    )

    def checked(params: PyTree, frozen: PyTree, chunk: Chunk, *given: Any) -> TwoFloat:
        rows = chunk.is_padding.shape[0]
        if rows % mesh.size:
            raise InputError(
                f"A chunk of {rows} rows does not spread evenly over {mesh.size} devices; give "
                "chunks of a multiple of microbatch x devices."
            )
        try:
            with nn.intercept_methods(_refuse_batch_statistics):
                return sharded(params, frozen, chunk, *given)
        except (_BatchStatistics, flax.errors.ModifyScopeVariableError) as error:
            raise InputError(
                f"Method {method.name!r} updates statistics while it trains (a BatchNorm, most "
                "likely): they mix the patients of a batch and would leave the run without "
                "noise. Use GroupNorm, or stored statistics."
            ) from error

    return checked


class _BatchStatistics(Exception):
    """A layer normalises by the statistics of its batch."""


def _refuse_batch_statistics(next_fun: Callable, args: Any, kwargs: Any, context: Any) -> Any:
    """Stops at a BatchNorm that trains, also where its update of statistics is thrown away.

    Under `vmap` such a layer would silently normalise every example by itself.
    """
    module = context.module
    if isinstance(module, nn.BatchNorm) and context.method_name == "__call__":
        called_with = kwargs.get("use_running_average", args[1] if len(args) > 1 else None)
        if not (module.use_running_average if called_with is None else called_with):
            raise _BatchStatistics
    return next_fun(*args, **kwargs)


def _batch_grads(
    method: Method, params: PyTree, frozen: PyTree, examples: PyTree, mask: jax.Array, keys: Any
) -> PyTree:
    """The gradient of a plain Method's `batch_loss`, weighted by how many rows are real."""
    batch_loss: Any = method.batch_loss
    weighted = lambda p: jnp.sum(mask) * batch_loss(p, frozen, examples, mask, keys)
    return jax.tree.map(lambda g: g.astype(jnp.float32), jax.grad(weighted)(params))


def _add_microbatches(
    total: TwoFloat, microbatch_sum: Callable, chunk: Chunk, microbatch: int
) -> TwoFloat:
    """Returns `total` with the sums of the microbatches of a device's rows, one after the other."""
    rows = chunk.is_padding.shape[0]
    if rows <= microbatch:
        return twofloat.add(total, microbatch_sum(chunk))
    if rows % microbatch:
        raise InputError(
            f"A chunk has {rows} rows on each device, which microbatches of {microbatch} do not "
            "divide; give chunks of a multiple of microbatch x devices."
        )
    cut = jax.tree.map(lambda a: a.reshape(-1, microbatch, *a.shape[1:]), chunk)
    add = lambda total, rows: (twofloat.add(total, microbatch_sum(rows)), None)
    return jax.lax.scan(add, total, cut)[0]


def _of_all_devices(total: TwoFloat, devices: int) -> list[TwoFloat]:
    """Every device gets all totals, and adds them in one order, so that all have the same bits."""
    parts = jax.lax.all_gather(total, AXIS)
    return [jax.tree.map(lambda part, i=i: part[i], parts) for i in range(devices)]


def _finish(
    state: TrainState,
    plan: PrivacyPlan,
    optimizer: optax.GradientTransformation,
    randomness: Randomness,
) -> tuple[TrainState, dict[str, jax.Array]]:
    noisy_sum = state.clipped_sum  # the total rounded once: what is added below is its noise
    if plan.private:
        drawn = noise.gaussian_like(noisy_sum, randomness.noise, plan.noise_stddev())
        noisy_sum = jax.tree.map(jnp.add, noisy_sum, drawn)
    noisy_mean = jax.tree.map(lambda g: g / plan.expected_batch_size, noisy_sum)
    if plan.rule is not None and plan.rule.rescale is not None:  # public: after the noise
        scale = plan.rule.rescale(state.rule_state)
        noisy_mean = jax.tree.map(lambda g: g * scale, noisy_mean)
    grads = jax.tree.map(lambda g, p: g.astype(p.dtype), noisy_mean, state.params)
    updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
    params = optax.apply_updates(state.params, updates)
    rule_state = apply.next_state(plan, state.rule_state, state.answers, randomness.answers)
    zeros = lambda tree: jax.tree.map(jnp.zeros_like, tree)
    released = {"noisy_mean_norm": optax.tree.norm(noisy_mean), "params_norm": _norm(params)}
    sums = (zeros(state.clipped_sum), zeros(state.sum_rest), state.step + 1)
    answers = (zeros(state.answers), zeros(state.answers_rest), rule_state)
    return TrainState(params, opt_state, *sums, *answers), released


def _keep(state: TrainState) -> tuple[TrainState, dict[str, jax.Array]]:
    return state, {"noisy_mean_norm": jnp.float32(0), "params_norm": jnp.float32(0)}


def _norm(params: PyTree) -> jax.Array:
    return optax.tree.norm(jax.tree.map(lambda p: p.astype(jnp.float32), params))
