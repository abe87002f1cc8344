"""Group DRO: the worst group's loss, by weights of groups that grow with their losses.

Source: Sagawa et al. 2020 (arXiv 1911.08731), algorithm 1. Without privacy it stands here; with it
the losses of groups are bought with noise, in `privacy.cliprules.group_losses`.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from jaxfair.errors import InputError
from jaxfair.methods.base import Example, Method, PyTree, no_loss
from jaxfair.methods.mitigations.groups import Grouped, group_of
from jaxfair.methods.mitigations.views import seen_through, weighed_by, without
from jaxfair.privacy.cliprules.base import ClipRule
from jaxfair.privacy.cliprules.group_losses import INPUT, group_losses

__all__ = ["NAME", "GroupDRO", "worst_group"]

NAME = "group_dro"
"""In the parameters: the logarithm of each group's weight, up to a constant."""


@dataclasses.dataclass(frozen=True)
class GroupDRO(Grouped):
    """The weights of groups grow with their losses; under privacy with noisy ones.

    Attributes:
      rate: by how much the logarithm of a weight grows in a step, for a loss of 1 (under privacy
        of `bound`).
      bound: under privacy: losses are clipped to [0, bound] for the side query, a public constant.
      memory: under privacy: how much of the noisy sums before is kept in each step, in [0, 1).
      query_share: under privacy: part of each draw's budget for the losses, in (0, 1).
      after_clip: under privacy: whether the clipped gradient is weighed and not the loss, whose
        weight does nothing where the gradient is clipped anyway; noise in proportion to the
        largest weight.
      private: which form it has; left out, dp.enabled.

    Raises InputError for numbers that cannot be.
    """

    rate: float = 0.01
    bound: float = 1.0
    memory: float = 0.9
    query_share: float = 0.05
    after_clip: bool = False
    private: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.rate < 1e6:
            raise InputError(f"mitigation.rate is {self.rate}; it must be positive.")
        self.rule()

    def rule(self) -> ClipRule | None:
        """Returns the rule that buys the losses of groups, its numbers checked; None without."""
        made = group_losses(
            groups=self.groups + 1,
            group=lambda example: group_of(self, example),
            rate=self.rate,
            bound=self.bound,
            memory=self.memory,
            query_share=self.query_share,
            after_clip=self.after_clip,
        )
        return made if self.private else None

    @property
    def parts(self) -> dict[str, dict[str, Any]]:
        """The optimiser of the weights, for `optim.parts`: by it a step is exponentiated ascent.

        {} under privacy, where the weights are no parameters.
        """
        if self.private:
            return {}
        sgd = {"name": "sgd", "learning_rate": self.rate, "momentum": 0.0, "decay_steps": 0}
        return {NAME: sgd}


def worst_group(config: GroupDRO, method: Method) -> Method:
    """Returns `method` with sum_g q_g loss_g in place of its loss; q_g <- q_g exp(rate loss_g).

    Here loss_g is the mean over the examples of group g in a microbatch, 0 where it has none, so
    large microbatches serve better. The unknown are a group of their own. The logarithms of q are
    parameters whose gradient is minus the groups' losses: they are saved and restored with the
    model, and `GroupDRO.parts` is their optimiser.

    Guarantee: in this form none, since a group's loss is a statistic of other patients, and the
    step refuses it under privacy. Under privacy (`config.private`) an example's loss has the weight
    q_g / share_g of its own group, a function of noisy sums of earlier draws, before the clip; the
    clipped losses of the groups are a side query in the one release of each step (protocol P9),
    of norm sqrt(2) at most for each unit (`privacy.cliprules.group_losses`). With `after_clip` the
    Method stays as it is and the clip rule weighs. Cost: none in time
    here; `query_share` of each draw's budget and a second forward pass there.

    Raises InputError for a Method with stages of its own.
    """
    if config.private and config.after_clip:
        return method
    if config.private:
        return weighed_by("group_dro", INPUT, lambda example: group_of(config, example), method)
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
