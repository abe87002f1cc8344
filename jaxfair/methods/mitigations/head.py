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
from jaxfair.methods.mitigations.groups import (
    Grouped,
    check_share,
    check_shares,
    check_weight,
    group_of,
)
from jaxfair.methods.mitigations.views import seen_through, then, without

__all__ = ["BalancedHead", "RefitHead", "refit_head", "retrain_head"]

NAME = "balanced_head"
"""In the frozen part of the last stage: all parameters but those of the last layer."""

HEADS = ("head", "out")
"""The part of a Method's parameters that is trained further; "out" is a feature autoencoder's."""


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
        cells = f"cells by {' and '.join(self.by)}, negatives before positives"
        shares = check_shares(self.shares, 2 * self.groups, cells)
        object.__setattr__(self, "shares", shares)
        check_share(self.share)
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

    Raises InputError for a Method without the task or without labels, and for one whose parameters
    have no head.
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


@dataclasses.dataclass(frozen=True)
class RefitHead:
    """The last layer is trained further, alone, on the network as it was released.

    Attributes:
      share: of all steps, those of the last stage.
      afresh: it begins at zero, and not as it was.
      averaged: the network that it reads is the average that `optim.average` kept, and not that of
        the last step before.

    Raises InputError for a value outside these.
    """

    share: float = 0.25
    afresh: bool = False
    averaged: bool = False

    def __post_init__(self) -> None:
        check_share(self.share)


def refit_head(config: RefitHead, method: Method) -> Method:
    """Returns `method` and, as its last stage, its last layer trained further, alone.

    Guarantee: the frozen rest is a function of noisy sums that were released and paid for in the
    same ledger, so the refit is a private training like any other: one unit moves each of its sums
    by at most C, and adaptive composition prices all steps within the one budget. Cost: the steps
    of this stage, each cheaper than one of the whole network; the noise falls on the last layer
    alone, where it has the norm sigma C sqrt(its parameters).

    Raises InputError for a Method whose parameters have no last layer of these names.
    """
    last = method.stages[-1].method if method.stages else method

    def begin(params: PyTree, frozen: PyTree, key: Any, spec: Any) -> tuple[PyTree, PyTree]:
        head, rest = _part(params, frozen, key, spec)
        return (jax.tree.map(jnp.zeros_like, head) if config.afresh else head), rest

    head = seen_through(last, NAME, _joined)._replace(name=f"head of {last.name}", stages=())
    return then(method, Stage(head, begin, config.share, averaged=config.averaged))


def _joined(params: PyTree, frozen: PyTree) -> tuple[PyTree, PyTree]:
    return {**frozen[NAME], **params}, without(frozen, NAME)


def _part(params: PyTree, frozen: PyTree, key: Any, spec: Any) -> tuple[PyTree, PyTree]:
    name = next((name for name in HEADS if name in params), None)
    if name is None:
        raise InputError(
            f"A mitigation that trains the last layer further asks for {' or '.join(HEADS)} among "
            f"the parameters, and there are only {', '.join(params)}: use it with a classifier, a "
            "probe or a feature autoencoder."
        )
    return {name: params[name]}, {**frozen, NAME: without(params, name)}


def _weight(config: BalancedHead, place: int, example: Example) -> jax.Array:
    if "label" not in example:
        raise InputError(
            "The mitigation 'balanced_head' balances cells of label and group, and this method "
            "trains without labels: use it with a classifier or a probe, or take 'refit_head'."
        )
    label, was_asked = asked_labels(example)
    group = group_of(config, example)
    known = was_asked[place] & (group < config.groups)
    positive = (label[place] > 0.5).astype(jnp.int32)
    cell = jnp.where(known, 2 * group + positive, len(config.weights))
    return jnp.asarray((*config.weights, 1.0), jnp.float32)[cell]
