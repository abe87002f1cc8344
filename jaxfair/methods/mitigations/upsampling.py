"""Upsampling done right: a patient is drawn once at most, at the rate of his group."""

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np

from jaxfair.errors import InputError
from jaxfair.methods.base import Method
from jaxfair.methods.mitigations.groups import Grouped, check_weight

__all__ = ["Upsampling", "groups_of_units", "rates_by_group", "sample_groups"]


@dataclasses.dataclass(frozen=True)
class Upsampling(Grouped):
    """Patients of each group are drawn at a rate of their own, once at most in each draw.

    Attributes:
      factors: of each group, in their order, its rate over that of the plan (expected batch /
        public size), in (0, 1000]; the rate is at most 1. Public constants.

    Raises InputError for other numbers.
    """

    factors: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "factors", tuple(self.factors))
        for factor in self.factors:
            check_weight("factors", factor)
        if len(self.factors) != self.groups:
            raise InputError(
                f"mitigation.factors has {len(self.factors)} numbers for the {self.groups} groups "
                f"by {' and '.join(self.by)}; give a factor for each group."
            )


def sample_groups(config: Upsampling, method: Method) -> Method:
    """Returns `method` as it is; `rates_by_group` says how often patients are drawn.

    Guarantee: each unit is in a draw at most once, with the probability of its own group, and moves
    the sum by at most C; its group follows from its own images. All is priced at the largest rate,
    so the claim holds for everybody, and privacy.json gives each group its own epsilon, which is
    smaller where a group is drawn more rarely. Rows that are copied instead are drawn and clipped
    each by itself, and k copies cost about k times as much (`accounting.group_epsilon`).
    Cost: the noise of the largest rate, and draws that are larger by the factors.
    """
    return method


def rates_by_group(config: Upsampling, rate: float) -> tuple[float, ...]:
    """Returns the sampling probability of each group; `rate` is that of the plan.

    Raises InputError for one above 1.

    >>> rates_by_group(Upsampling(attributes={"sex": 2}, factors=(3.0, 1.0)), 0.05)
    (0.15000000000000002, 0.05)
    """
    rates = tuple(rate * factor for factor in config.factors)
    if max(rates) > 1:
        raise InputError(
            f"mitigation.factors has {max(config.factors)}, and the rate of the draws is {rate:.4g}"
            ": a probability above 1; lower the factor, or train.expected_batch_size."
        )
    return rates


def groups_of_units(config: Grouped, codes: Callable[[str], Any]) -> np.ndarray:
    """Returns the group of each unit, (n,) int64 in the order of `Grouped`, -1 unknown.

    Args:
      codes: attribute -> (n,) the code of each unit, -1 where it is unknown or its images differ.
    """
    found: Any = 0
    known: Any = True
    for name in config.by:
        own = np.asarray(codes(name), np.int64)
        known, found = known & (own >= 0), found * config.attributes[name] + own
    return np.where(known, found, -1)
