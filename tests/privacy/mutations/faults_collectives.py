"""Faults of what devices tell each other: counted twice, left out, given by the wrong one."""

import jax
import jax.numpy as jnp

from jaxfair.engine import scan, step
from jaxfair.privacy.sums import twofloat
from tests.privacy.mutations.putting import replaced, wrapped


def fault_390_the_rows_of_one_device_count_twice():
    """A device adds its own sum to one that holds it already."""

    def parts(original, total, devices):
        found = original(total, devices)
        return [*found, found[0]]

    return wrapped(step, "_of_all_devices", parts)


def fault_391_every_device_brings_the_running_sum():
    """What earlier chunks came to is on every device, and is added as if each had a part of it."""

    def join(original, totals):
        return original([totals[0]] * (len(totals) - 1) + list(totals[1:]))

    return wrapped(twofloat, "join", join)


def fault_392_a_device_gives_rows_that_it_does_not_hold():
    """An index that is cut instead of masked: another patient's row is added to the one asked."""
    cut = lambda original, store, place, ids: original(store, jnp.maximum(place, 0), ids)
    return wrapped(scan, "gather_on_device", cut)


def fault_393_the_rows_of_other_devices_are_left_out():
    """No sum over the devices: each has zeros where another holds the row."""

    def own(rows, axis, *, tiled):
        count = len(rows) // jax.lax.axis_size(axis)
        return jax.lax.dynamic_slice_in_dim(rows, jax.lax.axis_index(axis) * count, count)

    return replaced(jax.lax, "psum_scatter", own)
