"""Which group an example is of, and what the configs of mitigations share."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from jaxfair.errors import InputError, nearest
from jaxfair.methods.base import Example

__all__ = [
    "MAX_WEIGHT",
    "Grouped",
    "check_share",
    "check_shares",
    "check_weight",
    "group_of",
]

MAX_WEIGHT = 1000.0
"""Weights are public constants in (0, MAX_WEIGHT]."""


@dataclasses.dataclass(frozen=True)
class Grouped:
    """What every mitigation by group is told.

    Attributes:
      by: attributes whose values, crossed, make the groups; () for all that data.groups names.
      attributes: attribute -> number of its values, in the order of an example's `group` (k,);
        left out, those of data.groups.

    Groups are counted with the first of `by` changing slowest: ("sex", "view") of two values
    each gives (0, 0), (0, 1), (1, 0), (1, 1).

    Raises InputError where no attribute is named, or one that there is not.
    """

    by: tuple[str, ...] = ()
    attributes: Mapping[str, int] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        known = tuple(self.attributes)
        if not known:
            raise InputError(
                "The mitigation needs to know each example's group, and data.groups names no "
                "attribute: set data.groups, for instance to ('sex',)."
            )
        object.__setattr__(self, "by", tuple(self.by) or known)
        for name in self.by:
            if name not in known:
                raise InputError(
                    f"mitigation.by names {name!r}; data.groups has {', '.join(known)}."
                    f"{nearest(name, known)}"
                )

    @property
    def groups(self) -> int:
        """How many groups there are, the unknown not counted."""
        return math.prod(self.attributes[name] for name in self.by)


def group_of(config: Grouped, example: Example) -> jax.Array:
    """Returns the number of an example's group, an int32 scalar in 0 to `config.groups`.

    The last stands for the unknown: some attribute of `by` is -1, or no value that was declared.

    Raises InputError where the example has no `group`.
    """
    if "group" not in example:
        raise InputError("The examples carry no `group`; name attributes in data.groups.")
    found, known = jnp.zeros((), jnp.int32), jnp.ones((), bool)
    for name in config.by:
        size, code = config.attributes[name], example["group"][list(config.attributes).index(name)]
        known &= (code >= 0) & (code < size)
        found = found * size + code
    return jnp.where(known, found, config.groups)


def check_weight(name: str, value: Any) -> None:
    """Raises InputError for what is no public constant in (0, MAX_WEIGHT]."""
    if not (isinstance(value, int | float) and math.isfinite(value) and 0 < value <= MAX_WEIGHT):
        raise InputError(
            f"mitigation.{name} holds {value}; a weight is a public constant in (0, "
            f"{MAX_WEIGHT:g}]."
        )


def check_share(value: float) -> None:
    """Raises InputError for a share of the steps that leaves one stage without any."""
    if not 0 < value < 1:
        raise InputError(f"mitigation.share is {value}; it is a part of all steps, in (0, 1).")


def check_shares(shares: Any, count: int, of: str) -> tuple[float, ...]:
    """Returns declared shares as a tuple; raises InputError unless they are `count` that add to 1.

    Args:
      of: what has the shares, for the sentence.
    """
    if isinstance(shares, str):
        raise InputError(
            f"mitigation.shares is {shares!r}; shares are public constants and never computed from "
            "private data: declare one number for each."
        )
    shares = tuple(shares)
    if len(shares) != count or abs(sum(shares) - 1) > 0.01:
        raise InputError(
            f"mitigation.shares has {len(shares)} numbers with the sum {sum(shares):g}; give one "
            f"for each of the {count} {of}, which add up to 1."
        )
    for share in shares:
        check_weight("shares", share)
    return shares
