"""What a backend does in a second: the measured constants of the cost rule, in one table.

They decide which way a leaf goes, and so speed and memory, and nothing that is promised. One row
serves a backend: on another card the rates differ, but hardly their proportions. `python -m
jaxfair.benchmark --explain` prints what is predicted of each leaf beside what is measured, and the
`ceilings` of its results are the rates of the device that it ran on.
"""

from collections.abc import Mapping
from typing import NamedTuple

import jax

__all__ = ["MACHINES", "Machine", "machine_of"]


class Machine(NamedTuple):
    """Rates of one backend.

    Attributes:
      source: where the numbers were measured.
      gemm: operations a second of products, by the format of the operands.
      copy: bytes a second that are read or written.
      launch: seconds until an operation begins.
      cache: bytes of products that are summed before they leave the cache.
      room: bytes that the Gram matrices of a leaf may take.
    """

    source: str
    gemm: Mapping[str, float]
    copy: float
    launch: float
    cache: float
    room: float


MACHINES = {
    "cpu": Machine(
        source="two cores of an AMD EPYC, jax 0.10.2: the ceilings of e07's benchmark",
        gemm={"float32": 4.2e11, "tf32": 4.2e11, "bfloat16": 4.2e11},
        copy=3.3e10,
        launch=5e-6,
        cache=2.0**23,
        room=2.0**28,
    ),
    "gpu": Machine(
        source="NVIDIA H100 80GB, jax 0.11.2, from one trace of the FAE at 512: ordinary units; "
        "filter gradients, 570 GFLOP in 5.4 ms, for TF32; not measured: twice that for bfloat16, "
        "the launch, and copies (patches of 3.2 MB an example in 4 ms, less their slices)",
        gemm={"float32": 6e13, "tf32": 1.05e14, "bfloat16": 2.1e14},
        copy=1.6e12,
        launch=4e-6,
        cache=5e7,
        room=2.0**30,
    ),
}
"""By jax's name of the backend."""


def machine_of(backend: str | None = None) -> Machine:
    """Returns the Machine of a backend (None: the default one); one without a row is as a GPU."""
    return MACHINES.get(backend or jax.default_backend(), MACHINES["gpu"])
