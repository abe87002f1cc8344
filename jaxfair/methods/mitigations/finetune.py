"""Fine-tuning on chosen groups: the last steps of a training hear them alone.

The thesis trained on a mixture, then on the group that was served worse, and added the epsilons of
both. Here both stages stand in one ledger and are priced together.
"""

import dataclasses
from typing import Any

import jax.numpy as jnp

from jaxfair.errors import InputError
from jaxfair.methods.base import Example, Method, PyTree, Stage
from jaxfair.methods.mitigations.groups import Grouped, check_share, group_of
from jaxfair.methods.mitigations.views import then

__all__ = ["FineTune", "fine_tune"]


@dataclasses.dataclass(frozen=True)
class FineTune(Grouped):
    """The last steps train on chosen groups alone, paid in one composition with the rest.

    Attributes:
      chosen: numbers of the groups that the last stage hears, from 0, in the order of the groups.
      share: of all steps, those of the last stage.

    Raises InputError for a value outside these.
    """

    chosen: tuple[int, ...] = ()
    share: float = 0.25

    def __post_init__(self) -> None:
        super().__post_init__()
        chosen = (self.chosen,) if isinstance(self.chosen, int) else tuple(self.chosen)
        object.__setattr__(self, "chosen", chosen)
        check_share(self.share)
        if not chosen or not set(chosen) < set(range(self.groups)):
            raise InputError(
                f"mitigation.chosen is {chosen}; name some, and not all, of the {self.groups} "
                f"groups by {' and '.join(self.by)} by their numbers, from 0."
            )


def fine_tune(config: FineTune, method: Method) -> Method:
    """Returns `method` and, as its last stage, the same trained further on the chosen groups.

    There an example's loss weighs 1 in a chosen group, and 0 in others and the unknown. The
    optimiser begins anew.

    Guarantee: the weight is a public function of the example's own group and comes before the clip,
    so one unit still moves each sum by at most C, and one of another group by nothing; both stages
    stand in one ledger and are priced in one composition, which is less than the sum of two
    (`privacy.json` states both). Cost: the steps of the last stage, in which the noise is that of
    whole draws and the sum that of the chosen alone. Two runs (`train.start_from`, the second with
    the mitigation 'composition') draw from the chosen alone, under a rate and a noise of their own.

    Raises InputError for a Method whose last stage has a `batch_loss`.
    """
    last = method.stages[-1].method if method.stages else method
    if last.batch_loss is not None:
        raise InputError(
            f"The mitigation 'fine_tune' chooses among examples, and {method.name!r} has a loss "
            "over batches: leave one of the two out."
        )
    weights = [float(group in config.chosen) for group in range(config.groups)]
    table = jnp.asarray([*weights, 0.0], jnp.float32)

    def loss(params: PyTree, frozen: PyTree, example: Example, key: Any) -> tuple[Any, dict]:
        value, aux = last.loss(params, frozen, example, key)
        return value * table[group_of(config, example)], aux

    tuned = last._replace(name=f"{last.name} on chosen groups", loss=loss, stages=())
    return then(method, Stage(tuned, _as_it_was, config.share))


def _as_it_was(params: PyTree, frozen: PyTree, key: Any, spec: Any) -> tuple[PyTree, PyTree]:
    return params, frozen
