"""How a plan makes its clipped sum: by which way, in which format, and below which clip."""

from typing import Any, NamedTuple

import jax

from jaxfair.privacy.sums import (
    batched,
    clipping,
    costs,
    fast,
    formats,
    machines,
    rounding,
    ways,
)
from jaxfair.privacy.sums.formats import Format

__all__ = [
    "How",
    "clip_margin",
    "clipped_sum",
    "clipped_sum_by",
    "explain",
    "rule",
    "strict_bound",
]

PyTree = Any
Array = jax.Array


class How(NamedTuple):
    """How a clipped sum is made; see `PrivacyConfig`.

    Attributes:
      clipping: "vmap" or "fast".
      precision: a name of `formats.FORMATS`.
      way: of "fast": "loop" (example by example), "accelerator" (many at a time), or "auto" for
        the loop on a CPU in float32 and the other elsewhere.
    """

    clipping: str = "vmap"
    precision: str = "float32"
    way: str = "auto"

    @property
    def form(self) -> Format:
        """The format of the operands."""
        return formats.format_of(self.precision)

    @property
    def is_batched(self) -> bool:
        """Whether the sum is that of `batched`."""
        if self.clipping != "fast" or self.way == "loop":
            return False
        elsewhere = jax.default_backend() != "cpu" or self.form is not formats.FLOAT32
        return self.way == "accelerator" or elsewhere


def rule(how: How) -> ways.Rule | None:
    """Returns the cost rule by which leaves go their ways; None for that of the loop."""
    return batched.rule_of(how.form) if how.is_batched else None


def explain(
    how: How, loss_fn: clipping.LossFn, params: PyTree, example: PyTree, key: Any
) -> list[tuple[str, str, str]]:
    """Returns `fast.explain` for the way that `how` takes, with the predicted cost of each leaf.

    That is microseconds of one example on the machine of the cost rule, for the way that was chosen
    and for those that were not.
    """
    rows = fast.explain(loss_fn, params, example, key, rule(how))
    if not how.is_batched:
        return rows
    leaves = ways.choose_ways(loss_fn, params, example, key, rule(how)).leaves
    return [
        (path, way, reason + _predicted(leaf, how.form))
        for (path, way, reason), leaf in zip(rows, leaves, strict=True)
    ]


def _predicted(leaf: ways.Leaf, form: Format) -> str:
    gpu = machines.MACHINES["gpu"]
    names = ("ghost", "product", "kept") if len(leaf.sites) == 1 else ("product", "kept")
    took = {name: 1e6 * costs.seconds(name, leaf.sites, form, gpu) for name in names}
    told = ", ".join(f"{name} {micro:.2g}" for name, micro in took.items())
    return f"; us an example: {told}" if leaf.sites else ""


def clip_margin(how: How, units: int) -> float:
    """Returns which share of C goes to rounding, of one contribution and of the sum of a draw.

    >>> [round(clip_margin(How("fast", name), 671), 4) for name in formats.FORMATS]
    [0.0036, 0.0145, 0.0145]
    """
    form = how.form
    return 1 - (1 - form.margin) * (1 - rounding.margin(units, form.unit))


def strict_bound(how: How, l2_clip_norm: float, units: int) -> Array:
    """Returns what a norm is clipped to, so that one unit moves the rounded sum by at most C.

    Args:
      l2_clip_norm: C.
      units: a public bound on the units of a draw, see `rounding`.
    """
    margin = None if how.form is formats.FLOAT32 else how.form.margin
    return clipping.strict_bound(rounding.bound(l2_clip_norm, units, how.form.unit), margin)


def clipped_sum(
    how: How,
    loss_fn: clipping.LossFn,
    params: PyTree,
    batch: PyTree,
    keys: Array,
    mask: Array,
    *,
    l2_clip_norm: float,
    units: int = 0,
) -> PyTree:
    """Returns the sum of `clipping.clipped_sum`, made as `how` says."""
    clip = rounding.bound(l2_clip_norm, units, how.form.unit)
    margin = None if how.form is formats.FLOAT32 else how.form.margin
    scales_of = lambda norms, mask: clipping.scales_from_norms(norms, mask, clip, margin)
    return clipped_sum_by(how, loss_fn, params, batch, keys, mask, scales_of=scales_of)[0]


def clipped_sum_by(
    how: How,
    loss_fn: clipping.LossFn,
    params: PyTree,
    batch: PyTree,
    keys: Array,
    mask: Array,
    *,
    scales_of: clipping.Scales,
) -> tuple[PyTree, Array]:
    """Returns what `clipping.clipped_sum_by` does, made as `how` says."""
    given = (loss_fn, params, batch, keys, mask)
    if how.is_batched:
        return batched.clipped_sum_by(*given, scales_of=scales_of, form=how.form)
    way = fast.clipped_sum_by if how.clipping == "fast" else clipping.clipped_sum_by
    return way(*given, scales_of=scales_of)
