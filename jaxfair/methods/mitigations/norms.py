"""Scale and shift of the norms by group, as FairAdaBN, on norms that read one image alone.

Source: Xu et al. 2023 (arXiv 2303.08325), whose BatchNorm by group normalises by the statistics of
a batch; GroupNorm and stored statistics need none.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from jaxfair.errors import InputError
from jaxfair.methods.base import Example, Method, PyTree
from jaxfair.methods.mitigations.groups import Grouped, group_of

__all__ = ["GroupNorms", "norms_by_group"]

NORM = {"scale", "bias"}
"""What the parameters of a norm are called (models.norms)."""

DROPS = 0x6E6F726D
"""Which of the streams of an example's key decides whether its group is dropped."""


@dataclasses.dataclass(frozen=True)
class GroupNorms(Grouped):
    """Each group has its own scale and shift in every norm that is trained.

    Attributes:
      drop: chance that an example is taken as of unknown group in a step, so that the norms of
        the unknown are trained too; in [0, 1).

    Raises InputError for a value outside these.
    """

    drop: float = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.drop < 1:
            raise InputError(f"mitigation.drop is {self.drop}; it is a chance in [0, 1).")


def norms_by_group(config: GroupNorms, method: Method) -> Method:
    """Returns `method` with a table of scales and shifts, a row for each group, in every norm.

    The last row is that of the unknown. All rows begin alike. The loss reads the row of the
    example's group, the score that of each image: the model needs the group at test time, and
    has an answer without it. Of a Method with stages the last one is changed.

    Guarantee: which row is read follows from the example's own group and its own key, so the loss
    is one of the example alone, and its gradient is zero in all other rows; over all rows together
    it is clipped as one vector. One unit still moves the sum by at most C, and the plan prices the
    run as before. Cost: none in epsilon; all rows get noise, and each learns from its group alone.

    Raises InputError for a Method without norms that are trained, or with a `batch_loss`.
    """
    if method.stages:
        *before, last = method.stages
        changed = last._replace(
            method=norms_by_group(config, last.method),
            begin=lambda *given: _tabled(config, last.method, last.begin(*given)),
        )
        return method._replace(stages=(*before, changed))
    if method.batch_loss is not None:
        raise InputError(
            f"The mitigation 'group_norms' gives each example its own norms, and {method.name!r} "
            "has a loss of whole batches: leave one of them out."
        )

    def init(key: Any, spec: Any) -> tuple[PyTree, PyTree]:
        return _tabled(config, method, method.init(key, spec))

    def loss(params: PyTree, frozen: PyTree, example: Example, key: Any) -> tuple[Any, dict]:
        dropped = jax.random.bernoulli(jax.random.fold_in(key, DROPS), config.drop)
        row = jnp.where(dropped, config.groups, group_of(config, example))
        return method.loss(_row(params, row), frozen, example, key)

    embed = None if method.embed is None else _by_row(config, method.embed)
    return method._replace(init=init, loss=loss, score=_by_row(config, method.score), embed=embed)


def _by_row(config: GroupNorms, fun: Any) -> Any:
    """A function of a batch, `(params, frozen, batch)`, in which each row reads its own norms."""

    def one(params: PyTree, frozen: PyTree, example: Example) -> dict[str, Any]:
        batch = jax.tree.map(lambda a: a[None], example)
        found = fun(_row(params, group_of(config, example)), frozen, batch)
        return jax.tree.map(lambda a: a[0], found)

    return jax.vmap(one, in_axes=(None, None, 0))


def _tabled(config: GroupNorms, method: Method, variables: Any) -> tuple[PyTree, PyTree]:
    params, frozen = variables
    table = lambda leaf: jnp.tile(leaf, (config.groups + 1, 1))
    found = _mapped(table, params)
    if jax.tree.map(jnp.shape, found) == jax.tree.map(jnp.shape, params):
        raise InputError(
            f"The mitigation 'group_norms' needs norms with a scale and a shift that are trained, "
            f"and {method.name!r} has none here: use it with a network whose norms are not frozen."
        )
    return found, frozen


def _row(params: PyTree, row: jax.Array) -> PyTree:
    return _mapped(lambda table: table[row], params)


def _mapped(fun: Any, tree: PyTree) -> PyTree:
    """Returns the tree with `fun` of each leaf of its norms."""
    if not isinstance(tree, dict):
        return tree
    if set(tree) == NORM:
        return {name: fun(leaf) for name, leaf in tree.items()}
    return {name: _mapped(fun, part) for name, part in tree.items()}
