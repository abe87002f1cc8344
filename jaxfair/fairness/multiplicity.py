"""Many comparisons at once: Romano-Wolf step-down on shared draws, Holm without any."""

import numpy as np
import numpy.typing as npt

__all__ = ["balanced", "bootstrap_sums", "holm", "romano_wolf"]

Array = npt.NDArray[np.float64]


def holm(p_values: npt.ArrayLike) -> Array:
    """Returns Holm's corrected p values; NaN stays NaN and counts as no comparison.

    >>> holm([0.01, 0.04, 0.03]).round(3).tolist()
    [0.03, 0.06, 0.06]
    """
    p = np.asarray(p_values, dtype=float)
    order = np.argsort(p)
    n = int(np.isfinite(p).sum())
    steps = np.maximum.accumulate(p[order[:n]] * (n - np.arange(n)))
    corrected = np.full(len(p), np.nan)
    corrected[order[:n]] = np.minimum(steps, 1)
    return corrected


def romano_wolf(statistics: npt.ArrayLike, null: npt.ArrayLike) -> Array:
    """Returns step-down corrected p values (Romano & Wolf 2005, 2016).

    Args:
      statistics: (k,) studentised, larger speaks more against the null; NaN is no comparison.
      null: (B, k) centred and studentised replicates of the same statistics.

    Returns:
      (k,) corrected p values, monotone in the statistics; at least 1 / (B + 1).
    """
    t, draws = np.asarray(statistics, dtype=float), np.asarray(null, dtype=float)
    corrected = np.full(len(t), np.nan)
    order = [int(i) for i in np.argsort(-t) if np.isfinite(t[i])]
    floor = 0.0
    for step, hypothesis in enumerate(order):
        highest = draws[:, order[step:]].max(axis=1)
        p = (1 + int((highest >= t[hypothesis]).sum())) / (1 + len(draws))
        floor = max(floor, p)
        corrected[hypothesis] = floor
    return corrected


def balanced(
    statistics: npt.ArrayLike, null: npt.ArrayLike, level: float = 0.95
) -> tuple[Array, Array]:
    """Returns both in units of each column's own quantile, so that no column rules the largest.

    The laws of small and of skewed comparisons have longer tails; as they are, they alone would
    set the bar for all (Romano & Wolf 2010, "Balanced control of generalized error rates").
    The quantile is the one that each of k columns alone would have to pass, (1 - level) / k
    from the top, but never beyond the third largest. It counts the observed number in, and so
    treats it as every draw.

    Args:
      statistics: (k,), larger speaks more against the null.
      null: (B, k) draws of the same.
      level: 1 minus the level of the whole family.
    """
    t, draws = np.asarray(statistics, dtype=float), np.asarray(null, dtype=float)
    together = np.concatenate([t[None], draws])
    above = (1 - level) / max(len(t), 1) * len(together)
    rank = max(len(together) - max(round(above), 3), 0)
    high = np.maximum(np.partition(together, rank, axis=0)[rank], 1e-12)
    return t / high, draws / high


def bootstrap_sums(
    influence: Array, n_bootstrap: int, rng: np.random.Generator
) -> tuple[Array, Array]:
    """Returns centred cluster-bootstrap replicates of estimates that are sums over patients.

    Args:
      influence: (p, k) contribution of each patient to each of k estimates, each summing to 0.
      n_bootstrap: resamples of patients; all k estimates share each of them.
      rng: where the draws come from.

    Returns:
      (B, k) deviations from the estimates, and (B, k) standard errors in the resamples.
    """
    p, k = influence.shape
    moved, errors = np.empty((n_bootstrap, k)), np.empty((n_bootstrap, k))
    both = np.concatenate([influence, influence**2], axis=1)
    size = max(1, min(n_bootstrap, 4_000_000 // p))
    for start in range(0, n_bootstrap, size):
        count = min(size, n_bootstrap - start)
        drawn = rng.integers(0, p, (count, p)) + np.arange(count)[:, None] * p
        weights = np.bincount(drawn.ravel(), minlength=count * p).reshape(count, p)
        sums = weights.astype(float) @ both
        part = slice(start, start + count)
        moved[part] = sums[:, :k]
        errors[part] = np.sqrt(np.maximum(sums[:, k:] - sums[:, :k] ** 2 / p, 0))
    return moved, errors
