"""Public weights into our parameter names."""

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxfair.errors import InputError, nearest
from jaxfair.models.extractor import Extractor
from jaxfair.models.lite import VARIANTS, Lite
from jaxfair.models.public import read_weights
from jaxfair.models.torch_files import StateDict

__all__ = [
    "fill_from_torch",
    "lite_name",
    "load_backbone",
    "read_extractor",
    "read_lite",
    "torch_name",
]

PyTree = Any

_LEAVES = {
    "kernel": "weight",
    "scale": "weight",
    "bias": "bias",
    "mean": "running_mean",
    "var": "running_var",
}

_OURS = ("head", "attention", "project", "colour")
"""Parts of a network that no torchvision file holds."""


def read_extractor(path: str | Path) -> tuple[PyTree, PyTree, str]:
    """Returns (params, stats, sha256) of the extractor from a torchvision ResNet-18 state dict.

    Raises InputError where the file cannot be read or is of another network.
    """
    state, checksum = read_weights(path)
    image = jax.ShapeDtypeStruct((1, 128, 128, 3), jnp.float32)
    shapes = jax.eval_shape(Extractor().init, jax.random.key(0), image)
    filled = fill_from_torch(shapes, state, where=Path(path).name)
    return filled["params"], filled["stats"], checksum


def read_lite(module: Lite, weights: str | Path) -> PyTree:
    """Returns the variables {"params", "stats"} of a Lite with stored statistics.

    Args:
      module: what is to be filled; stages that it has not are not read.
      weights: a name of `public.PUBLIC` or a file with the names of those packages.

    Raises InputError where the file cannot be read or is of another network.
    """
    state, _ = read_weights(weights)
    image = jax.ShapeDtypeStruct((1, 64, 64, 3), jnp.float32)
    shapes = jax.eval_shape(module.init, jax.random.key(0), image)
    return fill_from_torch(shapes, state, where=Path(weights).name, name=lite_name)


def load_backbone(variables: PyTree, path: str | Path, *, norm: str, backbone: str = "") -> PyTree:
    """Returns the variables of a `heads.Network` with its backbone from a torch state dict.

    The names in the file are torchvision's; with a `backbone` of `lite.VARIANTS` those of the
    packages of `public.PUBLIC`, of which `path` may be one.

    With `norm` "frozen" BatchNorm's scale and bias are taken over and its running statistics
    are stored. With others a file with running statistics gives its filters alone, and
    GroupNorms keep their own scale and bias; a file without (of a GroupNorm network, as
    DP_CXR's) gives everything. Head, attention and projection stay as they were. A file for
    three channels fills a grey stem with the sum over its channels: the same network on an image
    repeated to three.

    Raises InputError where the file cannot be read or is of another network.
    """
    state, _ = read_weights(path)
    where, name = Path(path).name, lite_name if backbone in VARIANTS else torch_name
    filters_alone = norm != "frozen" and any(name.endswith("running_mean") for name in state)

    def entry(path: tuple[Any, ...], leaf: jax.Array) -> jax.Array:
        names = [part.key for part in path[1:] if part.key != "backbone"]
        if names[0] in _OURS or (filters_alone and names[-1] != "kernel"):
            return leaf
        return _entry(name(names), leaf.shape, state, where)

    state = {_modern_name(name): value for name, value in state.items()}
    return jax.tree_util.tree_map_with_path(entry, variables)


def fill_from_torch(
    shapes: PyTree,
    state: StateDict,
    *,
    where: str,
    name: Callable[[Sequence[str]], str] | None = None,
) -> PyTree:
    """Returns the tree `shapes` ({"params": ..., "stats": ...}) filled from a torch state dict.

    A path such as layer1_0/conv1/kernel reads the entry layer1.0.conv1.weight; kernels are
    turned from (out, in, *window) to (*window, in, out). Entries not asked for are ignored.

    Args:
      shapes: tree whose leaves have `.shape`, as from `jax.eval_shape`.
      state: {torch name: array}.
      where: the file's name, for messages.
      name: turns the names on a path into that of the entry; None for `torch_name`.

    Raises InputError where an entry is missing, of another shape, or not finite.
    """
    name = name or torch_name
    return jax.tree_util.tree_map_with_path(
        lambda path, leaf: _entry(name([part.key for part in path[1:]]), leaf.shape, state, where),
        shapes,
    )


def torch_name(names: Sequence[str]) -> str:
    """Returns the torchvision name of a leaf.

    >>> torch_name(["layer1_0", "downsample_1", "mean"])
    'layer1.0.downsample.1.running_mean'
    """
    *modules, leaf = names
    return ".".join([".".join(modules).replace("_", "."), _LEAVES[leaf]])


def lite_name(names: Sequence[str]) -> str:
    """Returns the name of a leaf of an EfficientNet-Lite in the files of `public.PUBLIC`.

    >>> lite_name(["blocks_03", "depthwise_conv", "kernel"])
    '_blocks.3._depthwise_conv.weight'
    """
    *modules, leaf = names
    parts = [re.sub(r"^blocks_0?", "blocks.", module) for module in modules]
    return ".".join([*(f"_{part}" for part in parts), _LEAVES[leaf]])


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
