"""Differences of mean residuals where units exchange groups: is a risk further off in a group?

A residual is a label minus its stated risk. Units change groups freely, since the risk has
taken the label's odds into account; the difference is divided by its own patient-cluster
error, so that groups with other risks, whose residuals spread otherwise, keep the level (Janssen
1997, "Studentized permutation tests for non-i.i.d. hypotheses").
"""

import numpy as np
import numpy.typing as npt

__all__ = ["mean_gaps"]

Array = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

_CELLS = 2_000_000


def mean_gaps(
    residual: Array,
    units: Ints,
    patients: Ints,
    assigned: npt.NDArray[np.integer],
    n_groups: int,
) -> tuple[Array, Array]:
    """Returns mean residuals of groups minus those of their rests, and the errors of these.

    Args:
      residual: (n,) label minus probability.
      units: (n,) codes 0..u-1 of who changes groups, ascending by patient (exchange.units_of).
      patients: (n,) codes.
      assigned: (R, u) group codes; from n_groups on nobody is compared.
      n_groups: k.

    Returns:
      (R, k) differences and (R, k) standard errors, patients as clusters.
    """
    size = assigned.shape[1]
    total = np.bincount(units, residual, minlength=size).astype(float)
    count = np.bincount(units, minlength=size).astype(float)
    owner = np.zeros(size, dtype=np.int64)
    owner[units] = patients
    owners = np.flatnonzero(np.diff(owner, prepend=-1))
    step = max(1, _CELLS // (size * n_groups))
    parts = [
        _gaps(total, count, owners, assigned[start : start + step], n_groups)
        for start in range(0, len(assigned), step)
    ]
    gaps, errors = zip(*parts, strict=True)
    return np.concatenate(gaps), np.concatenate(errors)


def _gaps(
    total: Array, count: Array, owners: Ints, assigned: npt.NDArray[np.integer], n_groups: int
) -> tuple[Array, Array]:
    inside = (assigned[:, None] == np.arange(n_groups)[:, None]).astype(float)
    sums = inside @ np.stack([total, count, np.ones(len(total))], axis=1)
    both = np.array([total.sum(), count.sum(), len(total)])
    sides = np.stack([sums, both - sums], axis=2)
    mean = sides[..., 0] / sides[..., 1]
    scale = np.sqrt(sides[..., 2] / np.maximum(sides[..., 2] - 1, 1)) / sides[..., 1]
    own = (total - mean[..., :1] * count) * scale[..., :1]
    rest = (total - mean[..., 1:] * count) * scale[..., 1:]
    moved = np.where(inside > 0, own, -rest)
    if len(owners) < len(total):
        moved = np.add.reduceat(moved, owners, axis=-1)
    return mean[..., 0] - mean[..., 1], np.sqrt((moved**2).sum(-1))
