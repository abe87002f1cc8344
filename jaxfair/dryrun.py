"""What a run would be, without touching data: shapes, parameters, noise, memory."""

import collections
import math

import jax
from ml_collections import ConfigDict

from jaxfair.config import Settings, settings_from_config
from jaxfair.engine.assembly import Assembly
from jaxfair.engine.mesh import make_mesh
from jaxfair.methods.base import PyTree
from jaxfair.privacy.plan import PrivacyPlan
from jaxfair.privacy.sums import fast
from jaxfair.start import assembly_of

__all__ = ["describe"]


def describe(config: ConfigDict, *, num_devices: int | None = None) -> str:
    """Returns the plan of a run as text. The step is compiled (for its memory), never run."""
    settings = settings_from_config(config)
    made = assembly_of(settings, make_mesh(num_devices))
    plan, kind = made.plan, made.mesh.devices.flat[0].device_kind
    lines = [f"{config.name}: {made.method.name} on {made.mesh.size} x {kind}"]
    lines += [f"  example       {name}: {s.dtype} {s.shape}" for name, s in made.example.items()]
    lines += [f"  parameters    {_count(made.params):,} trained, {_count(made.frozen):,} frozen"]
    lines += [f"  steps         {plan.steps:,}, {plan.expected_batch_size} units expected in each"]
    lines += _privacy_lines(settings, plan)
    lines += [f"  memory        {_memory(made) / 2**20:,.0f} MiB for the step on each device"]
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
    loss_fn = lambda p, example, key: made.method.loss(p, made.frozen, example, key)[0]
    rows = fast.explain(loss_fn, made.params, dict(made.example), jax.random.key(0))
    counts = collections.Counter(way for _, way, _ in rows)
    total = ", ".join(f"{count} {way}" for way, count in counts.most_common())
    return [
        f"  clipping      {len(rows)} leaves: {total}",
        *(f"    {way:8}{path} ({reason})" for path, way, reason in rows),
    ]


def _memory(made: Assembly) -> int:
    analysis = made.compiled().memory_analysis()
    return int(analysis.temp_size_in_bytes + analysis.argument_size_in_bytes)


def _count(tree: PyTree) -> int:
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(tree))
