"""A Method whose variables lie among others, and Methods one after the other."""

from collections.abc import Callable
from typing import Any

from jaxfair.errors import InputError
from jaxfair.methods.base import Example, Method, PyTree, Stage

__all__ = ["seen_through", "then", "weighed_by", "without"]

Own = Callable[[PyTree, PyTree], tuple[PyTree, PyTree]]


def without(tree: PyTree, name: str) -> PyTree:
    """Returns a mapping without one of its names."""
    return {key: value for key, value in tree.items() if key != name}


def seen_through(method: Method, name: str, own: Own) -> Method:
    """Returns `method` on other variables, from which `own` makes those that it knows.

    Args:
      method: its frozen part is a mapping.
      name: what stands in the frozen part beside the Method's own, if anything; not handed on.
      own: `(params, frozen) -> (params, frozen)` as the Method has them.
    """
    hidden = lambda frozen: without(frozen, name)

    def through(fun: Callable[..., Any] | None) -> Any:
        if fun is None:
            return None
        return lambda params, frozen, *rest: fun(*own(params, frozen), *rest)

    def prepare(frozen: PyTree, raw: Example) -> Example:
        return method.prepare(hidden(frozen), raw)  # type: ignore[misc]

    def schedule(frozen: PyTree, progress: Any) -> PyTree:
        beside = {key: value for key, value in frozen.items() if key == name}
        return {**method.schedule(hidden(frozen), progress), **beside}  # type: ignore[misc]

    return method._replace(
        loss=through(method.loss),
        score=through(method.score),
        embed=through(method.embed),
        batch_loss=through(method.batch_loss),
        prepare=None if method.prepare is None else prepare,
        schedule=None if method.schedule is None else schedule,
    )


def then(method: Method, stage: Stage) -> Method:
    """Returns `method` with one more stage; the others get what it leaves, in their proportions."""
    before = tuple(s._replace(share=s.share * (1 - stage.share)) for s in method.stages)
    return method._replace(stages=(*before, stage))


def weighed_by(name: str, told: str, number: Callable[[Example], Any], method: Method) -> Method:
    """Returns `method`, its later stages too, with each loss times a weight that the step tells.

    Args:
      name: of the mitigation, for the sentence.
      told: the name in the frozen part under which a clip rule puts the weights, one by number.
      number: `(example) -> int32`, whose weight an example has; -1 for the last.

    Raises InputError for a Method with a `batch_loss`, whose examples have no loss of their own.
    """
    if method.batch_loss is not None:
        raise InputError(
            f"The mitigation {name!r} weighs the loss of each example, and {method.name!r} has a "
            "loss over batches: leave one of the two out."
        )

    def loss(params: PyTree, frozen: PyTree, example: Example, key: Any) -> tuple[Any, dict]:
        value, aux = method.loss(params, without(frozen, told), example, key)
        return value * frozen[told][number(example)], aux

    later = tuple(
        s._replace(method=weighed_by(name, told, number, s.method)) for s in method.stages
    )
    return method._replace(loss=loss, stages=later)
