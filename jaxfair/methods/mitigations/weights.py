"""Public weights of groups in the loss."""

import dataclasses
from typing import Any

import jax.numpy as jnp

from jaxfair.errors import InputError
from jaxfair.methods.base import Example, Method, PyTree
from jaxfair.methods.mitigations.groups import Grouped, check_weight, group_of

__all__ = ["GroupWeights", "weigh_groups"]


@dataclasses.dataclass(frozen=True)
class GroupWeights(Grouped):
    """Each example's loss times the public weight of its group.

    Attributes:
      weights: a public constant in (0, 1000] for each group, in their order.

    Raises InputError for other weights.
    """

    weights: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "weights", tuple(self.weights))
        for weight in self.weights:
            check_weight("weights", weight)
        if len(self.weights) != self.groups:
            raise InputError(
                f"mitigation.weights has {len(self.weights)} numbers for the {self.groups} groups "
                f"by {' and '.join(self.by)}; give a weight for each group."
            )


def weigh_groups(config: GroupWeights, method: Method) -> Method:
    """Returns `method` with each example's loss times the public weight of its group.

    Guarantee: the weight is a function of the example itself and of public constants, and the
    loss is weighted before its gradient is clipped; so one unit still moves the sum by at most
    C, and the plan prices the run as before. Cost: none. It is no rescaling by the batch, which
    would couple examples. An unknown group weighs 1. Later stages are weighted alike.

    Raises InputError for a Method with a `batch_loss`, whose examples have no loss of their own.
    """
    if method.batch_loss is not None:
        raise InputError(
            f"The mitigation 'group_weights' weighs the loss of each example, and {method.name!r} "
            "has a loss over batches: leave one of the two out."
        )
    weights = jnp.asarray((*config.weights, 1.0), jnp.float32)

    def loss(params: PyTree, frozen: PyTree, example: Example, key: Any) -> tuple[Any, dict]:
        value, aux = method.loss(params, frozen, example, key)
        return value * weights[group_of(config, example)], aux

    later = tuple(s._replace(method=weigh_groups(config, s.method)) for s in method.stages)
    return method._replace(loss=loss, stages=later)
