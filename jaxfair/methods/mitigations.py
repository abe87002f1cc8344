"""Mitigations by name: functions Method -> Method that serve groups more evenly.

A new one is a function and a line in MITIGATIONS. Each states its guarantee: why the private
step's bound holds with it, and what it costs.
"""

import dataclasses
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp

from jaxfair.errors import InputError, nearest
from jaxfair.methods.base import Example, Method, PyTree

__all__ = ["MITIGATIONS", "GroupWeights", "Mitigation", "mitigated", "weigh_groups"]

MAX_WEIGHT = 1000.0


@dataclasses.dataclass(frozen=True)
class GroupWeights:
    """`config.mitigation` of "group_weights".

    Attributes:
      weights: a public constant in (0, 1000] for each code of the group, in their order.
      attribute: which attribute of an example's `group` (k,) it is, from 0.

    Raises InputError for other weights.
    """

    weights: tuple[float, ...] = ()
    attribute: int = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "weights", tuple(self.weights))
        for weight in self.weights:
            if not (math.isfinite(weight) and 0 < weight <= MAX_WEIGHT):
                raise InputError(
                    f"mitigation.weights holds {weight}; a weight is a public constant in (0, "
                    f"{MAX_WEIGHT:g}]."
                )
        if not self.weights or self.attribute < 0:
            raise InputError(
                f"mitigation.weights is {self.weights} for attribute {self.attribute}; give a "
                "weight for each group of an attribute that data.groups names, counted from 0."
            )


def weigh_groups(config: GroupWeights, method: Method) -> Method:
    """Returns `method` with each example's loss times the public weight of its group.

    Guarantee: the weight is a function of the example itself and of public constants, and the
    loss is weighted before its gradient is clipped; so one unit still moves the sum by at most
    C, and the plan prices the run as before. Cost: none. It is no rescaling by the batch, which
    would couple examples. An unknown group, -1, weighs 1. Later stages are weighted alike.

    Raises InputError for a Method with a `batch_loss`, whose examples have no loss of their own.
    """
    if method.batch_loss is not None:
        raise InputError(
            f"The mitigation 'group_weights' weighs the loss of each example, and {method.name!r} "
            "has a loss over batches: leave one of the two out."
        )

    def loss(params: PyTree, frozen: PyTree, example: Example, key: Any) -> tuple[Any, dict]:
        value, aux = method.loss(params, frozen, example, key)
        code = example["group"][config.attribute]
        known = jnp.asarray(config.weights, jnp.float32)[jnp.clip(code, 0, len(config.weights) - 1)]
        return value * jnp.where(code < 0, 1.0, known), aux

    later = tuple(s._replace(method=weigh_groups(config, s.method)) for s in method.stages)
    return method._replace(loss=loss, stages=later)


class Mitigation(NamedTuple):
    """Attributes:
    config: its frozen config class, `config.mitigation` of a config file.
    apply: `(config, Method) -> Method`.
    """

    config: Any
    apply: Callable[[Any, Method], Method]


MITIGATIONS: dict[str, Mitigation] = {
    "group_weights": Mitigation(GroupWeights, weigh_groups),
}


def mitigated(name: str, config: Any, method: Method) -> Method:
    """Returns `method` under the mitigation `name`; raises InputError for an unknown name."""
    if name not in MITIGATIONS:
        known = ", ".join(MITIGATIONS)
        raise InputError(
            f"There is no mitigation {name!r}; known are {known}.{nearest(name, MITIGATIONS)}"
        )
    return MITIGATIONS[name].apply(config, method)
