"""What a run would be, without touching data: shapes, parameters, noise, memory."""

import collections
from typing import Any

import jax
import jax.numpy as jnp
from jax import ShapeDtypeStruct as Struct
from jax.sharding import Mesh
from ml_collections import ConfigDict

from jaxfair.config import (
    Settings,
    plan_from_settings,
    settings_from_config,
)
from jaxfair.engine.mesh import make_mesh
from jaxfair.engine.optim import make_optimizer
from jaxfair.engine.step import DEFAULT_MICROBATCH, Randomness, make_step
from jaxfair.methods.base import Method, PyTree
from jaxfair.privacy import noise
from jaxfair.privacy.plan import PrivacyPlan
from jaxfair.privacy.sums import fast
from jaxfair.start import first_variables

__all__ = ["describe"]


def describe(config: ConfigDict, *, num_devices: int | None = None) -> str:
    """Returns the plan of a run as text. The step is compiled (for its memory), never run."""
    settings = settings_from_config(config)
    plan, mesh = plan_from_settings(settings), make_mesh(num_devices)
    method, params, frozen = first_variables(settings)
    example = settings.data.spec
    if method.prepare is not None:
        example = jax.eval_shape(method.prepare, frozen, example)
    memory = _memory(settings, plan, method, mesh, params, frozen, example)
    lines = [f"{config.name}: {method.name} on {mesh.size} x {mesh.devices.flat[0].device_kind}"]
    lines += [f"  example       {name}: {s.dtype} {s.shape}" for name, s in example.items()]
    lines += [f"  parameters    {_count(params):,} trained, {_count(frozen):,} frozen"]
    lines += [f"  steps         {plan.steps:,}, {plan.expected_batch_size} units expected in each"]
    lines += _privacy_lines(settings, plan)
    lines += [f"  memory        {memory / 2**20:,.0f} MiB for the step on each device"]
    lines += _clipping_lines(plan, method, params, frozen, example)
    return "\n".join([*lines, "No data was touched."])


def _privacy_lines(settings: Settings, plan: PrivacyPlan) -> list[str]:
    if not plan.private:
        return ["  privacy       none (dp.enabled=False)"]
    unit = settings.dp.unit or "what the ids of the data name (patient, lesion or image)"
    return [
        f"  privacy       epsilon {plan.epsilon:.4f} ({plan.epsilon_rdp:.4f} by RDP) at delta "
        f"{plan.delta:.2g}; unit: {unit}",
        f"  noise         sigma {plan.noise_multiplier:.4f}, clip {plan.l2_clip_norm:g}, sampling "
        f"probability {plan.sampling_prob:.4g}, clipping way {plan.clipping}",
    ]


def _clipping_lines(
    plan: PrivacyPlan, method: Method, params: PyTree, frozen: PyTree, example: dict[str, Struct]
) -> list[str]:
    """The way of every parameter leaf; "vmap" is one whose per-example gradients are held."""
    if not plan.private or plan.clipping != "fast":
        return []
    loss_fn = lambda p, e, key: method.loss(p, frozen, e, key)[0]
    rows = fast.explain(loss_fn, params, example, jax.random.key(0))
    counts = collections.Counter(way for _, way, _ in rows)
    total = ", ".join(f"{count} {way}" for way, count in counts.most_common())
    return [
        f"  clipping      {len(rows)} leaves: {total}",
        *(f"    {way:8}{path} ({reason})" for path, way, reason in rows),
    ]


def _memory(
    settings: Settings,
    plan: PrivacyPlan,
    method: Method,
    mesh: Mesh,
    params: PyTree,
    frozen: PyTree,
    example: dict[str, Struct],
) -> int:
    microbatch = settings.dp.microbatch or DEFAULT_MICROBATCH
    step = make_step(method, plan, make_optimizer(settings.optim), mesh, microbatch=microbatch)
    rows = microbatch * mesh.size
    chunk: dict[str, Any] = {n: Struct((rows, *s.shape), s.dtype) for n, s in example.items()}
    chunk |= {"is_padding": Struct((rows,), bool), "unit_id": Struct((rows,), jnp.uint32)}
    words = Struct((len(jax.tree.leaves(params)), noise.DRAWS_PER_NORMAL, 2), jnp.uint32)
    randomness = Randomness(Struct((2,), jnp.uint32), words)
    state = jax.eval_shape(step.init, params)
    compiled = step.update.lower(state, frozen, chunk, randomness, True).compile()
    analysis = compiled.memory_analysis()
    return int(analysis.temp_size_in_bytes + analysis.argument_size_in_bytes)


def _count(tree: PyTree) -> int:
    return sum(leaf.size for leaf in jax.tree.leaves(tree))
