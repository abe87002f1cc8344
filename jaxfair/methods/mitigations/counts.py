"""Reweighting by noisy counts: rare cells of label and group weigh more, and counts are paid."""

import dataclasses

import jax
import jax.numpy as jnp

from jaxfair.errors import InputError, nearest
from jaxfair.methods.base import Example, Method
from jaxfair.methods.labels import asked_labels
from jaxfair.methods.mitigations.groups import Grouped, group_of
from jaxfair.methods.mitigations.views import weighed_by
from jaxfair.privacy.cliprules.base import ClipRule
from jaxfair.privacy.cliprules.cell_counts import INPUT, cell_counts

__all__ = ["NoisyCounts", "weigh_by_counts"]


@dataclasses.dataclass(frozen=True)
class NoisyCounts(Grouped):
    """Each example's loss is weighed by how rare its cell is, by counts that are bought with noise.

    Attributes:
      label: the task whose positives and negatives are cells too; "" for groups alone.
      labels: names of the labels of an example; left out, those of the data.
      most: the largest weight, a public constant.
      query_share: part of each draw's budget for the counts, in (0, 1).
      after_clip: whether the clipped gradient is weighed and not the loss, whose weight does
        nothing where the gradient is clipped anyway; noise in proportion to the largest weight.

    Raises InputError for numbers that cannot be and for a label that there is not.
    """

    label: str = ""
    labels: tuple[str, ...] = ()
    most: float = 20.0
    query_share: float = 0.01
    after_clip: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "labels", tuple(self.labels))
        if self.label not in ("", *self.labels):
            raise InputError(
                f"mitigation.label is {self.label!r}; the labels are {', '.join(self.labels)}."
                f"{nearest(self.label, self.labels)}"
            )
        self.rule()

    @property
    def cells(self) -> int:
        """How many cells there are, the unknown not counted."""
        return self.groups * (2 if self.label else 1)

    def rule(self) -> ClipRule:
        """Returns the rule that buys the counts, its numbers checked."""
        return cell_counts(
            cells=self.cells,
            cell=lambda example: _cell(self, example),
            most=self.most,
            query_share=self.query_share,
            after_clip=self.after_clip,
        )


def weigh_by_counts(config: NoisyCounts, method: Method) -> Method:
    """Returns `method` with each example's loss times 1 / (cells x noisy share of its cell).

    Guarantee: that of `privacy.cliprules.cell_counts`: counts are a side query of each draw, of
    sensitivity 1 and in one release with the gradient, and their weights count from the next draw
    on; a weight is that of the example's own cell and comes before the clip. An example of unknown
    group or label is not counted and weighs 1. Cost: `query_share` of each draw's budget; noise on
    the gradient larger by 1 / sqrt(1 - query_share). With `after_clip` the Method stays as it is
    and the clip rule weighs.

    Raises InputError for a Method with a `batch_loss`, and without labels where one is named.
    """
    if config.after_clip:
        return method
    return weighed_by("noisy_counts", INPUT, lambda example: _cell(config, example), method)


def _cell(config: NoisyCounts, example: Example) -> jax.Array:
    group = group_of(config, example)
    known = group < config.groups
    if not config.label:
        return jnp.where(known, group, -1)
    if "label" not in example:
        raise InputError(
            f"mitigation.label is {config.label!r}, and this method trains without labels: leave "
            "it out, so that groups alone are counted."
        )
    label, was_asked = asked_labels(example)
    place = config.labels.index(config.label)
    positive = (label[place] > 0.5).astype(jnp.int32)
    return jnp.where(known & was_asked[place], 2 * group + positive, -1)
