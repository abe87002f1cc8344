"""Averages of the parameters in place of the last ones: less noise, for nothing."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from jaxfair.errors import InputError
from jaxfair.methods.base import Method

__all__ = ["Averaging", "average", "averaged_by"]

KINDS = ("ema", "late")


@dataclasses.dataclass(frozen=True)
class Averaging:
    """What is evaluated is an average of the parameters, and not those of the last step.

    Attributes:
      average: "ema", which forgets, or "late", the mean from a step on.
      average_from: steps before this one do not count.
      ema_decay: weight of the past in "ema", in [0, 1).

    Raises InputError for a value outside these.
    """

    average: str = "ema"
    average_from: int = 0
    ema_decay: float = 0.99

    def __post_init__(self) -> None:
        if self.average not in KINDS:
            raise InputError(
                f"mitigation.average is {self.average!r}; it must be {' or '.join(KINDS)}."
            )


def average(config: Averaging, method: Method) -> Method:
    """Returns `method` as it is; `averaged_by` says what the optimiser keeps beside it.

    Guarantee: an average is a function of parameters that were released step by step and paid for,
    so by post-processing nothing is spent (De et al. 2022, arXiv 2204.13650). Cost: none in
    epsilon; a second copy of the parameters.
    """
    return method


def averaged_by(
    config: Averaging, sections: Mapping[str, Mapping[str, Any]]
) -> dict[str, dict[str, Any]]:
    """The fields of the section optim that make the average."""
    return {"optim": dataclasses.asdict(config)}
