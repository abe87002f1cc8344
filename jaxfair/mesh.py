"""The device mesh: one axis, `data`, over which the examples of a batch are spread."""

from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from jaxfair.errors import InputError

__all__ = ["AXIS", "make_mesh", "put_batch", "put_replicated"]

AXIS = "data"


def make_mesh(num_devices: int | None = None) -> Mesh:
    """Returns a mesh over the first `num_devices` devices, or over all of them.

    The axis type is Auto: with jax's default, Explicit, vmapped convolutions fail to
    compile on some versions and lose gradients on others.
    """
    available = jax.devices()
    count = len(available) if num_devices is None else num_devices
    if not 1 <= count <= len(available):
        raise InputError(f"{count} devices were asked for, but jax sees {len(available)}.")
    return jax.make_mesh((count,), (AXIS,), axis_types=(AxisType.Auto,), devices=available[:count])


def put_batch(mesh: Mesh, batch: dict[str, np.ndarray]) -> dict[str, jax.Array]:
    """Spreads host arrays of shape (b, ...) over the mesh; b is a multiple of its size."""
    sharding = NamedSharding(mesh, PartitionSpec(AXIS))
    return {name: jax.device_put(values, sharding) for name, values in batch.items()}


def put_replicated(mesh: Mesh, tree: Any) -> Any:
    """Copies every leaf to all devices of the mesh."""
    return jax.device_put(tree, NamedSharding(mesh, PartitionSpec()))
