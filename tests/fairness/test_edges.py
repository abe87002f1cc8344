"""Bins and a threshold from noisy rounds, on scores of many kinds: what the bins cost an AUROC."""

import numpy as np
import pytest
import scipy.special
import scipy.stats

from jaxfair.fairness.edges import (
    Cells,
    believed,
    best_edges,
    first_ends,
    off_line,
    on_line,
    refined,
    youden_bin,
)
from jaxfair.fairness.histogram import area, binned, kernel, tied_area
from jaxfair.fairness.metrics import auroc
from tests.fairness.binned_laws import masses

N = scipy.stats.norm
SD = 3.73
"""Noise on a count of the tests at epsilon 1; on one of the validation patients sqrt 3 times."""


def asked(scores, y, low, high, seed, *, bins=5, cells=16):
    """The edges of a release and the bin of its threshold; as `publish/asking.py` asks for them."""
    rng, places = np.random.default_rng(seed), on_line(scores, low, high)
    ends = first_ends(low, high, cells)
    for _ in range(3):
        exact = np.bincount(y * cells + binned(places, ends[1:-1]), minlength=2 * cells)
        noisy = exact + rng.normal(scale=SD * 3**0.5, size=2 * cells)
        found = believed(noisy.reshape(2, cells), SD * 3**0.5, ends)
        ends = refined(found)
    inner = best_edges(found, bins)
    edges, first = np.unique(off_line(inner, low, high), return_index=True)
    return edges, youden_bin(found, inner[first])


def counted(scores, y, edges):
    bins = len(edges) + 1
    return np.bincount(y * bins + binned(scores, edges), minlength=2 * bins).reshape(2, bins)


def noise_of(counts):
    """Deviation of the noise of an AUROC, by its slopes."""
    (n, p), matrix = counts, kernel(counts.shape[-1])
    value = area(counts)
    slopes = (n @ matrix / n.sum() - value) / p.sum(), (matrix @ p / p.sum() - value) / n.sum()
    return SD * float(np.hypot(*(np.linalg.norm(slope) for slope in slopes)))


FORMS = {  # scores of a label y and a normal z; the range that was declared
    "even": (lambda y, z: N.cdf((z + 1.2 * y - 0.6) / 1.2), 0.0, 1.0),
    "mild": (lambda y, z: scipy.special.expit(z + 1.2 * y - 1), 0.0, 1.0),
    "saturated": (lambda y, z: scipy.special.expit(8 * z + 12 * y - 18), 0.0, 1.0),
    "very saturated": (lambda y, z: scipy.special.expit(14 * z + 24 * y - 45), 0.0, 1.0),
    "near one": (lambda y, z: scipy.special.expit(3 * z + 4 * y + 14), 0.0, 1.0),
    "logits": (lambda y, z: 2 * z + 3 * y - 1, -20.0, 20.0),
    "heavy tails": (lambda y, z: np.tan(np.pi * (N.cdf(z) - 0.5)) + 2 * y, -1e4, 1e4),
    "distances": (lambda y, z: np.exp(2 * z + 2 * y), 0.0, 1e5),
    "no difference": (lambda y, z: scipy.special.expit(z), 0.0, 1.0),
}


def drawn(name, patients, positive, seed):
    rng = np.random.default_rng(seed)
    y = (rng.random(patients) < positive).astype(int)
    form, low, high = FORMS[name]
    return form(y, rng.normal(size=patients)), y, low, high


@pytest.mark.parametrize(("patients", "positive"), [(5000, 0.15), (3000, 0.05), (600, 0.1)])
@pytest.mark.parametrize("name", FORMS)
def test_the_bias_of_bins_is_below_half_of_the_noise_or_of_what_is_told(name, patients, positive):
    """Mean of 25 releases of 25 sets; half as many patients validate; see noisy.py of tails."""
    errors, noise, told = [], [], []
    part, limit = (1.2, 0.007) if name == "heavy tails" else (0.25, 0.0035)
    for seed in range(25):
        scores, y, low, high = drawn(name, patients, positive, seed)
        others, labels, *_ = drawn(name, patients // 2, positive, 100 + seed)
        edges, at = asked(others, labels, low, high, seed)
        counts = counted(scores, y, edges)
        assert len(edges) == 4 and 1 <= at <= 4
        errors.append(float(area(counts) - auroc(y, scores)))
        noise.append(noise_of(counts))
        told.append(float(area(counts) - tied_area(counts)))
    assert abs(np.mean(errors)) < max(0.5 * np.mean(noise), part * abs(np.mean(told)))
    assert abs(np.mean(errors)) < limit or np.mean(noise) > 0.03


@pytest.mark.parametrize("values", [3, 5, 10])
def test_of_tied_scores_value_less_correction_is_the_area(values):
    """Each value has its bin, or some share one; what the correction moved is what is wrong."""
    rng = np.random.default_rng(0)
    y = (rng.random(6000) < 0.2).astype(int)
    scores = np.clip(
        np.round((rng.normal(size=6000) + 1.2 * y) * values / 5 + values / 2), 0, values
    )
    edges, _ = asked(scores[::3] / values, y[::3], 0.0, 1.0, 0)
    counts = counted(scores / values, y, edges)
    assert abs(tied_area(counts) - auroc(y, scores)) < {3: 0.004, 5: 0.01, 10: 0.02}[values]


def test_the_line_rises_and_comes_back():
    for low, high in ((0.0, 1.0), (-20.0, 20.0), (0.0, 1e5), (2.0, 3.0)):
        scores = low + (high - low) * np.array([0.0, 1e-9, 1e-3, 0.4, 0.9, 1.0])
        places = on_line(scores, low, high)
        assert (np.diff(places) > 0).all()
        assert np.allclose(off_line(places, low, high), scores, rtol=1e-6, atol=1e-12)
        outside = on_line([low - 7, high + 7], low, high)
        assert outside.tolist() == [places[0], places[-1]]


def test_cells_that_noise_alone_fills_are_empty_and_positives_rise():
    rng = np.random.default_rng(0)
    exact = np.array([[0.0, 400, 300, 50, 0, 0], [0.0, 10, 60, 70, 0, 0]])
    found = believed(exact + rng.normal(scale=3, size=exact.shape), 3.0, np.arange(7.0)).counts
    assert (found[:, [0, 4, 5]] == 0).all() and (found >= 0).all()
    share = found[1, 1:4] / found[:, 1:4].sum(0)
    assert (np.diff(share) >= 0).all() and abs(found[:, 1:4] - exact[:, 1:4]).max() < 30


def test_where_nobody_is_believed_cells_stay_even():
    found = believed(np.zeros((2, 4)), 1.0, np.linspace(0, 1, 5))
    assert np.allclose(refined(found), np.linspace(0, 1, 5))
    assert np.allclose(best_edges(found, 4), [0.25, 0.5, 0.75])
    assert 1 <= youden_bin(found, [0.25, 0.5, 0.75]) <= 3


def test_bins_lie_where_the_labels_meet_and_the_threshold_is_the_best_edge():
    laws, ends = (N(0, 1), N(3, 1)), np.linspace(-5, 8, 400)
    cells = Cells(ends, np.stack([np.diff(law.cdf(ends)) for law in laws]))
    edges = best_edges(cells, 6)
    assert ((edges > 0) & (edges < 3)).all() and np.allclose(edges + edges[::-1], 3, atol=1e-3)
    assert edges[youden_bin(cells, edges) - 1] == pytest.approx(1.5, abs=1e-3)
    grid = np.arange(1, 2000) / 2000
    even = np.quantile(np.concatenate([law.ppf(grid) for law in laws]), np.arange(1, 6) / 6)
    ours, theirs = (np.stack([masses(law, e) for law in laws]) * 1000 for e in (edges, even))
    assert noise_of(ours) < 0.85 * noise_of(theirs)
