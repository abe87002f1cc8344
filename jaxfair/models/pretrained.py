"""Public weights into our parameter names."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxfair.errors import InputError, nearest
from jaxfair.models.extractor import Extractor
from jaxfair.models.torch_files import StateDict, read_state_dict

__all__ = ["fill_from_torch", "load_backbone", "read_extractor", "torch_name"]

PyTree = Any

_LEAVES = {
    "kernel": "weight",
    "scale": "weight",
    "bias": "bias",
    "mean": "running_mean",
    "var": "running_var",
}

_OURS = ("head", "attention", "colour")
"""Parts of a network that no torchvision file holds."""


def read_extractor(path: str | Path) -> tuple[PyTree, PyTree, str]:
    """Returns (params, stats, sha256) of the extractor from a torchvision ResNet-18 state dict.

    Raises InputError where the file cannot be read or is of another network.
    """
    state, checksum = read_state_dict(path)
    image = jax.ShapeDtypeStruct((1, 128, 128, 3), jnp.float32)
    shapes = jax.eval_shape(Extractor().init, jax.random.key(0), image)
    filled = fill_from_torch(shapes, state, where=Path(path).name)
    return filled["params"], filled["stats"], checksum


def load_backbone(variables: PyTree, path: str | Path, *, norm: str) -> PyTree:
    """Returns the variables of a `heads.Network` with its backbone from a torchvision state dict.

    With `norm` "frozen" BatchNorm's scale and bias are taken over and its running statistics
    are stored. With others a file with running statistics gives its filters alone, and
    GroupNorms keep their own scale and bias; a file without (of a GroupNorm network, as
    DP_CXR's) gives everything. Head and attention stay as they were. A file for three channels
    fills a grey stem with the sum over its channels: the same network on an image repeated to
    three.

    Raises InputError where the file cannot be read or is of another network.
    """
    state, _ = read_state_dict(path)
    where = Path(path).name
    filters_alone = norm != "frozen" and any(name.endswith("running_mean") for name in state)

    def entry(path: tuple[Any, ...], leaf: jax.Array) -> jax.Array:
        names = [part.key for part in path[1:] if part.key != "backbone"]
        if names[0] in _OURS or (filters_alone and names[-1] != "kernel"):
            return leaf
        return _entry(torch_name(names), leaf.shape, state, where)

    state = {_modern_name(name): value for name, value in state.items()}
    return jax.tree_util.tree_map_with_path(entry, variables)


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
        lambda path, leaf: _entry(
            torch_name([part.key for part in path[1:]]), leaf.shape, state, where
        ),
        shapes,
    )


def torch_name(names: Sequence[str]) -> str:
    """Returns the torchvision name of a leaf.

    >>> torch_name(["layer1_0", "downsample_1", "mean"])
    'layer1.0.downsample.1.running_mean'
    """
    *modules, leaf = names
    return ".".join([".".join(modules).replace("_", "."), _LEAVES[leaf]])


def _modern_name(name: str) -> str:
    """The oldest DenseNet files write norm.1 for norm1."""
    return re.sub(r"(denselayer\d+\.(?:norm|conv))\.([12])\.", r"\1\2.", name)


def _entry(name: str, shape: tuple[int, ...], state: StateDict, where: str) -> jax.Array:
    if name not in state:
        raise InputError(
            f"{where} has no entry {name!r}; a state dict of another network was given."
            + nearest(name, state)
        )
    value = state[name].astype(np.float32)
    if value.ndim > 1:
        value = np.moveaxis(value, (1, 0), (-2, -1))
    if value.shape != shape and value.shape[:-2] + (1,) + value.shape[-1:] == shape:
        value = value.sum(axis=-2, keepdims=True)
    if value.shape != shape:
        raise InputError(f"{where}: {name!r} has the shape {value.shape}, this network {shape}.")
    if not np.isfinite(value).all():
        raise InputError(f"{where}: {name!r} holds values that are not finite; get it again.")
    return jnp.asarray(value)
