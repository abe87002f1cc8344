"""What a run would be, without touching data: shapes, parameters, noise, memory.

Everything is read from shapes and equations, so that it takes seconds.
"""

import collections
import math

import jax
import numpy as np
from ml_collections import ConfigDict

from jaxfair.config import Settings, settings_from_config
from jaxfair.engine.assembly import Assembly
from jaxfair.engine.memory import held_at_most
from jaxfair.engine.mesh import make_mesh
from jaxfair.methods.base import PyTree
from jaxfair.privacy.cliprules.apply import first_state, informed
from jaxfair.privacy.plan import PrivacyPlan
from jaxfair.privacy.sums import fast
from jaxfair.start import shapes_of

__all__ = ["describe"]


def describe(config: ConfigDict, *, num_devices: int | None = None, compiled: bool = False) -> str:
    """Returns the plan of a run as text.

    Args:
      compiled: compile the step, minutes perhaps, for the memory that it will take; otherwise
        that is estimated.
    """
    settings = settings_from_config(config)
    made = shapes_of(settings, make_mesh(num_devices))
    plan, kind = made.plan, made.mesh.devices.flat[0].device_kind
    lines = [f"{config.name}: {made.method.name} on {made.mesh.size} x {kind}"]
    lines += [f"  example       {name}: {s.dtype} {s.shape}" for name, s in made.example.items()]
    lines += [f"  parameters    {_count(made.params):,} trained, {_count(made.frozen):,} frozen"]
    lines += [f"  steps         {plan.steps:,}, {plan.expected_batch_size} units expected in each"]
    lines += _privacy_lines(settings, plan)
    lines += [f"  memory        {_memory(made, compiled)}"]
    lines += _clipping_lines(made)
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
        f"  draws         {_padding(plan)}",
    ]


def _padding(plan: PrivacyPlan) -> str:
    if plan.padded_to is None:
        return "not padded: who watches the clock sees their sizes (dp.padded_draws=False)"
    times = plan.padded_to / plan.expected_batch_size
    return f"padded to {plan.padded_to} rows, {times:.2f} x those expected (dp.padded_draws)"


def _clipping_lines(made: Assembly) -> list[str]:
    """The way of every parameter leaf; "vmap" is one whose per-example gradients are held."""
    if not made.plan.private or made.plan.clipping != "fast":
        return []
    frozen = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), made.frozen)
    frozen = informed(made.plan, frozen, first_state(made.plan))
    loss_fn = lambda p, example, key: made.method.loss(p, frozen, example, key)[0]
    rows = fast.explain(loss_fn, made.params, dict(made.example), jax.random.key(0))
    counts = collections.Counter(way for _, way, _ in rows)
    total = ", ".join(f"{count} {way}" for way, count in counts.most_common())
    return [
        f"  clipping      {len(rows)} leaves: {total}",
        *(f"    {way:8}{path} ({reason})" for path, way, reason in rows),
    ]


def _memory(made: Assembly, compiled: bool) -> str:
    if not compiled:
        held = held_at_most(made.step.update, *made.shapes()) / 2**20
        return f"about {held:,.0f} MiB for the step on each device (--compile: as compiled)"
    analysis = made.compiled().memory_analysis()
    held = (analysis.temp_size_in_bytes + analysis.argument_size_in_bytes) / 2**20
    return f"{held:,.0f} MiB for the step on each device, as compiled"


def _count(tree: PyTree) -> int:
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(tree))
