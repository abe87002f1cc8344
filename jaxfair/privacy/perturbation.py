"""A linear head without gradients in steps: the minimum of a convex objective, released once.

The objective adds up over units, and nothing in it depends on how many there are:

    J(theta) = sum_u a / l sum_j w_uj CE(theta_j . (x_u, 1), y_uj) + Lambda / 2 |theta|^2

Features x are cut to length 1, labels y are rounded to 0 or 1, those not asked have no loss, class
weights w go up to W, there are l labels, and a = C sqrt(l / 2) / W, so that the gradient of a unit
has length at most C, and at most G = C / sqrt(l) in each label. A unit is ONE of its images, as in
every draw. Neighbours differ by adding or removing one unit.

**Output perturbation** (Chaudhuri, Monteleoni and Sarwate 2011, lemma 8, for sums): J is
Lambda-strongly convex, so one unit moves its minimum by at most C / Lambda. What is released is the
minimum, found up to gamma (below), with Gaussian noise of deviation sigma (C + 2 gamma) / Lambda:
one Gaussian event of multiplier sigma.

**Objective perturbation** (Kifer, Smith and Thakurta 2012): b . theta is added, with b of deviation
sigma C, and the minimum theta* is released. The published proof takes b . g for a normal number,
though the gradient g of the unit depends on b through theta*. What is claimed here is proved
without that step, for add-or-remove neighbours:

1. Labels share neither parameters nor b, so the release is a composition of l independent ones. For
   one label, b and theta* determine each other, and theta* has the density phi(b) det H: b is minus
   the gradient of J at theta*, H the Hessian of J there. A unit adds g = s x to the gradient, with
   x = (features, 1) and s = a w / l (sigmoid - y), whose sign is that of y whatever theta* is, and
   |g| <= G. To the Hessian it adds E of rank 1, so that 1 <= det(H + E) / det H <= e^c with
   c = trace E / Lambda <= a W / (2 l Lambda).
2. Let d be the deviation of b. Without the unit log p / p' <= |g|^2 / 2 d^2 - b . g / d^2, and with
   it log p' / p <= c + |g|^2 / 2 d^2 + b . g / d^2. Whatever b made of s, these are convex in |s|,
   so at most their value at one of its ends: max(0, mu^2 / 2 + mu z) with mu = G / d and a standard
   normal z, -b . x or b . x over |x| d, which no longer depends on s.
3. So in both directions delta(epsilon) <= delta_mu(epsilon - c) for epsilon >= c, where delta_mu is
   the profile of the Gaussian mechanism: a trade-off of at least G_mu(e^c alpha) where
   e^c alpha <= Phi(-mu / 2). Take

       mu_e = -2 Phi^-1(e^-c Phi(-mu / 2))                                     (`dominating_mu`)

   For alpha <= Phi(-mu_e / 2) the trade-off G_{mu_e}(alpha) lies below that one, since
   Phi^-1(e^c alpha) - Phi^-1(alpha) grows with alpha and ends at (mu_e - mu) / 2; for larger alpha
   it does because both directions do. So a label is mu_e-Gaussian DP, and l of them sqrt(l) mu_e:
   ONE event that composes with any other (Dong, Roth and Su 2022).

**The approximate minimum** (after Iyengar et al. 2019; protocol P10): the solver ends where the
gradient of the objective has length at most gamma, so within gamma / Lambda of theta*, whatever
else it does. Given theta*, what it gives differs by at most 2 gamma / Lambda between neighbours,
and gets Gaussian noise of its own: a further event, with the share SHARE of the budget. What
float64 rounds in the gradient is far below gamma.

Not covered, and refused: softmax, other losses, several images of a unit in one minimum,
mitigations, draws of a part of the units. A watcher of the clock sees how many rounds the solver
took.
"""

import math
from dataclasses import dataclass

import jax.numpy as jnp
import numpy as np
import numpy.typing as npt
import scipy.stats

from jaxfair.errors import InputError
from jaxfair.privacy.noise import answer_key_data, gaussian_like, noise_key_data
from jaxfair.privacy.queries import CURVATURE, REST, Query
from jaxfair.privacy.secret import Secret

__all__ = [
    "MECHANISMS",
    "SHARE",
    "Perturbation",
    "dominating_mu",
    "minimum",
    "mu_within",
    "released_minimum",
]

MECHANISMS = ("gradients", "objective", "output")
"""How parameters become private: noisy gradients in steps, or one of the two of this file."""

SHARE = 0.01
"""Of the squared mu of objective perturbation, for the rest of the minimum."""
TOLERANCE = 1e-6
"""gamma over C."""

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Perturbation:
    """The objective of a perturbed minimum; public constants.

    Attributes:
      way: "objective" or "output".
      labels: l.
      weight: W, the largest weight of a class, at least that of negatives, which is 1.
      ridge: lambda of the mean loss; Lambda is `strength`.
      public_size: declared, never counted (protocol P3).
      l2_clip_norm: C.

    Raises InputError for a ridge that is not positive.
    """

    way: str
    labels: int
    weight: float
    ridge: float
    public_size: int
    l2_clip_norm: float

    def __post_init__(self) -> None:
        if self.way not in MECHANISMS[1:]:
            raise ValueError(f"way is {self.way!r}; it must be one of {MECHANISMS[1:]}.")
        if not 0 < self.ridge < math.inf:
            raise InputError(f"dp.ridge is {self.ridge!r}; it must be positive and finite.")

    @property
    def scale(self) -> float:
        """a, with which the gradient of a unit over all labels has length C at most."""
        return self.l2_clip_norm * math.sqrt(self.labels / 2) / self.weight

    @property
    def strength(self) -> float:
        """Lambda = a x ridge x public size: at the declared size the ridge of the mean loss."""
        return self.scale * self.ridge * self.public_size

    @property
    def curvature(self) -> float:
        """c, the largest logarithm of the determinants' ratio of one label."""
        return self.scale * self.weight / (2 * self.labels * self.strength)

    @property
    def tolerance(self) -> float:
        """gamma, the length of the objective's gradient at which the solver may end."""
        return TOLERANCE * self.l2_clip_norm

    @property
    def output_sensitivity(self) -> float:
        """How far one unit moves what the solver gives without b, in l2 norm."""
        return (self.l2_clip_norm + 2 * self.tolerance) / self.strength

    @property
    def rest_sensitivity(self) -> float:
        """How far what the solver gives may differ between neighbours, given the true minimum."""
        return 2 * self.tolerance / self.strength

    def multipliers(self, wanted: float) -> tuple[float, tuple[Query, ...]]:
        """Returns the noise multiplier of the mechanism and what it pays beside, for a budget.

        Args:
          wanted: the joint noise multiplier of the one event.

        Raises InputError where the ridge is too small for that budget.
        """
        if self.way == "output":
            return wanted, ()
        each = math.sqrt((1 - SHARE) / self.labels) / wanted
        mu = mu_within(each, self.curvature)
        if not mu > 0:
            least = self.ridge * self.curvature / -math.log(2 * scipy.stats.norm.cdf(-each / 2))
            raise InputError(
                f"dp.ridge is {self.ridge:g}, at which the curvature of the objective alone costs "
                f"more than dp.epsilon: raise it above {least:.3g}, raise dp.epsilon, or take "
                "dp.mechanism='output'."
            )
        extra = (dominating_mu(mu, self.curvature) ** 2 - mu**2) ** -0.5
        paid = [Query(f"{CURVATURE} {j}", self.curvature, extra) for j in range(self.labels)]
        rest = Query(REST, self.rest_sensitivity, wanted / math.sqrt(SHARE))
        return 1 / (math.sqrt(self.labels) * mu), (*paid, rest)


def dominating_mu(mu: float, curvature: float) -> float:
    """Returns mu_e of the Gaussian mechanism that is no more private than one label's release.

    >>> round(dominating_mu(1.0, 0.0), 12), round(dominating_mu(1.0, 0.1), 4)
    (1.0, 1.1706)
    """
    return float(-2 * scipy.stats.norm.ppf(math.exp(-curvature) * scipy.stats.norm.cdf(-mu / 2)))


def mu_within(mu_e: float, curvature: float) -> float:
    """Returns the largest mu whose `dominating_mu` is at most `mu_e`; NaN where there is none.

    >>> round(mu_within(dominating_mu(1.0, 0.1), 0.1), 9)
    1.0
    """
    share = math.exp(curvature) * scipy.stats.norm.cdf(-mu_e / 2)
    if share >= 0.5:
        return math.nan
    return float(-2 * scipy.stats.norm.ppf(share)) * (1 - 1e-12)


def released_minimum(
    asked: Perturbation,
    features: Floats,
    label: Floats,
    weights: Floats,
    *,
    secret: Secret | None,
    noise_multiplier: float = 0.0,
    rest_stddev: float = 0.0,
) -> Floats:
    """Returns what a run releases, (d + 1, l): the minimum with its noise, and nothing else.

    Args:
      features, label, weights: of all units, as `minimum`.
      secret: keys the noise: of b or of the output under "noise", of the rest as an answer, all of
        step 0. None for the minimum without noise, in a run without privacy.
      noise_multiplier: of the plan.
      rest_stddev: of objective perturbation, the deviation on what the solver gives.
    """
    shape = {"theta": np.zeros((features.shape[1] + 1, asked.labels), np.float32)}
    noise = lambda words, sd: np.asarray(
        gaussian_like(shape, jnp.asarray(words), sd)["theta"], np.float64
    )
    zeros = np.zeros(shape["theta"].shape)
    if secret is None:
        return minimum(asked, features, label, zeros, weights)
    own = noise_key_data(secret, 0, num_leaves=1)
    if asked.way == "output":
        found = minimum(asked, features, label, zeros, weights)
        return found + noise(own, noise_multiplier * asked.output_sensitivity)
    b = noise(own, noise_multiplier * asked.l2_clip_norm)
    found = minimum(asked, features, label, b, weights)
    return found + noise(answer_key_data(secret, 0, 1), rest_stddev)


def minimum(
    asked: Perturbation, features: Floats, label: Floats, linear: Floats, weights: Floats
) -> Floats:
    """Returns the minimum (d + 1, l) of J + linear . theta, where its gradient is at most gamma.

    Guarantees: every row counts with features of length at most 1 and labels 0, 1 or not asked,
    whatever it holds; rows of NaN labels add nothing. The gradient is at most `asked.tolerance`, or
    it raises.

    Args:
      features: (n, d), one row for each unit.
      label: (n, l), NaN where not asked.
      linear: (d + 1, l), b, the constant's last; zeros for none.
      weights: (l,) of positives, at most `asked.weight`.

    Raises ArithmeticError where Newton's method does not get there.
    """
    x = _bounded(np.asarray(features, np.float64))
    theta = np.zeros((x.shape[1], asked.labels))
    for j in range(asked.labels):
        known = np.isfinite(label[:, j])
        y = np.where(known, np.nan_to_num(label[:, j]) >= 0.5, 0.0)
        w = np.where(y > 0, np.minimum(weights[j], asked.weight), 1.0) * known
        w *= asked.scale / asked.labels
        theta[:, j] = _newton(x, y, w, linear[:, j], asked)
    return theta


def _bounded(features: Floats) -> Floats:
    """(x, 1) of each row, with |x| at most 1; a row that is not finite counts as zeros."""
    fine = np.isfinite(features).all(axis=1, keepdims=True)
    x = np.where(fine, features, 0.0)
    length = np.linalg.norm(x, axis=1, keepdims=True)
    x = x / np.maximum(length * (1 + 1e-12), 1.0)
    return np.concatenate([x, np.ones((len(x), 1))], axis=1)


def _newton(x: Floats, y: Floats, w: Floats, b: Floats, asked: Perturbation) -> Floats:
    """Newton's method with halved strides on one label; J is smooth and strongly convex."""
    ridge, enough = asked.strength, asked.tolerance / (2 * math.sqrt(asked.labels))

    def value(theta: Floats) -> float:
        eta = x @ theta
        loss = w @ (np.logaddexp(0, eta) - y * eta)
        return float(loss + ridge / 2 * theta @ theta + b @ theta)

    theta = np.zeros(x.shape[1])
    for _ in range(200):
        p = 1 / (1 + np.exp(-np.clip(x @ theta, -700, 700)))
        gradient = x.T @ (w * (p - y)) + ridge * theta + b
        if np.linalg.norm(gradient) <= enough:
            return theta
        hessian = (x * (w * p * (1 - p))[:, None]).T @ x
        hessian[np.diag_indices_from(hessian)] += ridge
        direction = np.linalg.solve(hessian, gradient)
        here, stride, slope = value(theta), 1.0, float(gradient @ direction)
        while value(theta - stride * direction) > here - 0.25 * stride * slope and stride > 1e-9:
            stride /= 2
        theta = theta - (stride if stride > 1e-9 else 1.0) * direction
    raise ArithmeticError("Newton's method did not reach the minimum of a convex objective.")
