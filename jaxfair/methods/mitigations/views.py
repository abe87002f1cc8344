"""A Method whose variables lie among others, and Methods one after the other."""

from collections.abc import Callable
from typing import Any

from jaxfair.methods.base import Example, Method, PyTree, Stage

__all__ = ["seen_through", "then", "without"]

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
        learned=through(method.learned),
    )


def then(method: Method, stage: Stage) -> Method:
    """Returns `method` with one more stage; the others get what it leaves, in their proportions."""
    before = tuple(s._replace(share=s.share * (1 - stage.share)) for s in method.stages)
    return method._replace(stages=(*before, stage))
