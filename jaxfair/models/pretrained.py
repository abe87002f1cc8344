"""Public weights into our parameter names."""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxfair.errors import InputError, nearest
from jaxfair.models.checkpoints import StateDict, read_state_dict
from jaxfair.models.extractor import Extractor

__all__ = ["fill_from_torch", "read_extractor", "torch_name"]

PyTree = Any

_LEAVES = {
    "kernel": "weight",
    "scale": "weight",
    "bias": "bias",
    "mean": "running_mean",
    "var": "running_var",
}


def read_extractor(path: str | Path) -> tuple[PyTree, PyTree, str]:
    """Returns (params, stats, sha256) of the extractor from a torchvision ResNet-18 state dict.

    Raises InputError where the file cannot be read or is of another network.
    """
    state, checksum = read_state_dict(path)
    image = jax.ShapeDtypeStruct((1, 128, 128, 3), jnp.float32)
    shapes = jax.eval_shape(Extractor().init, jax.random.key(0), image)
    filled = fill_from_torch(shapes, state, where=Path(path).name)
    return filled["params"], filled["stats"], checksum


def fill_from_torch(shapes: PyTree, state: StateDict, *, where: str) -> PyTree:
    """Returns the tree `shapes` ({"params": ..., "stats": ...}) filled from a torch state dict.

    A path such as layer1_0/conv1/kernel reads the entry layer1.0.conv1.weight; kernels are
    turned from (out, in, *window) to (*window, in, out). Entries not asked for are ignored.

    Args:
      shapes: tree whose leaves have `.shape`, as from `jax.eval_shape`.
      state: {torch name: array}.
      where: the file's name, for messages.

    Raises InputError where an entry is missing, of another shape, or not finite.
    """
    return jax.tree_util.tree_map_with_path(
        lambda path, leaf: _entry(torch_name(path), leaf.shape, state, where), shapes
    )


def torch_name(path: tuple[Any, ...]) -> str:
    """Returns the torchvision name of a leaf, as layer1.0.bn1.weight of layer1_0/bn1/scale."""
    *modules, leaf = (part.key for part in path[1:])
    return ".".join([*modules, _LEAVES[leaf]]).replace("_", ".").replace("running.", "running_")


def _entry(name: str, shape: tuple[int, ...], state: StateDict, where: str) -> jax.Array:
    if name not in state:
        raise InputError(
            f"{where} has no entry {name!r}; a state dict of another network was given."
            + nearest(name, state)
        )
    value = state[name].astype(np.float32)
    if value.ndim > 1:
        value = np.moveaxis(value, (1, 0), (-2, -1))
    if value.shape != shape:
        raise InputError(f"{where}: {name!r} has the shape {value.shape}, this network {shape}.")
    if not np.isfinite(value).all():
        raise InputError(f"{where}: {name!r} holds values that are not finite; get it again.")
    return jnp.asarray(value)
