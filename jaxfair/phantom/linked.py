"""What a classifier of linked films should reach, computed before anything is trained.

With a = 1 for women, y for the linked finding and rho = P(y | a = 1) - P(y | a = 0), the drawing
makes the film, but for the finding, independent of y once a is known, and the finding independent
of a once y is known. So a *detector* of the finding has one AUROC A at every site and in either
sex; an embedding that tells the finding and nothing else still tells the sex with AUROC
.5 + rho (A - .5), and within a label with .5; and the *shortcut* adds to the detector's
log-likelihood ratio the log-odds of the finding in the sex, as the best classifier of the
selecting site does, since the sex can be seen.
"""

from statistics import NormalDist
from typing import NamedTuple

import numpy as np

from jaxfair.errors import InputError
from jaxfair.phantom.config import SITES, PhantomConfig
from jaxfair.phantom.people import WOMEN
from jaxfair.phantom.thorax import HEARTS
from jaxfair.phantom.thorax_findings import WIDER

__all__ = ["Truth", "truth"]

COMPUTED = "cardiomegaly"
"""The finding whose law the drawing gives: a wider heart among hearts of any width."""


class Truth(NamedTuple):
    """What follows from a linked phantom; AUROCs are over its frontal films, one each of SITES.

    Attributes:
      rho: P(finding | woman) - P(finding | man).
      detector: AUROC of the finding alone, the same at every site and within each sex: what a
        classifier reaches that is independent of the sex given the label.
      shortcut: AUROC of the best classifier of the site "selected".
      best: AUROC of the best classifier of each site; what it has above `detector` where there is
        no selection is the true effect of the sex.
      leak: AUROC for the sex of an embedding that tells the finding alone.
      leak_within: the same within one label.
      equalized_odds: largest difference between the sexes, of true or of false positive rates, of
        the shortcut at the threshold with the largest TPR - FPR at the site "selected".
    """

    rho: dict[str, float]
    detector: float
    shortcut: dict[str, float]
    best: dict[str, float]
    leak: dict[str, float]
    leak_within: float
    equalized_odds: float


def truth(config: PhantomConfig, *, detector: float | None = None) -> Truth:
    """Returns what follows from a linked phantom.

    Args:
      config: with a `link_label`, and no other gap planted.
      detector: AUROC of a detector of the finding, such as one that was measured at the site
        "independent"; its scores are taken to be normal with equal variances. None: the best
        detector that can be, which the drawing gives for cardiomegaly: it measures the heart
        without error and knows view, age and scale, so it bounds every classifier.

    Raises:
      InputError: nothing is linked, a gap is planted too, or the finding's law is not known.

    >>> from jaxfair.phantom.config import PhantomConfig
    >>> linked = PhantomConfig(link_label="cardiomegaly", link=0.8, gap_group="")
    >>> found = truth(linked, detector=0.9)
    >>> round(found.leak["selected"], 2), round(found.leak["independent"], 2)
    (0.82, 0.5)
    """
    _check(config, detector)
    with_it, without, ratio = _heart(config) if detector is None else _binormal(detector)
    area = _auroc(without, with_it, ratio) if detector is None else detector
    rho = {site: _at(config, site) for site in SITES}
    score = {site: _scores(ratio, r) for site, r in rho.items()}
    law = {site: _pooled(with_it, without, r) for site, r in rho.items()}
    return Truth(
        rho=rho,
        detector=area,
        shortcut={site: _auroc(*law[site], score["selected"]) for site in SITES},
        best={site: _auroc(*law[site], score[site]) for site in SITES},
        leak={site: 0.5 + r * (area - 0.5) for site, r in rho.items()},
        leak_within=0.5,
        equalized_odds=_equalized_odds(with_it, without, score["selected"], law["selected"]),
    )


def _check(config: PhantomConfig, detector: float | None) -> None:
    if not config.link_label:
        raise InputError("data.phantom.link_label is empty, so nothing is linked; name a finding.")
    if config.gap_group and config.gap_contrast != 1:
        raise InputError(
            f"data.phantom.gap_group is {config.gap_group!r}, so the finding looks different there "
            "and no formula holds; set it to '' beside a link."
        )
    if detector is None and config.link_label != COMPUTED:
        raise InputError(
            f"How well {config.link_label!r} can be told is not known beforehand, only that of "
            f"{COMPUTED!r}; give the AUROC of a detector."
        )
    if detector is not None and not 0.5 <= detector < 1:
        raise InputError(f"detector is {detector}; it must be an AUROC, 0.5 up to below 1.")


def _at(config: PhantomConfig, site: str) -> float:
    shares = {"selected": 1.0, "unselected": config.link_cause, "independent": 0.0}
    return config.link * shares[site]


def _heart(config: PhantomConfig) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Laws of the width of a heart with and without the finding, and their log ratio, on a grid."""
    wider = 1 + config.link_contrast * np.linspace(*WIDER, 201)
    width = np.linspace(1 - 7 * HEARTS, wider.max() * (1 + 7 * HEARTS), 8001)
    without = _normal(width, 1.0)
    with_it = np.mean([_normal(width / w, 1.0) / w for w in wider], axis=0)
    tiny = np.finfo(float).tiny
    ratio = np.log(with_it + tiny) - np.log(without + tiny)
    return with_it / with_it.sum(), without / without.sum(), ratio


def _normal(width: np.ndarray, mean: float) -> np.ndarray:
    return np.exp(-(((width - mean) / HEARTS) ** 2) / 2)


def _binormal(area: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Laws of a normal score with and without the finding, and their log ratio, on a grid."""
    apart = 2**0.5 * NormalDist().inv_cdf(area)
    score = np.linspace(-8, 8 + apart, 8001)
    with_it, without = np.exp(-((score - apart) ** 2) / 2), np.exp(-(score**2) / 2)
    return with_it / with_it.sum(), without / without.sum(), apart * score - apart**2 / 2


def _scores(ratio: np.ndarray, rho: float) -> np.ndarray:
    """(2, n) log-odds of the finding of women and of men."""
    odds = np.log((1 + rho) / (1 - rho))
    return np.stack([ratio + odds, ratio - odds])


def _pooled(with_it: np.ndarray, without: np.ndarray, rho: float) -> tuple[np.ndarray, np.ndarray]:
    """(2, n) laws of everybody without and with the finding, by sex as in `_scores`."""
    share, rate = np.array([[WOMEN], [1 - WOMEN]]), np.array([[1 + rho], [1 - rho]]) / 2
    negative, positive = share * (1 - rate) * without, share * rate * with_it
    return negative / negative.sum(), positive / positive.sum()


def _auroc(negative: np.ndarray, positive: np.ndarray, score: np.ndarray) -> float:
    """AUROC of a score under two laws on one grid; equal scores count one half."""
    _, place = np.unique(score, return_inverse=True)
    below = np.bincount(place.ravel(), negative.ravel())
    above = np.bincount(place.ravel(), positive.ravel())
    return float(np.sum(above * (np.cumsum(below) - below / 2)))


def _equalized_odds(
    with_it: np.ndarray,
    without: np.ndarray,
    score: np.ndarray,
    law: tuple[np.ndarray, np.ndarray],
) -> float:
    order = np.argsort(score, axis=None)[::-1]
    rates = [np.cumsum(part.ravel()[order]) for part in law]
    threshold = score.ravel()[order][np.argmax(rates[1] - rates[0])]
    gaps = [
        np.subtract(*(part[own >= threshold].sum() for own in score)) for part in (with_it, without)
    ]
    return float(np.max(np.abs(gaps)))
