"""What one draw releases: the noisy gradient sum and its side queries, one vector together.

Everything computed from one draw is one release (protocol P1). Queries that are Gaussian each,
stacked and each divided by its own noise, are one Gaussian query with unit noise; its squared
sensitivity is the sum of theirs, so the joint noise multiplier is
sigma^-2 = sum_j sigma_j^-2, and the accountant is told that one number.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from jaxfair.errors import InputError
from jaxfair.privacy import accounting

__all__ = [
    "CURVATURE",
    "GRADIENT_SUM",
    "REST",
    "Query",
    "check_names",
    "gradient_multiplier",
    "joint",
    "listed",
]

GRADIENT_SUM = "gradient_sum"
"""Name of the query that every plan has: the clipped sum of gradients."""

CURVATURE, REST = "curvature of label", "rest of the minimum"
"""Names of what objective perturbation pays beside its noise (`perturbation.py`)."""


@dataclass(frozen=True)
class Query:
    """One Gaussian query on a draw: a vector, and how much noise each of its entries gets.

    Attributes:
      name: what it is, e.g. "group_counts"; it stands in privacy.json.
      sensitivity: how far adding or removing one unit moves the vector, in l2 norm.
      noise_multiplier: the noise's standard deviation over the sensitivity.

    Raises InputError for an empty name and for numbers that are not positive and finite.

    >>> Query("group_counts", sensitivity=1.0, noise_multiplier=8.0).noise_stddev
    8.0
    """

    name: str
    sensitivity: float
    noise_multiplier: float

    def __post_init__(self) -> None:
        if not self.name:
            raise InputError("A query has no name: give it one, it stands in privacy.json.")
        for field in ("sensitivity", "noise_multiplier"):
            value = getattr(self, field)
            if not 0 < value < math.inf:
                raise InputError(
                    f"Query {self.name!r} has {field} {value!r}; it must be positive and finite."
                )

    @property
    def noise_stddev(self) -> float:
        """Standard deviation of the noise on each entry, in the units of the query."""
        return self.noise_multiplier * self.sensitivity


def check_names(queries: Iterable[Query]) -> None:
    """Raises InputError where two queries of a draw have one name, or one has the gradient's."""
    seen = {GRADIENT_SUM}
    for query in queries:
        if query.name in seen:
            raise InputError(
                f"Two queries of a draw are named {query.name!r}: each needs a name of its own."
            )
        seen.add(query.name)


def joint(queries: Sequence[Query]) -> float:
    """Returns the noise multiplier of all queries on one draw, taken together.

    >>> round(joint([Query("a", 1.0, 1.0), Query("b", 0.5, 2.0)]), 4)
    0.8944
    """
    return accounting.joint_noise_multiplier([(q.sensitivity, q.noise_stddev) for q in queries])


def gradient_multiplier(wanted: float, queries: Sequence[Query]) -> float:
    """Returns the multiplier of the gradient sum with which all queries together have `wanted`.

    sigma_gradient^-2 = wanted^-2 - sum_j sigma_j^-2, rounded so that the joint multiplier is at
    least `wanted`. Raises InputError where the side queries alone have less than that.
    """
    if not queries:
        return wanted
    left = wanted**-2 - joint(queries) ** -2
    if not left > 0:
        names = ", ".join(query.name for query in queries)
        raise InputError(
            f"The side queries ({names}) of a draw have a joint noise multiplier of "
            f"{joint(queries):.4g}, and the budget dp.epsilon needs above {wanted:.4g} of all "
            "queries together: give them more noise, or raise dp.epsilon."
        )
    sigma = left**-0.5
    while joint([*queries, Query(GRADIENT_SUM, 1.0, sigma)]) < wanted:
        sigma *= 1 + 1e-12
    return sigma


def listed(queries: Iterable[Query]) -> list[dict[str, Any]]:
    """Returns the queries as they stand in privacy.json."""
    return [asdict(query) | {"noise_stddev": query.noise_stddev} for query in queries]
