"""Ten planted faults: does the audit find what it claims to find?

Each fault exchanges one part of a clean bench for a broken one of the same form; the claim
stays. The faults are those of real systems (no clipping, noise per device, shuffled batches
accounted as Poisson, ...), each assigned to the detector that has to find it.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import AxisType

from jaxfair.audit.bench import Bench, reference, under_audit
from jaxfair.audit.trials import Size, examine
from jaxfair.data.loader import Fields
from jaxfair.engine.assembly import join
from jaxfair.engine.feed import Feed
from jaxfair.engine.mesh import AXIS
from jaxfair.engine.population import make_population
from jaxfair.engine.step import Step
from jaxfair.methods.base import Method, PyTree
from jaxfair.methods.fae import FAEConfig, make_fae
from jaxfair.privacy import noise
from jaxfair.privacy.detectors import DETECTORS
from jaxfair.privacy.plan import PrivacyConfig, PrivacyPlan, make_plan
from jaxfair.privacy.secret import insecure_secret, os_secret
from jaxfair.privacy.sums import clipping
from jaxfair.run.log import progress_bar

__all__ = ["CLEAN_RUNS", "FAULTS", "Fault", "same_step", "self_test", "small_bench"]

CLEAN_RUNS = 20
SIZE = Size(canaries=1000)
"""How much each run of the self-test does; the rest of its size is in `small_bench`."""

SIDE = 16
UNITS = 100


class Fault(NamedTuple):
    """Attributes:
    detector: that has to find it.
    plant: makes a broken bench of a clean one.
    """

    detector: str
    plant: Callable[[Bench], Bench]


def self_test(
    *,
    size: Size = SIZE,
    seed: int | None = None,
    clean_runs: int = CLEAN_RUNS,
    faults: Sequence[str] | None = None,
    progress: bool = True,
) -> dict[str, Any]:
    """Plants each fault in a small training and counts the found; and alarms in clean runs.

    Returns {"faults": [name, detector, caught, alarms, finding], "caught", "clean_runs",
    "false_alarms": {detector: count}}. A fault is caught if its own detector raises the
    alarm; `alarms` names all that did.

    Args:
      size: of each of the runs.
      seed: None for fresh randomness; run i of a seed is keyed by seed + i.
      faults: names of FAULTS; None for all.
    """
    clean = small_bench()
    tried, clipped_sum = under_audit(clean), reference(clean)
    names = list(FAULTS) if faults is None else list(faults)
    with progress_bar(
        len(names) + clean_runs, what="self-test", unit="run", hidden=not progress
    ) as bar:

        def alarms(bench: Bench, number: int) -> dict[str, str]:
            own = tried if same_step(bench, clean) else under_audit(bench)
            key = os_secret() if seed is None else insecure_secret(seed + number)
            coins = np.random.default_rng(None if seed is None else seed + number)
            verdicts, _ = examine(bench, own, key, clipped_sum, size, coins=coins)
            bar.update()
            return {v.detector: v.finding for v in verdicts if v.alarm}

        found = [alarms(FAULTS[name].plant(clean), i) for i, name in enumerate(names)]
        quiet = [alarms(clean, len(names) + i) for i in range(clean_runs)]
    rows = [_fault_row(name, alarm) for name, alarm in zip(names, found)]
    return {
        "faults": rows,
        "caught": sum(row["caught"] for row in rows),
        "clean_runs": clean_runs,
        "false_alarms": {d: sum(d in alarm for alarm in quiet) for d in DETECTORS},
    }


def _fault_row(name: str, alarms: dict[str, str]) -> dict[str, Any]:
    own = FAULTS[name].detector
    finding = alarms.get(own, "no alarm of its detector")
    return {
        "name": name,
        "detector": own,
        "caught": own in alarms,
        "alarms": list(alarms),
        "finding": finding,
    }


def same_step(bench: Bench, clean: Bench) -> bool:
    """Whether both benches have one step, so that it is compiled once."""
    parts = lambda b: (b.assembly.plan, b.assembly.method, b.broken)
    return parts(bench) == parts(clean)


def small_bench(method: Method | None = None, *, steps: int = 20, devices: int = 2) -> Bench:
    """Returns a clean bench: a tiny feature autoencoder on made-up images, at epsilon 2.

    Another `method` takes its place; it has a `prepare`.
    100 patients with one to three images of 16 x 16; q = 0.25; CPU devices, two if there are.
    """
    method = method or make_fae(FAEConfig(hidden_dims=(2,), dropout=0.1))
    spec = {"image": jax.ShapeDtypeStruct((SIDE, SIDE, 1), np.dtype(np.float32))}
    params, frozen = method.init(jax.random.key(0), spec)
    ends = np.cumsum(1 + np.arange(UNITS) % 3)
    units = np.split(np.arange(ends[-1]), ends[:-1])
    plan = make_plan(
        PrivacyConfig(epsilon=2.0, l2_clip_norm=0.1),
        steps=steps,
        expected_batch_size=UNITS // 4,
        public_size=UNITS,
    )
    cpus = jax.devices("cpu")[:devices]
    mesh = jax.make_mesh((len(cpus),), (AXIS,), axis_types=(AxisType.Auto,), devices=cpus)
    assembly = join(
        plan,
        method,
        optax.adam(1e-3),
        spec=spec,
        variables=(params, frozen),
        microbatch=32,
        mesh=mesh,
    )
    return Bench(
        claim=plan,
        assembly=assembly,
        fields=_made_fields(method, frozen, int(ends[-1])),
        units=units,
        population=make_population([str(i) for i in range(UNITS)], units),
    )


def _made_fields(method: Method, frozen: PyTree, count: int) -> Fields:
    """Readers of `count` prepared examples of images of white noise."""
    images = np.random.default_rng(0).random((count, SIDE, SIDE, 1), np.float32)
    prepare: Any = method.prepare
    examples = jax.jit(jax.vmap(prepare, (None, 0)))(frozen, {"image": images})
    return {name: jax.device_get(values).__getitem__ for name, values in examples.items()}


class _Unclipped(PrivacyPlan):
    def sum_grads(self, loss_fn, params, batch, keys, mask):
        return clipping.summed_grads(loss_fn, params, batch, keys, mask)


class _NaNLeak(PrivacyPlan):
    """Clips, but has no rule for a gradient that is not finite."""

    def sum_grads(self, loss_fn, params, batch, keys, mask):
        grads = jax.vmap(jax.grad(loss_fn), (None, 0, 0))(params, batch, keys)
        norms = clipping.per_example_norms(grads)
        scales = jnp.where(mask, jnp.minimum(1.0, self.l2_clip_norm / norms), 0.0)
        real = lambda g: jnp.where(mask.reshape(-1, *[1] * (g.ndim - 1)), g, 0)
        return jax.tree.map(lambda g: jnp.einsum("b,b...->...", scales, real(g)), grads)


class _NoisePerDevice(PrivacyPlan):
    """Every device but the first adds noise of its own to its part of the sum."""

    def sum_grads(self, loss_fn, params, batch, keys, mask):
        total = super().sum_grads(loss_fn, params, batch, keys, mask)
        place = jax.lax.axis_index(AXIS)
        shape = (len(jax.tree.leaves(total)), noise.DRAWS_PER_NORMAL, 2)
        words = jax.random.bits(jax.random.fold_in(keys[0], place), shape)
        stddev = self.noise_stddev() * jnp.minimum(place, 1)
        return jax.tree.map(jnp.add, total, noise.gaussian_like(total, words, stddev))


class _RealisedSize(PrivacyPlan):
    """Divides by how many were drawn, not by how many were expected."""

    def sum_grads(self, loss_fn, params, batch, keys, mask):
        total = super().sum_grads(loss_fn, params, batch, keys, mask)
        drawn = jnp.maximum(jax.lax.psum(jnp.sum(mask), AXIS), 1)
        return jax.tree.map(lambda g: g * (self.expected_batch_size / drawn), total)


class _OneKey(Feed):
    def randomness(self, number):
        return Feed.randomness(self, 0)


class _Shuffled(Feed):
    """Goes through the shuffled units in batches of one size, epoch after epoch."""

    def draw(self, number):
        count = len(self.population.rows)
        size = max(1, round(self.plan.sampling_prob * count))
        epoch, place = divmod(number, count // size)
        order = np.random.default_rng(epoch).permutation(count)
        return np.sort(order[place * size : (place + 1) * size])


def _with(bench: Bench, **changes: Any) -> Bench:
    """A bench whose training has other parts than it claims."""
    return bench._replace(assembly=bench.assembly.with_parts(**changes))


def _with_plan(kind: type[PrivacyPlan]) -> Callable[[Bench], Bench]:
    fields = lambda plan: {f.name: getattr(plan, f.name) for f in dataclasses.fields(plan)}
    return lambda bench: _with(bench, plan=kind(**fields(bench.claim)))


def _half_noise(bench: Bench) -> Bench:
    half = bench.claim.noise_multiplier / 2
    return _with(bench, plan=dataclasses.replace(bench.claim, noise_multiplier=half))


def _image_as_unit(bench: Bench) -> Bench:
    rows = [np.array([row]) for rows in bench.units for row in rows]
    return bench._replace(population=make_population([str(r[0]) for r in rows], rows))


@jax.custom_batching.custom_vmap
def _weight(loss: jax.Array) -> jax.Array:
    return jnp.ones_like(loss)


@_weight.def_vmap
def _weights_of_batch(axis_size: int, in_batched: Any, loss: jax.Array) -> tuple[jax.Array, bool]:
    low, high = jnp.min(loss), jnp.max(loss)
    return (loss - low) / (high - low + 1e-6), True


def _coupled_loss(bench: Bench) -> Bench:
    """Weights each loss by where it lies between the smallest and the largest of the batch."""
    inner = bench.method.loss

    def loss(params: PyTree, frozen: PyTree, example: Any, key: Any) -> tuple[jax.Array, dict]:
        own, aux = inner(params, frozen, example, key)
        return jax.lax.stop_gradient(_weight(jax.lax.stop_gradient(own))) * own, aux

    return _with(bench, method=bench.method._replace(loss=loss))


def _norm_statistics(bench: Bench) -> Bench:
    """A norm layer's running mean, kept among the parameters and updated without noise."""

    def broken(step: Step) -> Step:
        def update(state, frozen, chunk, randomness, is_last):
            values = next(v for v in chunk.examples.values() if v.ndim > 1)
            real = (~chunk.is_padding).reshape(-1, *[1] * (values.ndim - 1))
            mean = jnp.sum(jnp.where(real, values, 0)) / jnp.maximum(jnp.sum(real), 1)
            state, released = step.update(state, frozen, chunk, randomness, is_last)
            moved = jax.tree.map(lambda p: p + 1e-3 * mean.astype(p.dtype), state.params)
            return state._replace(params=moved), released

        return Step(step.init, update)

    return bench._replace(broken=broken)


FAULTS: dict[str, Fault] = {
    "no clipping": Fault("canary bound", _with_plan(_Unclipped)),
    "half the noise": Fault("canary bound", _half_noise),
    "NaN leak": Fault("canary bound", _with_plan(_NaNLeak)),
    "key reuse": Fault("structural", lambda bench: bench._replace(feed_kind=_OneKey)),
    "normaliser by realised size": Fault("structural", _with_plan(_RealisedSize)),
    "batch-coupled loss": Fault("structural", _coupled_loss),
    "un-noised norm statistics": Fault("structural", _norm_statistics),
    "noise added per device": Fault("noise law", _with_plan(_NoisePerDevice)),
    "shuffled batches accounted as Poisson": Fault(
        "sampling law", lambda bench: bench._replace(feed_kind=_Shuffled)
    ),
    "patient counted per image": Fault("sampling law", _image_as_unit),
}
"""name -> the detector that has to find it, and how it is planted."""
