"""What a run would be, without touching data: shapes, parameters, noise, memory.

Everything is read from shapes and equations, so that it takes seconds.
"""

import collections
import itertools
import math

import jax
import numpy as np
from ml_collections import ConfigDict

from jaxfair.config import Settings, settings_from_config
from jaxfair.engine.assembly import Assembly, assemble
from jaxfair.engine.memory import held_at_most
from jaxfair.engine.mesh import make_mesh
from jaxfair.engine.stages import ends_of, stages_of
from jaxfair.methods.base import PyTree
from jaxfair.methods.mitigations.catalog import entry_of
from jaxfair.privacy.cliprules.apply import first_state, informed
from jaxfair.privacy.plan import PrivacyPlan
from jaxfair.privacy.sums import choice
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
    lines += _precision_lines(settings)
    lines += [f"  steps         {plan.steps:,}, {plan.expected_batch_size} units expected in each"]
    lines += _privacy_lines(settings, plan)
    lines += _mitigation_lines(settings, plan)
    lines += [f"  memory        {_memory(made, compiled)}"]
    lines += _stage_lines(made)
    lines += _clipping_lines(made)
    return "\n".join([*lines, "No data was touched."])


def _precision_lines(settings: Settings) -> list[str]:
    """In what the network multiplies, of a Method that asks; `dp.precision` is the clip's."""
    told = getattr(settings.method, "precision", None)
    if told is None:
        return []
    around = " (parameters, norms and loss in float32)" if told != "float32" else ""
    return [f"  network       convolutions in {told}{around}"]


def _stage_lines(made: Assembly) -> list[str]:
    """The stages of a Method that has several, each checked as the run would check it."""
    stages = stages_of(made, assemble)
    if len(stages) == 1:
        return []
    ends = [0, *ends_of(made.method, made.plan.steps)]
    return [
        f"  stage {number} of {len(stages)}  {stage.method.name}: {end - begin:,} steps, "
        f"{_count(stage.params):,} trained, about {_held(stage):,.0f} MiB"
        for number, stage, begin, end in zip(itertools.count(1), stages, ends, ends[1:])
    ]


def _privacy_lines(settings: Settings, plan: PrivacyPlan) -> list[str]:
    if not plan.private:
        return ["  privacy       none (dp.enabled=False)"]
    unit = settings.dp.unit or "what the ids of the data name (patient, lesion or image)"
    return [
        f"  privacy       epsilon {plan.epsilon:.4f} ({plan.epsilon_rdp:.4f} by RDP) at delta "
        f"{plan.delta:.2g}; unit: {unit}",
        f"  noise         sigma {plan.noise_multiplier:.4f}, clip {plan.l2_clip_norm:g}, sampling "
        f"probability {plan.sampling_prob:.4g}, clipping way {plan.clipping}",
        f"  rounding      operands in {plan.precision}, {plan.clip_margin:.2%} of the clip",
        f"  draws         {_padding(plan)}",
    ]


def _mitigation_lines(settings: Settings, plan: PrivacyPlan) -> list[str]:
    """What the mitigation is to privacy, what it asks each draw, and at which rates it draws."""
    name = settings.mitigation_name
    lines = [f"  mitigation    {name}. {entry_of(name).standing}"] if name else []
    lines += [
        f"  asked beside  {query.name}: sigma {query.noise_multiplier:.4f}, sensitivity "
        f"{query.sensitivity:.4g}"
        for query in plan.queries
    ]
    if plan.group_probs:
        rates = ", ".join(f"{rate:.4g} (group {k})" for k, rate in enumerate(plan.group_probs))
        lines += [f"  rates         {rates}; everybody is priced at {plan.priced_prob:.4g}"]
    return lines


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
    example, key = dict(made.example), jax.random.key(0)
    rows = choice.explain(made.plan.how, loss_fn, made.params, example, key)
    counts = collections.Counter(way for _, way, _ in rows)
    total = ", ".join(f"{count} {way}" for way, count in counts.most_common())
    return [
        f"  clipping      {len(rows)} leaves: {total} ({_structure(made.plan)})",
        *(f"    {way:8}{path} ({reason})" for path, way, reason in rows),
    ]


def _structure(plan: PrivacyPlan) -> str:
    return "many examples at a time" if plan.how.is_batched else "one example after the other"


def _memory(made: Assembly, compiled: bool) -> str:
    if not compiled:
        return f"about {_held(made):,.0f} MiB for the step on each device (--compile: as compiled)"
    analysis = made.compiled().memory_analysis()
    held = (analysis.temp_size_in_bytes + analysis.argument_size_in_bytes) / 2**20
    return f"{held:,.0f} MiB for the step on each device, as compiled"


def _held(made: Assembly) -> float:
    """Estimated MiB of the step on each device."""
    return held_at_most(made.step.update, *made.shapes()) / 2**20


def _count(tree: PyTree) -> int:
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(tree))
