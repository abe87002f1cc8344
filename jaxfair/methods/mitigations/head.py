"""The last layer once more, on classes and groups that weigh the same.

Source: Kirichenko et al. 2022 (arXiv 2204.02937), who balance by leaving images out; here cells
are balanced by weights, so that nobody's membership depends on others (protocol P15).
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from jaxfair.errors import InputError, nearest
from jaxfair.methods.base import Example, Method, PyTree, Stage
from jaxfair.methods.labels import asked_labels
from jaxfair.methods.mitigations.groups import Grouped, check_share, check_weight, group_of
from jaxfair.methods.mitigations.views import seen_through, then, without

__all__ = ["BalancedHead", "retrain_head"]

NAME = "balanced_head"
"""In the frozen part of the last stage: all parameters but those of the head."""

HEAD = "head"
"""The part of a Method's parameters that is trained further."""


@dataclasses.dataclass(frozen=True)
class BalancedHead(Grouped):
    """The head is trained further, alone, with cells of label and group that weigh the same.

    Attributes:
      shares: the declared share of each cell among training images, group after group, its
        negatives before its positives; they add up to 1. Public constants: never counted.
      label: the task whose positives and negatives are balanced; "" for the first.
      share: of all steps, those of the last stage.

    Raises InputError for a value outside these.
    """

    shares: tuple[float, ...] = ()
    label: str = ""
    share: float = 0.25

    def __post_init__(self) -> None:
        super().__post_init__()
        if isinstance(self.shares, str):
            raise InputError(
                f"mitigation.shares is {self.shares!r}; shares are public constants and never "
                "computed from private data: declare one number for each cell."
            )
        object.__setattr__(self, "shares", tuple(self.shares))
        check_share(self.share)
        if len(self.shares) != 2 * self.groups or abs(sum(self.shares) - 1) > 0.01:
            raise InputError(
                f"mitigation.shares has {len(self.shares)} numbers with the sum "
                f"{sum(self.shares):g}; give two for each of the {self.groups} groups by "
                f"{' and '.join(self.by)}, negatives before positives, that add up to 1."
            )
        for share in self.shares:
            check_weight("shares", share)
        for weight in self.weights:
            check_weight("shares", weight)

    @property
    def weights(self) -> tuple[float, ...]:
        """Of each cell: 1 / (cells x share), so that by the declared shares the mean is 1."""
        return tuple(1 / (len(self.shares) * share) for share in self.shares)


def retrain_head(config: BalancedHead, method: Method) -> Method:
    """Returns `method` and, as its last stage, its head trained further on balanced cells.

    The head begins as it was; the rest of the network stands still. A Method with stages of its
    own gets this one after them, and they keep their proportions.

    Guarantee: the frozen rest is a function of noisy sums that were released and paid for in the
    same ledger. The weight of an example is a public constant of its own label and group, and
    comes before the clip; so one unit moves each sum by at most C, and adaptive composition prices
    all steps as before. Shares that were counted would be a query of their own, and are refused.
    Cost: the steps of this stage, each cheaper than one of the whole network. An example weighs 1
    where its group is unknown or its label was not asked.

    Raises InputError for a Method without the task, or whose parameters have no head.
    """
    if config.label not in ("", *method.tasks):
        raise InputError(
            f"mitigation.label is {config.label!r}; the tasks of {method.name!r} are "
            f"{', '.join(method.tasks)}.{nearest(config.label, method.tasks)}"
        )
    last = method.stages[-1].method if method.stages else method

    head = seen_through(last, NAME, _joined)
    place = method.tasks.index(config.label) if config.label else 0

    def loss(params: PyTree, frozen: PyTree, example: Example, key: Any) -> tuple[Any, dict]:
        value, aux = head.loss(params, frozen, example, key)
        return value * _weight(config, place, example), aux

    named = head._replace(name=f"head of {last.name}", loss=loss, stages=())
    return then(method, Stage(named, _part, config.share))


def _joined(params: PyTree, frozen: PyTree) -> tuple[PyTree, PyTree]:
    return {**frozen[NAME], **params}, without(frozen, NAME)


def _part(params: PyTree, frozen: PyTree, key: Any, spec: Any) -> tuple[PyTree, PyTree]:
    if HEAD not in params:
        raise InputError(
            "The mitigation 'balanced_head' trains the part 'head' of the parameters further, and "
            f"there are only {', '.join(params)}: use it with a classifier."
        )
    return {HEAD: params[HEAD]}, {**frozen, NAME: without(params, HEAD)}


def _weight(config: BalancedHead, place: int, example: Example) -> jax.Array:
    label, was_asked = asked_labels(example)
    group = group_of(config, example)
    known = was_asked[place] & (group < config.groups)
    positive = (label[place] > 0.5).astype(jnp.int32)
    cell = jnp.where(known, 2 * group + positive, len(config.weights))
    return jnp.asarray((*config.weights, 1.0), jnp.float32)[cell]
