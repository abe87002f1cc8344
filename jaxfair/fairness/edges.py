"""Edges of bins and a threshold from noisy histograms of other patients.

The bins of a released table follow from nobody in it: they are functions of noisy counts of the
validation patients. `zoomed` finds the range in which scores lie, `quantile_edges` cuts it so that
each bin holds as much of the positives as of the negatives, half of each, and `youden_edge` is the
edge with the largest sum of sensitivity and specificity.
"""

import numpy as np
import numpy.typing as npt

from jaxfair.fairness.histogram import sensitivity, specificity

__all__ = ["fine_edges", "quantile_edges", "youden_edge", "zoomed"]

Array = npt.NDArray[np.float64]

_SURE = 4.0
"""Standard deviations of the noise above which a cell is taken to hold somebody."""


def fine_edges(low: float, high: float, cells: int) -> Array:
    """Returns the cells - 1 inner edges of equal cells from `low` to `high`.

    >>> fine_edges(0.0, 1.0, 4).tolist()
    [0.25, 0.5, 0.75]
    """
    return np.linspace(low, high, cells + 1)[1:-1]


def zoomed(counts: npt.ArrayLike, noise_sd: float, low: float, high: float) -> tuple[float, float]:
    """Returns the smallest range of cells that surely hold somebody; the same one if none does.

    Args:
      counts: (cells,) noisy counts of equal cells from `low` to `high`.
      noise_sd: of each count.

    >>> zoomed([0.3, 50.0, 80.0, -2.0], 1.0, 0.0, 1.0)
    (0.25, 0.75)
    """
    counts = np.asarray(counts, float)
    held, ends = np.flatnonzero(counts > _SURE * noise_sd), np.linspace(low, high, len(counts) + 1)
    return (float(ends[held[0]]), float(ends[held[-1] + 1])) if len(held) else (low, high)


def quantile_edges(
    counts: npt.ArrayLike, noise_sd: float, low: float, high: float, bins: int
) -> Array:
    """Returns up to bins - 1 inner edges, ends of the fine cells, for bins of equal mass.

    Args:
      counts: (2, cells) noisy counts by label of equal cells from `low` to `high`.
      noise_sd: of each count; what is below it is taken for nothing.

    Each label counts one half, so that neither is cut finely where only the other one lies. Cells
    without sure mass give equal bins.

    >>> quantile_edges([[9.0, 9, 9, 9], [9, 9, 9, 9]], 0.1, 0.0, 1.0, 2).tolist()
    [0.5]
    """
    counts = np.asarray(counts, float)
    sure = np.where(counts > noise_sd, counts, 0.0)
    if not (sure.sum(-1) > 0).all():
        sure = np.ones_like(counts)
    below = np.cumsum((sure / sure.sum(-1, keepdims=True)).mean(0))[:-1]
    inner = fine_edges(low, high, counts.shape[-1])
    cuts = np.unique(np.abs(below[:, None] - np.arange(1, bins) / bins).argmin(0))
    return np.asarray(inner[cuts if len(cuts) > 1 or bins == 2 else [0, len(inner) // 2]])


def youden_edge(counts: npt.ArrayLike, edges: npt.ArrayLike, fine: npt.ArrayLike) -> int:
    """Returns the first bin, of those that `edges` make, that the threshold calls positive.

    Args:
      counts: (2, len(fine) + 1) noisy counts by label of the fine cells.
      edges: inner edges of the bins, all among `fine`.
      fine: inner edges of the fine cells.
    """
    places = np.searchsorted(np.asarray(fine, float), np.asarray(edges, float)) + 1
    sums = [float(sensitivity(counts, at) + specificity(counts, at)) for at in places]
    return 1 + int(np.nanargmax(sums)) if np.isfinite(sums).any() else 1 + len(places) // 2
