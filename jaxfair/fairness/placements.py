"""Shares of rows below a point: of all rows, and of the rows of other patients."""

import numpy as np
import numpy.typing as npt

__all__ = ["placements", "placements_apart"]

Array = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


def placements(points: Array, others: Array, weights: Array) -> Array:
    """Returns (n,) the weighted share of `others`, (k,) with (k,) weights, below each point.

    Ties count one half.
    """
    order = np.argsort(others, kind="stable")
    ranked, total = others[order], np.concatenate([[0.0], np.cumsum(weights[order])])
    left = np.searchsorted(ranked, points, side="left")
    right = np.searchsorted(ranked, points, side="right")
    return np.asarray((total[left] + total[right]) / (2 * total[-1]))


def placements_apart(
    shares: Array,
    points: tuple[Array, Ints],
    others: tuple[Array, Ints],
    weights: Array,
) -> tuple[Array, Array]:
    """Returns the share of *other patients'* rows below each point, and the weight of those rows.

    Args:
      shares: (n,) what `placements` returns for these points.
      points, others: (scores, patient codes) of n and of k rows.
      weights: (k,) how much each of the others counts.

    Returns:
      (n,) shares, 0 where no other patient has such rows, and (n,) weights.
    """
    (s, patient), (s_others, patient_others) = points, others
    rank = np.unique(np.concatenate([s, s_others]), return_inverse=True)[1].astype(np.int64)
    n_ranks = int(rank.max()) + 1
    key = patient * n_ranks + rank[: len(s)]
    key_others = patient_others * n_ranks + rank[len(s) :]
    order = np.argsort(key_others, kind="stable")
    ranked, total = key_others[order], np.concatenate([[0.0], np.cumsum(weights[order])])
    left = total[np.searchsorted(ranked, key, side="left")]
    right = total[np.searchsorted(ranked, key, side="right")]
    first = total[np.searchsorted(ranked, patient * n_ranks, side="left")]
    own = total[np.searchsorted(ranked, (patient + 1) * n_ranks, side="left")] - first
    weight = np.maximum(total[-1] - own, 0.0)
    below = shares * total[-1] - ((left + right) / 2 - first)
    some = weight > 1e-12 * total[-1]
    return np.divide(below, weight, out=np.zeros(len(s)), where=some), weight * some
