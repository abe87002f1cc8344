"""Bins and a threshold from noisy histograms of other patients.

The bins of a released table follow from nobody in it: they are functions of noisy counts of the
validation patients. Scores lie on a public line (`on_line`), on which saturated and heavy-tailed
ones are apart. Each round counts both labels in a few cells, and `refined` cuts them anew, finely
where the scores are, so that three rounds of 16 cells tell scores apart that one of 64 could not.
`best_edges` cuts the last cells into bins, and `youden_bin` finds the edge with the largest sum of
sensitivity and specificity.

Bins have equal weight sqrt(m sqrt(f g)), f and g the densities of the labels and m their mean,
which is the same on any line: halfway between bins of equal mass, which spend counts, and so noise,
where one label alone lies, and those that lie only where both are, which leave the tails too wide.
For AUROC .99 they let in .7 of the noise of bins of equal mass. With 5 bins of noisy rounds the
bias of an AUROC was within .0025; within .008 where the odds do not rise with the score (Cauchy).
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import scipy.optimize
import scipy.special

from jaxfair.fairness.values import checked_scores

__all__ = [
    "Cells", "believed", "best_edges", "first_ends", "off_line", "on_line", "refined", "youden_bin",
]  # fmt: skip

Array = npt.NDArray[np.float64]

_SURE = 2.0
"""Standard deviations of the noise on a cell above which it is taken to hold somebody."""
_TINY = (1e-44, 1 - 1e-16)
_LEAST = 2e-3


class Cells(NamedTuple):
    """What is believed of the scores, by label.

    Attributes:
      ends: (cells + 1,) ascending, on the line; the first and last cell are open to the outside.
      counts: (2, cells), not negative, of which each label has some.
    """

    ends: Array
    counts: Array


def on_line(scores: npt.ArrayLike, low: float, high: float) -> Array:
    """Returns where scores lie on the public line of a declared range; it is monotone.

    From 0 to 1 it is asinh(logit), so that scores which a sigmoid saturated are apart; else
    asinh(score / c), c a millionth of the larger end, for scores of any size about zero.

    >>> on_line([0.0, 0.5, 1.0], 0.0, 1.0).round(1).tolist()
    [-5.3, 0.0, 4.3]
    """
    inside = np.clip(checked_scores(scores, "scores"), low, high)
    if (low, high) == (0.0, 1.0):
        return np.asarray(np.arcsinh(scipy.special.logit(np.clip(inside, *_TINY))))
    return np.asarray(np.arcsinh(inside / _near_zero(low, high)))


def off_line(places: npt.ArrayLike, low: float, high: float) -> Array:
    """Returns the scores at places on the line; undoes `on_line`.

    >>> off_line(on_line([-3.0, 0.2, 7.0], -10.0, 10.0), -10.0, 10.0).round(6).tolist()
    [-3.0, 0.2, 7.0]
    """
    straight = np.sinh(np.asarray(places, float))
    if (low, high) == (0.0, 1.0):
        return np.asarray(scipy.special.expit(straight))
    return np.asarray(straight * _near_zero(low, high))


def first_ends(low: float, high: float, cells: int) -> Array:
    """Returns the cells + 1 ends of equal cells on the line of a range."""
    first, last = map(float, on_line([low, high], low, high))
    return np.linspace(first, last, cells + 1)


def believed(counts: npt.ArrayLike, noise_sd: float, ends: npt.ArrayLike) -> Cells:
    """Returns what noisy counts (2, cells) make believable.

    Cells whose both labels together do not stand above the noise are empty (all are alike where
    none does), and the share of positives rises with the score (isotonic regression).

    >>> believed([[9.0, 1], [1, 9]], 0.1, [0, 1, 2]).counts.round(3).tolist()
    [[9.0, 1.0], [1.0, 9.0]]
    """
    counts = np.asarray(counts, float)
    total = counts.sum(0)
    sure = np.where(total > _SURE * noise_sd, total, 0.0)
    if not sure.any():
        sure = np.ones_like(total)
    share = np.clip(counts[1] / np.where(sure > 0, sure, 1.0), 0, 1)
    weights = np.where(sure > 0, sure, 1e-6)
    rising = scipy.optimize.isotonic_regression(share, weights=weights).x
    rising = np.clip(rising, _LEAST, 1 - _LEAST)
    return Cells(np.asarray(ends, float), np.stack([sure * (1 - rising), sure * rising]))


def refined(cells: Cells) -> Array:
    """Returns the ends of as many cells, half by the weight of bins and half by mass.

    >>> cells = Cells(np.array([0.0, 1, 2, 3]), np.array([[0.0, 6, 0], [0, 6, 0]]))
    >>> refined(cells).round(2).tolist()
    [0.0, 1.33, 1.67, 3.0]
    """
    mass = _mass(cells).mean(0)
    inner = _cut((_weight(cells) + mass) / 2, cells.ends, len(mass))
    return np.array([cells.ends[0], *inner, cells.ends[-1]])


def best_edges(cells: Cells, bins: int) -> Array:
    """Returns bins - 1 inner edges on the line, equal where the cells are no wider than nothing."""
    return _cut(_weight(cells), cells.ends, bins)


def youden_bin(cells: Cells, edges: npt.ArrayLike) -> int:
    """Returns the first bin, of those that `edges` make, that the threshold calls positive.

    Within a cell its mass is spread evenly.
    """
    at = np.asarray(edges, float)
    below = [np.interp(at, cells.ends, [0.0, *np.cumsum(part)]) for part in _mass(cells)]
    return 1 + int(np.argmax(below[0] - below[1]))


def _near_zero(low: float, high: float) -> float:
    return 1e-6 * max(abs(low), abs(high))


def _mass(cells: Cells) -> Array:
    return np.asarray(cells.counts / cells.counts.sum(-1, keepdims=True))


def _weight(cells: Cells) -> Array:
    """(cells,) of sum 1; see the top."""
    mass = _mass(cells)
    weight = np.sqrt(mass.mean(0) * np.sqrt(mass[0] * mass[1]))
    return np.asarray(weight / weight.sum())


def _cut(weight: Array, ends: Array, parts: int) -> Array:
    """The parts - 1 places that cut a weight into equal parts, even within each cell."""
    below = np.array([0.0, *np.cumsum(weight)]) / weight.sum()
    rises = np.array([True, *(np.diff(below) > 1e-12)])
    rises[:-1] |= rises[1:] & ~rises[:-1]  # where a rise begins
    return np.interp(np.arange(1, parts) / parts, below[rises], ends[rises])
