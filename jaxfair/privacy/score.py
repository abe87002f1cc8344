"""The score by which a search chooses, under a guarantee for those whose data decide it.

Guarantee, for neighbours by adding or removing one validation patient with all images: a patient
adds at most 1 to the sum of the scores (`unit_scores`), which gets Gaussian noise of deviation
`noise_multiplier`. So a run is, for him, one Gaussian event, since he trained nowhere; and the best
of a random number of runs costs what `search.priced` says (`noise_multiplier_from_epsilon` finds
the noise). The noise of each run has a key of its own from the secret of the search.
"""

import jax.numpy as jnp
import numpy as np
import numpy.typing as npt

from jaxfair.privacy.noise import gaussian_like, noise_key_data
from jaxfair.privacy.secret import Secret

__all__ = ["noisy_score", "unit_scores"]

SENSITIVITY = 1.0
Floats = npt.NDArray[np.float64]


def unit_scores(
    unit: npt.NDArray[np.int64], y_true: Floats, y_score: Floats
) -> npt.NDArray[np.float64]:
    """Returns (units,) 1 minus the mean squared error of each unit's probabilities.

    Guarantee: every entry lies in [0, 1] and follows from the rows of its own unit; a score that is
    not finite counts as the worst.

    Args:
      unit: (n,) codes, 0 or more, of the rows (one for each image and task).
      y_true: (n,) 0 or 1.
      y_score: (n,) probabilities; cut to [0, 1].

    >>> unit_scores(np.array([0, 0, 1]), np.array([1., 0., 1.]), np.array([1., 0.5, 0.]))
    array([0.875, 0.   ])
    """
    label = np.clip(np.nan_to_num(y_true, nan=0.0), 0, 1)
    error = np.square(np.clip(y_score, 0, 1) - label)
    good = 1 - np.where(np.isfinite(error), error, 1.0)
    images = np.bincount(unit, minlength=1)
    sums = np.bincount(unit, weights=good, minlength=1)
    return np.asarray(np.clip(sums[images > 0] / images[images > 0], 0, 1))


def noisy_score(scores: Floats, noise_multiplier: float, secret: Secret, number: int) -> float:
    """Returns the sum of the units' scores with the noise of run `number` of a search.

    How many units there are is not told: sums of the runs of one search are about the same people,
    and are compared as they are.
    """
    words = noise_key_data(secret, number, num_leaves=1)
    shape = {"score": np.zeros((), np.float32)}
    stddev = noise_multiplier * SENSITIVITY
    noise = gaussian_like(shape, jnp.asarray(words), stddev)["score"]
    return float(np.clip(scores, 0, 1).sum() + float(noise))
