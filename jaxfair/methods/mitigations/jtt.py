"""Just train twice: what a first model gets wrong counts more for the second.

No group need be known. Source: Liu et al. 2021 (arXiv 2107.09044).
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from jaxfair.errors import InputError, nearest
from jaxfair.methods.base import Example, Method, PyTree, Stage
from jaxfair.methods.labels import asked_labels
from jaxfair.methods.mitigations.groups import check_share, check_weight
from jaxfair.methods.mitigations.views import seen_through, then, without

__all__ = ["TrainTwice", "train_twice"]

NAME = "jtt"
"""In the frozen part: the parameters of the model that is not trained."""


@dataclasses.dataclass(frozen=True)
class TrainTwice:
    """Two trainings, the second with the mistakes of the first weighing more.

    Attributes:
      weight: public constant in (0, 1000], of an example that the first model gets wrong; others
        weigh 1.
      label: the task that must be right; "" for all that were asked of the image.
      share: of all steps, those of the second training.

    Raises InputError for a value outside these.
    """

    weight: float = 5.0
    label: str = ""
    share: float = 0.75

    def __post_init__(self) -> None:
        check_weight("weight", self.weight)
        check_share(self.share)


def train_twice(config: TrainTwice, method: Method) -> Method:
    """Returns `method` and, as a second stage, the same from its first parameters once more.

    There an example's loss weighs `weight` where the first model, as it ended, puts the score of a
    label on the other side of 1/2 than the label (of one label of many, "multi-class": gives the
    true one less than 1/2), on the image without augmentation; else 1.

    Guarantee: every parameter of the first model is a function of noisy sums, which were released
    and paid for in the same ledger. With it fixed, the weight is a function of the example itself
    and of public constants, and comes before the clip; so nobody's weight depends on who else is
    there, one unit moves each sum of the second stage by at most C as in the first, and adaptive
    composition prices all steps as before. No list of mistakes is kept, counted or written.
    Cost: the steps of the first model, and one more forward pass in each step of the second.

    Raises InputError for a Method with stages of its own, without labels, or without this task.
    """
    if method.stages:
        raise InputError(
            f"The mitigation 'jtt' trains a Method once more from its beginning, and "
            f"{method.name!r} has stages of its own: use another mitigation, or none."
        )
    if config.label not in ("", *method.tasks):
        raise InputError(
            f"mitigation.label is {config.label!r}; the tasks of {method.name!r} are "
            f"{', '.join(method.tasks)}.{nearest(config.label, method.tasks)}"
        )
    first = seen_through(method, NAME, lambda params, frozen: (params, without(frozen, NAME)))

    def init(key: Any, spec: Any) -> tuple[PyTree, PyTree]:
        params, frozen = method.init(key, spec)
        return params, {**frozen, NAME: jax.tree.map(jnp.copy, params)}

    def loss(params: PyTree, frozen: PyTree, example: Example, key: Any) -> tuple[Any, dict]:
        value, aux = first.loss(params, frozen, example, key)
        wrong = _is_wrong(config, method, frozen[NAME], without(frozen, NAME), example)
        return value * jnp.where(wrong, jnp.float32(config.weight), 1.0), aux

    second = Stage(
        first._replace(name=f"{method.name} once more", loss=loss), _change, config.share
    )
    return then(first._replace(init=init), second)


def _change(params: PyTree, frozen: PyTree, key: Any, spec: Any) -> tuple[PyTree, PyTree]:
    """The model that was trained is frozen, and the one that was kept as it began is trained."""
    return frozen[NAME], {**frozen, NAME: params}


def _is_wrong(
    config: TrainTwice, method: Method, params: PyTree, frozen: PyTree, example: Example
) -> jax.Array:
    if "label" not in example:
        raise InputError(
            f"The mitigation 'jtt' asks which labels were predicted wrongly, and {method.name!r} "
            "trains without labels: use it with a classifier."
        )
    scores = method.score(params, frozen, jax.tree.map(lambda a: a[None], example))
    label, was_asked = asked_labels(example)
    predicted = jnp.stack([scores[task][0] for task in method.tasks]) > 0.5
    counts = jnp.asarray([config.label in ("", task) for task in method.tasks])
    return jnp.any((predicted != (label > 0.5)) & was_asked & counts)
