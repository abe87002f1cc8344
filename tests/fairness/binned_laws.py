"""Laws of scores in bins, for the tests of releases."""

import numpy as np

from jaxfair.fairness.edges import Cells, best_edges


def masses(law, edges):
    """The chance of each bin."""
    return np.diff([0.0, *law.cdf(edges), 1.0])


def cut(one, other, bins):
    """The edges of a release that knew the laws of both labels."""
    ends = np.linspace(
        min(one.ppf(1e-6), other.ppf(1e-6)), max(one.isf(1e-6), other.isf(1e-6)), 5001
    )
    return best_edges(
        Cells(ends, np.stack([np.diff(one.cdf(ends)), np.diff(other.cdf(ends))])), bins
    )
