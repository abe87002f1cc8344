"""What one histogram of scores says of a model, whether its counts are exact or noisy.

A histogram has the shape (..., 2, b): label 0 and 1, then b bins of the score, ascending. Counts
may be fractions, and negative where noise made them so: every numerator here is linear in the
counts of each label, so that independent noise of mean zero leaves it unbiased.
"""

import numpy as np
import numpy.typing as npt

from jaxfair.fairness.values import checked_scores

__all__ = ["area", "binned", "kernel", "prevalence", "sensitivity", "specificity", "tied_area"]

Array = npt.NDArray[np.float64]


def binned(y_score: npt.ArrayLike, edges: npt.ArrayLike) -> npt.NDArray[np.int64]:
    """Returns the bin of each score, 0 to len(edges): a score at an edge is above it.

    Args:
      y_score: (n,) finite scores.
      edges: ascending inner edges; the first and the last bin are open to the outside.

    Raises InputError for scores that are not finite.

    >>> binned([0.1, 0.5, 0.9], [0.5]).tolist()
    [0, 1, 1]
    """
    return np.searchsorted(np.asarray(edges, float), checked_scores(y_score), side="right")


def area(counts: npt.ArrayLike) -> Array:
    """Returns the AUROC of each histogram (..., 2, b), b at least 2, without the bias of bins.

    Pairs in two bins count as their bins say. Pairs in one bin would count one half, which is too
    little where the model tells them apart: a bin in which the densities rise by a and c of their
    mean from end to end adds (c - a) / 12 of a pair, and the slopes follow from the neighbouring
    bins. Summed, with n the negatives and p the positives of a bin,

      sum_{i<j} n_i p_j + sum_i n_i p_i / 2 + (sum_i d_i + (d_1 + d_last) / 2) / 12,
      d_i = n_i p_{i+1} - n_{i+1} p_i.

    NaN where a label has no (or less than no) mass. Exact for densities that are straight lines
    over all bins; AUROC of the other order is one minus this.

    >>> round(float(area([[3.0, 1.0], [1.0, 3.0]])), 4)
    0.8333
    """
    counts = np.asarray(counts, float)
    n, p = counts[..., 0, :], counts[..., 1, :]
    pairs = ((n @ kernel(counts.shape[-1])) * p).sum(-1)
    return _share(pairs, n.sum(-1), p.sum(-1))


def tied_area(counts: npt.ArrayLike) -> Array:
    """Returns the AUROC in which every pair within a bin counts one half, as tied scores do."""
    counts = np.asarray(counts, float)
    n, p = counts[..., 0, :], counts[..., 1, :]
    pairs = (p * (np.cumsum(n, -1) - n / 2)).sum(-1)
    return _share(pairs, n.sum(-1), p.sum(-1))


def kernel(bins: int) -> Array:
    """Returns K (b, b), with which n K p / (sum n sum p) is the `area` of n and p.

    >>> kernel(2).tolist()
    [[0.5, 1.1666666666666667], [-0.16666666666666666, 0.5]]
    """
    matrix = np.triu(np.ones((bins, bins)), 1) + np.eye(bins) / 2
    slope = np.full(bins - 1, 1 / 12)
    slope[0] += 1 / 24
    slope[-1] += 1 / 24
    return np.asarray(matrix + np.diag(slope, 1) - np.diag(slope, -1))


def sensitivity(counts: npt.ArrayLike, at: int) -> Array:
    """Returns the share of positives in the bins from `at` on; NaN without positives."""
    positives = np.asarray(counts, float)[..., 1, :]
    return _share(positives[..., at:].sum(-1), positives.sum(-1))


def specificity(counts: npt.ArrayLike, at: int) -> Array:
    """Returns the share of negatives in the bins below `at`; NaN without negatives."""
    negatives = np.asarray(counts, float)[..., 0, :]
    return _share(negatives[..., :at].sum(-1), negatives.sum(-1))


def prevalence(counts: npt.ArrayLike) -> Array:
    """Returns the share of positives; NaN without mass."""
    counts = np.asarray(counts, float)
    return _share(counts[..., 1, :].sum(-1), counts.sum((-1, -2)))


def _share(part: Array, *wholes: Array) -> Array:
    """`part` over the product of `wholes`, NaN where one of them is not positive."""
    good = np.all([whole > 0 for whole in wholes], axis=0)
    return np.where(good, part / np.where(good, np.prod(wholes, axis=0), 1.0), np.nan)
