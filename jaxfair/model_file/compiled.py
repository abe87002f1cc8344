"""A scoring program made ready for some images, if it is one that this machine can run."""

import os
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np

from jaxfair.errors import InputError

__all__ = ["WORK", "WORK_OF_A_NUMBER", "compiled"]

WORK, WORK_OF_A_NUMBER = 1e12, 1e8
"""Operations that a program may take for an image, and beside them for each of its numbers: a
hundred times what the convolutions of a ResNet9 take for a voxel (4e5 between 64 and 128 channels,
and about as many after)."""

_OPTIONS: dict[str, str | bool] = {"xla_disable_hlo_passes": "constant_folding"}
"""What follows from constants alone would be computed by the compiler, however long that takes."""


def compiled(
    program: Callable[..., dict[str, Any]],
    leaves: Mapping[str, Any],
    given: Mapping[str, np.ndarray],
) -> Callable[..., dict[str, Any]]:
    """Returns `program`, to be called with arrays of the shapes of `leaves` and `given`.

    A program without loops (operations.py) takes the memory and the work that its compiler says,
    so both are known before it is run.

    Raises InputError where it needs more memory than the device has, or more work than it may.
    """
    made = jax.jit(program).lower(leaves, given).compile(compiler_options=_OPTIONS)
    memory: Any = made.memory_analysis()
    needed, there = memory.temp_size_in_bytes + memory.output_size_in_bytes, _memory()
    if needed > there:
        raise InputError(
            f"The model's program cannot be run here (it asks for {needed / 2**30:,.1f} GB of "
            f"memory, and there are {there / 2**30:,.1f}); take a machine with more memory, or "
            "export the model again."
        )
    work = (made.cost_analysis() or {}).get("flops", 0.0)
    if work > WORK * len(given["image"]) + WORK_OF_A_NUMBER * given["image"].size:
        raise InputError(
            f"The model's program would take {work:.0e} operations for {len(given['image'])} "
            "images, and no model of jaxfair takes so many; export the model again."
        )
    return made


def _memory() -> int:
    """Bytes that the device may hold: all of the machine's, where it has none of its own."""
    told = jax.devices()[0].memory_stats() or {}
    return int(told.get("bytes_limit", os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")))
