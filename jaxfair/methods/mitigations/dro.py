"""Group DRO: the worst group's loss, by weights of groups that grow with their losses.

Source: Sagawa et al. 2020 (arXiv 1911.08731), algorithm 1.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from jaxfair.errors import InputError
from jaxfair.methods.base import Example, Method, PyTree, no_loss
from jaxfair.methods.mitigations.groups import Grouped, group_of
from jaxfair.methods.mitigations.views import seen_through, without

__all__ = ["NAME", "GroupDRO", "worst_group"]

NAME = "group_dro"
"""In the parameters: the logarithm of each group's weight, up to a constant."""


@dataclasses.dataclass(frozen=True)
class GroupDRO(Grouped):
    """The weights of groups grow with their losses in the batch.

    Attributes:
      rate: by how much the logarithm of a weight grows in a step, for a loss of 1.

    Raises InputError for a rate that is not positive.
    """

    rate: float = 0.01

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.rate < 1e6:
            raise InputError(f"mitigation.rate is {self.rate}; it must be positive.")

    @property
    def parts(self) -> dict[str, dict[str, Any]]:
        """The optimiser of the weights, for `optim.parts`: by it a step is exponentiated ascent."""
        sgd = {"name": "sgd", "learning_rate": self.rate, "momentum": 0.0, "decay_steps": 0}
        return {NAME: sgd}


def worst_group(config: GroupDRO, method: Method) -> Method:
    """Returns `method` with sum_g q_g loss_g in place of its loss; q_g <- q_g exp(rate loss_g).

    Here loss_g is the mean over the examples of group g in a microbatch, 0 where it has none, so
    large microbatches serve better. The unknown are a group of their own. The logarithms of q are
    parameters whose gradient is minus the groups' losses: they are saved and restored with the
    model, and `GroupDRO.parts` is their optimiser.

    Guarantee: none. A group's loss, and so its weight, is a statistic of other patients: the step
    refuses it under privacy. It would take an accounted query of the clipped losses of the groups
    in the one release of each step (protocol P9). Cost: none in time.

    Raises InputError for a Method with stages of its own.
    """
    if method.stages:
        raise InputError(
            f"The mitigation 'group_dro' weighs the loss of one training, and {method.name!r} has "
            "stages of its own: use another mitigation, or none."
        )
    own = seen_through(method, NAME, lambda params, frozen: (without(params, NAME), frozen))

    def init(key: Any, spec: Any) -> tuple[PyTree, PyTree]:
        params, frozen = method.init(key, spec)
        return {**params, NAME: {"log_weights": jnp.zeros(config.groups + 1)}}, frozen

    def batch_loss(
        params: PyTree, frozen: PyTree, batch: Example, mask: jax.Array, keys: Any
    ) -> jax.Array:
        losses = jax.vmap(own.loss, in_axes=(None, None, 0, 0))(params, frozen, batch, keys)[0]
        by_group = _group_means(config, losses, batch, mask)
        value = _value(params[NAME]["log_weights"], by_group)
        if own.batch_loss is None:
            return value
        return value + own.batch_loss(params, frozen, batch, mask, keys)

    return own._replace(init=init, loss=no_loss, batch_loss=batch_loss)


def _group_means(config: GroupDRO, losses: jax.Array, batch: Example, mask: jax.Array) -> jax.Array:
    """Returns (groups + 1,): the mean loss of each group's rows, 0 where there are none."""
    group = jax.vmap(lambda example: group_of(config, example))({"group": batch["group"]})
    member = jax.nn.one_hot(group, config.groups + 1) * mask[:, None]
    total = jnp.sum(member * jnp.where(mask, losses, 0)[:, None], axis=0)
    return total / jnp.maximum(jnp.sum(member, axis=0), 1)


def _value(log_weights: jax.Array, by_group: jax.Array) -> jax.Array:
    """sum_g q_g loss_g for the model; minus the losses is the gradient of the logarithms."""
    fixed = jax.lax.stop_gradient
    model = jnp.sum(fixed(jax.nn.softmax(log_weights)) * by_group)
    return model - jnp.sum((log_weights - fixed(log_weights)) * fixed(by_group))
