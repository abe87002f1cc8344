"""Fresh probes: how well somebody who tries can read an attribute from frozen numbers.

A probe is fitted on some people and scores others. It is not the adversary of a training, whose
loss says how that one fared: where one was held near chance, others read well above it (Elazar &
Goldberg 2018).

Linear: logistic regression on standardised numbers. Its ridge is the one of a short list that
predicts best in cross-validation over patients. MLP: one hidden layer; a net for each fold of
patients, stopped where that fold is predicted best, and the mean of their log-odds.
"""

import warnings
from collections.abc import Callable, Iterator

import numpy as np
import numpy.typing as npt
import scipy.special
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.neural_network import MLPClassifier
from threadpoolctl import threadpool_limits

from jaxfair.errors import InputError

__all__ = ["LINEAR", "MLP", "PROBES", "checked_numbers", "probe_scores"]

Array = npt.NDArray[np.float64]
Numbers = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]

LINEAR, MLP = "linear", "mlp"

_FOLDS = 3
_RIDGES = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)
"""Inverse strengths C of 1/2 |w|^2 + C * (sum of losses), on standardised numbers."""
_HIDDEN = 64
_EPOCHS = 60
_PATIENCE = 6


def probe_scores(
    kind: str,
    numbers: npt.ArrayLike,
    codes: npt.ArrayLike,
    patients: npt.ArrayLike,
    others: npt.ArrayLike,
    *,
    seed: int,
) -> Array:
    """Fits a probe and returns (m, k) log-odds of each value against all others, for `others`.

    Args:
      kind: a key of PROBES.
      numbers: (n, d) finite, of those whom the probe is fitted on.
      codes: (n,) their values 0..k-1; each one occurs, k is at least 2.
      patients: (n,) of whom each row is; a patient is in one fold.
      others: (m, d) finite, of those whom it reads.
      seed: of the folds and of the nets.

    Raises InputError where a number is not finite.
    """
    x, new = checked_numbers(numbers, "fitted"), checked_numbers(others, "scored")
    a = np.asarray(codes, dtype=np.int64)
    mean, deviation = x.mean(axis=0, dtype=float), x.std(axis=0, dtype=float)
    varies = deviation > 1e-6 * np.abs(mean)
    scale = np.where(varies, deviation, np.inf)
    x, new = ((part - mean) / scale for part in (x, new))
    folds = _folds(a, np.asarray(patients), seed)
    with threadpool_limits(1), warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return PROBES[kind](x.astype(np.float32), a, folds, new.astype(np.float32), seed)


def checked_numbers(numbers: npt.ArrayLike, name: str) -> Numbers:
    """Returns (n, d) floats, or raises InputError where they are no such table or not finite."""
    x = np.asarray(numbers, dtype=np.float32)
    if x.ndim != 2:
        raise InputError(f"The embedding {name!r} has the shape {x.shape}; give (n, d) numbers.")
    odd = np.flatnonzero(~np.isfinite(x).all(axis=1))
    if len(odd):
        raise InputError(
            f"The embedding {name!r} is not finite in {len(odd)} of {len(x)} rows (the first is row"
            f" {odd[0]}): its network has diverged, so train it again."
        )
    return x


def _folds(codes: Ints, patients: npt.NDArray, seed: int) -> Ints:
    """(n,) fold of each row: patients are dealt out at random, those of each value evenly."""
    _, first, place = np.unique(patients, return_index=True, return_inverse=True)
    rng = np.random.default_rng(seed)
    order = np.lexsort((rng.random(len(first)), codes[first]))
    fold = np.empty(len(first), dtype=np.int64)
    fold[order] = np.arange(len(first)) % _FOLDS
    return fold[place]


def _splits(codes: Ints, folds: Ints) -> Iterator[tuple[Ints, Ints]]:
    """(rest, fold) rows; a rest without all values can fit nothing that is asked."""
    for fold in range(_FOLDS):
        rest, held = np.flatnonzero(folds != fold), np.flatnonzero(folds == fold)
        if len(held) and len(np.unique(codes[rest])) == codes.max() + 1:
            yield rest, held


def _linear(x: Numbers, codes: Ints, folds: Ints, new: Numbers, seed: int) -> Array:
    losses = np.zeros(len(_RIDGES))
    for rest, held in _splits(codes, folds):
        model = LogisticRegression(warm_start=True, max_iter=200)
        for i, ridge in enumerate(_RIDGES):
            model.set_params(C=ridge).fit(x[rest], codes[rest])
            losses[i] += _loss(_log_odds(model.decision_function(x[held])), codes[held])
    chosen = _RIDGES[int(losses.argmin())]
    model = LogisticRegression(C=chosen, max_iter=200).fit(x, codes)
    return _log_odds(model.decision_function(new))


def _mlp(x: Numbers, codes: Ints, folds: Ints, new: Numbers, seed: int) -> Array:
    splits = list(_splits(codes, folds))
    nets = [_stopped(x, codes, rest, held, seed + i) for i, (rest, held) in enumerate(splits)]
    odds = [_net_odds(net, new) for net in nets]
    return np.asarray(np.mean(odds, axis=0))


def _stopped(x: Numbers, codes: Ints, rest: Ints, held: Ints, seed: int) -> MLPClassifier:
    """A net fitted to `rest`, as it was when it predicted `held` best."""
    rng, classes = np.random.default_rng(seed), np.arange(codes.max() + 1)
    size = int(np.clip(len(rest) // 20, 16, 128))
    net = MLPClassifier((_HIDDEN,), alpha=1.0, batch_size=size, random_state=seed)
    best, epoch, kept = np.inf, 0, None
    for now in range(_EPOCHS):
        order = rng.permutation(rest)
        net.partial_fit(x[order], codes[order], classes=classes)
        loss = _loss(_net_odds(net, x[held]), codes[held])
        if loss < best:
            best, epoch = loss, now
            kept = [[part.copy() for part in parts] for parts in (net.coefs_, net.intercepts_)]
        elif now - epoch >= _PATIENCE:
            break
    assert kept is not None
    net.coefs_, net.intercepts_ = kept
    return net


def _net_odds(net: MLPClassifier, x: Numbers) -> Array:
    p = net.predict_proba(x).astype(float)
    rest = p.sum(axis=1, keepdims=True) - p
    return np.asarray(np.log(np.maximum(p, 1e-30)) - np.log(np.maximum(rest, 1e-30)))


def _log_odds(decisions: npt.NDArray) -> Array:
    """(n, k) log-odds of each value, from sklearn's (n,) of the second or (n, k) of a softmax."""
    d = decisions.astype(float)
    if d.ndim == 1:
        return np.stack([-d, d], axis=1)
    rest = [scipy.special.logsumexp(np.delete(d, v, axis=1), axis=1) for v in range(d.shape[1])]
    return d - np.stack(rest, axis=1)


def _loss(odds: Array, codes: Ints) -> float:
    """Sum of -log p of the true values."""
    return float(np.logaddexp(0, -odds[np.arange(len(codes)), codes]).sum())


PROBES: dict[str, Callable[[Numbers, Ints, Ints, Numbers, int], Array]] = {
    LINEAR: _linear,
    MLP: _mlp,
}
"""Kind -> (standardised numbers, codes, folds, others, seed) -> log-odds of the others."""
