"""Parameters in two: what is trained, and what stays."""

from typing import Any

from flax import traverse_util

from jaxfair.errors import InputError

__all__ = ["split", "together"]

PyTree = Any


def split(
    params: PyTree, freeze: tuple[str, ...], *, trained: bool = True
) -> tuple[PyTree, PyTree]:
    """Returns (trained, frozen) of the nested dict `params`; each leaf is in one of them.

    >>> params = {"a": {"x": 1, "y": 2}, "b": {"x": 3}}
    >>> split(params, ("a/y", "b"))
    ({'a': {'x': 1}}, {'a': {'y': 2}, 'b': {'x': 3}})

    Args:
      freeze: beginnings of paths, as "conv1" or "backbone/blocks_0".
      trained: False where all of it stays.

    Raises InputError for a beginning of nothing.
    """
    leaves = traverse_util.flatten_dict(params, sep="/")
    for prefix in freeze:
        if not any(path.startswith(prefix) for path in leaves):
            raise InputError(
                f"freeze = {prefix!r} is the beginning of no module; there are {', '.join(params)}."
            )
    stays = {path: not trained or path.startswith(freeze or ("\0",)) for path in leaves}
    moving = {path: leaf for path, leaf in leaves.items() if not stays[path]}
    kept = {path: leaf for path, leaf in leaves.items() if stays[path]}
    unflatten = traverse_util.unflatten_dict
    return unflatten(moving, sep="/"), unflatten(kept, sep="/")


def together(params: PyTree, others: PyTree) -> PyTree:
    """Returns the nested dict of which `split` made two.

    >>> together({"a": {"x": 1}}, {"a": {"y": 2}, "b": {"x": 3}})
    {'a': {'x': 1, 'y': 2}, 'b': {'x': 3}}
    """
    flat = traverse_util.flatten_dict
    return traverse_util.unflatten_dict(flat(params, sep="/") | flat(others, sep="/"), sep="/")
