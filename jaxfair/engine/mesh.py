"""The device mesh: one axis, `data`, over which the examples of a batch are spread.

With several hosts every host runs the same program on the same draws; each gathers the rows
of its own devices, and the first host alone writes files.
"""

import os
from collections.abc import Callable
from typing import Any, TypeVar

import jax
from jax.experimental import multihost_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from jaxfair.errors import InputError

__all__ = [
    "AXIS",
    "first_then_others",
    "is_first_host",
    "join_hosts",
    "leave_hosts",
    "local_rows",
    "make_mesh",
    "put_replicated",
    "put_sharded",
]

T = TypeVar("T")

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


def join_hosts(coordinator: str, num_hosts: int | None, host_id: int | None) -> None:
    """Makes this process one of several; called before anything else of jax.

    Args:
      coordinator: "host:port" of the first host, or "auto" where the cluster tells (Slurm,
        Kubernetes, TPU pods).
      num_hosts, host_id: how many there are and which this is; None with "auto".
    """
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    if coordinator == "auto":
        return _join_what_the_cluster_says()
    if num_hosts is None or host_id is None or not 0 <= host_id < num_hosts:
        raise InputError(
            f"--coordinator={coordinator} needs --hosts=N and --host=K with 0 <= K < N, got "
            f"hosts {num_hosts} and host {host_id}."
        )
    jax.distributed.initialize(coordinator, num_hosts, host_id)


def _join_what_the_cluster_says() -> None:
    try:
        jax.distributed.initialize()
    except (ValueError, RuntimeError) as error:
        raise InputError(
            f"--coordinator=auto needs a cluster that tells who takes part ({error}): run it under "
            "Slurm, Kubernetes or on a TPU pod, or give --coordinator=HOST:PORT, --hosts, --host."
        ) from error


def leave_hosts(status: int) -> None:
    """Ends this process at once if it is one of several, so that the others see it go.

    An orderly exit would wait minutes for hosts that wait for this one.
    """
    if jax.distributed.is_initialized() and jax.process_count() > 1:
        os._exit(status)


def is_first_host() -> bool:
    """Whether this process is the one that writes files."""
    return jax.process_index() == 0


def first_then_others(act: Callable[[], T]) -> T:
    """Calls `act` on the first host, and on the others when the first is done with it."""
    if jax.process_count() == 1:
        return act()
    if is_first_host():
        result = act()
        multihost_utils.sync_global_devices("first, then others")
        return result
    multihost_utils.sync_global_devices("first, then others")
    return act()


def local_rows(mesh: Mesh, size: int) -> slice:
    """Returns which of the `size` rows of a chunk belong to the devices of this host."""
    here = [d.process_index == jax.process_index() for d in mesh.devices.flat]
    rows = size // mesh.size
    return slice(here.index(True) * rows, (here.index(True) + sum(here)) * rows)


def put_sharded(mesh: Mesh, tree: Any) -> Any:
    """Spreads this host's rows, (local rows, ...), over its devices; see `local_rows`."""
    sharding = NamedSharding(mesh, PartitionSpec(AXIS))
    return jax.tree.map(lambda rows: jax.make_array_from_process_local_data(sharding, rows), tree)


def put_replicated(mesh: Mesh, tree: Any) -> Any:
    """Copies every leaf to all devices of the mesh."""
    return jax.device_put(tree, NamedSharding(mesh, PartitionSpec()))
