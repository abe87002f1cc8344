"""What a list of mechanism events costs, by dp_accounting: PLD for the claim, RDP beside it.

With a `search` the events are those of one run, of which a random number was made and the best one
is released (`search.py`); its price is by RDP, as no PLD of it is known.

Nothing here is our own mathematics but three short formulas; everything else is Google's
accountant, which rounds pessimistically by construction.
"""

import functools
import importlib.metadata
import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import dp_accounting
import scipy.optimize
from dp_accounting.pld import PLDAccountant
from dp_accounting.rdp import RdpAccountant

from jaxfair.privacy import search as searches
from jaxfair.privacy.search import Search

__all__ = [
    "ACCOUNTANT",
    "RELATIONS",
    "Event",
    "accountant_of",
    "epsilon",
    "epsilon_rdp",
    "group_epsilon",
    "joint_noise_multiplier",
    "library_version",
    "merged_events",
    "noise_multiplier_from_epsilon",
    "one_step_delta",
    "privacy_profile",
]

GRID = 1e-4
ACCOUNTANT = {"name": "pld", "library": "dp_accounting", "grid": GRID}
"""The accountant of every claim, as it stands in privacy.json (with the library's version)."""

RELATIONS = {
    "add_or_remove_one": dp_accounting.NeighboringRelation.ADD_OR_REMOVE_ONE,
    "replace_one": dp_accounting.NeighboringRelation.REPLACE_ONE,
}
_ADD_OR_REMOVE = "add_or_remove_one"
_RDP_ORDERS = [k / 10 for k in range(20, 110)] + list(range(11, 64)) + [128, 256, 512, 1024]


@dataclass(frozen=True, order=True)
class Event:
    """`steps` Poisson-sampled Gaussian releases of one kind.

    Attributes:
      sampling_prob: q, the probability with which each unit is in a draw.
      noise_multiplier: sigma, noise deviation over sensitivity, of everything that one draw
        releases taken together (`joint_noise_multiplier`).
      steps: how many draws.
    """

    sampling_prob: float
    noise_multiplier: float
    steps: int

    def __post_init__(self) -> None:
        if not 0 < self.sampling_prob <= 1:
            raise ValueError(f"sampling_prob must lie in (0, 1], got {self.sampling_prob}.")
        if not self.noise_multiplier > 0:
            raise ValueError(f"noise_multiplier must be positive, got {self.noise_multiplier}.")
        if self.steps < 0:
            raise ValueError(f"steps must not be negative, got {self.steps}.")


def epsilon(
    events: Iterable[Event],
    delta: float,
    relation: str = _ADD_OR_REMOVE,
    search: Search | None = None,
) -> float:
    """Returns epsilon at `delta` for all events together, by PLD (an upper bound).

    Args:
      search: the events are those of one run of this search, and the price is the search's, by RDP.

    >>> round(epsilon([Event(0.01, 1.0, 1000)], 1e-5), 4)
    1.8282
    >>> round(epsilon([Event(0.01, 1.0, 1000)], 1e-5, search=Search(10.0)), 4)
    4.1034
    """
    by = "pld" if search is None else "rdp"
    return _epsilon(merged_events(events), _checked_delta(delta), relation, by, search)


def epsilon_rdp(
    events: Iterable[Event],
    delta: float,
    relation: str = _ADD_OR_REMOVE,
    search: Search | None = None,
) -> float:
    """Returns epsilon at `delta` by RDP: looser, and computed in an independent way."""
    return _epsilon(merged_events(events), _checked_delta(delta), relation, "rdp", search)


def accountant_of(search: Search | None) -> dict[str, Any]:
    """Returns the accountant of a claim as it stands in privacy.json, with its version."""
    named = ACCOUNTANT if search is None else {"name": "rdp", "library": ACCOUNTANT["library"]}
    return named | {"version": library_version()}


def privacy_profile(
    events: Iterable[Event],
    epsilons: Sequence[float],
    relation: str = _ADD_OR_REMOVE,
    search: Search | None = None,
) -> list[float]:
    """Returns delta at each epsilon, of all events together, by PLD: upper bounds, at most 1.

    The larger of both directions of the relation. Without events every delta is 0.

    >>> round(privacy_profile([Event(1.0, 1.0, 1)], [0.0])[0], 4)
    0.3829
    """
    merged = merged_events(events)
    if not merged:
        return [0.0] * len(epsilons)
    if search is not None:
        book = _searched(merged, relation, search)
        return [min(1.0, float(book.get_delta(value))) for value in epsilons]
    return [min(1.0, float(d)) for d in _by_pld(merged, relation).get_delta(list(epsilons))]


def joint_noise_multiplier(queries: Sequence[tuple[float, float]]) -> float:
    """Returns the noise multiplier of several Gaussian queries on one draw (protocol P1).

    Args:
      queries: pairs (sensitivity Delta_j, noise deviation s_j).

    sigma^-2 = sum_j (Delta_j / s_j)^2, since the queries stacked and each divided by its
    s_j are one vector query with unit noise.

    >>> round(joint_noise_multiplier([(1.0, 1.0), (1.0, 1.0)]), 4)
    0.7071
    """
    return math.fsum((sensitivity / stddev) ** 2 for sensitivity, stddev in queries) ** -0.5


@functools.lru_cache(maxsize=256)
def noise_multiplier_from_epsilon(
    target: float,
    delta: float,
    sampling_prob: float,
    steps: int,
    prior: tuple[Event, ...] = (),
    search: Search | None = None,
) -> float:
    """Returns the smallest noise multiplier, to a relative 1e-4, whose epsilon is at most `target`.

    Guarantee: `epsilon([*prior, Event(sampling_prob, result, steps)], delta) <= target`,
    where `prior` are the events of earlier stages; with a `search`, which has none, the same of
    its price. Raises ValueError if earlier stages alone reach the target.
    """

    def excess(log_sigma: float) -> float:
        event = Event(sampling_prob, math.exp(log_sigma), steps)
        return epsilon([*prior, event], delta, search=search) - target

    if prior and epsilon(prior, delta) >= target:
        raise ValueError(f"Earlier stages spent epsilon {epsilon(prior, delta):.4f} of {target}.")
    high = math.log(_rdp_upper_bound(target, delta, sampling_prob, steps))
    while excess(high) > 0:
        high += 0.5
    low = high - 0.5
    while excess(low) <= 0:
        high, low = low, low - 0.5
    log_sigma = scipy.optimize.brentq(excess, low, high, xtol=2e-5)
    while excess(log_sigma) > 0:
        log_sigma += 2e-5
    return math.exp(log_sigma)


def one_step_delta(sampling_prob: float, noise_multiplier: float, epsilon: float) -> float:
    """Returns the exact delta of ONE Poisson-sampled Gaussian step, removal direction.

    x* = sigma^2 log((e^eps - 1 + q) / q) + 1/2;
    delta = (1 - q - e^eps) Q(x*/sigma) + q Q((x* - 1)/sigma), Q the normal upper tail.
    The hockey-stick divergence of (1-q) N(0, sigma^2) + q N(1, sigma^2) from N(0, sigma^2).
    """
    q, sigma, growth = sampling_prob, noise_multiplier, math.exp(epsilon)
    border = sigma**2 * math.log((growth - 1 + q) / q) + 0.5
    return (1 - q - growth) * _upper_tail(border / sigma) + q * _upper_tail((border - 1) / sigma)


def group_epsilon(event: Event, delta: float, group_size: int) -> float:
    """Returns what record-level sampling costs a person with `group_size` records, by PLD.

    Each record is drawn on its own, so the number of a person's records in a draw is
    binomial and the shift of the mean with it (a mixture of Gaussians).
    """
    sizes = list(range(group_size + 1))
    q = event.sampling_prob
    probs = [math.comb(group_size, k) * q**k * (1 - q) ** (group_size - k) for k in sizes]
    probs[0] += 1 - math.fsum(probs)
    mixture = dp_accounting.dp_event.MixtureOfGaussiansDpEvent(event.noise_multiplier, sizes, probs)
    accountant = PLDAccountant(RELATIONS[_ADD_OR_REMOVE], GRID)
    accountant.compose(mixture, event.steps)
    return float(accountant.get_epsilon(_checked_delta(delta)))


@functools.lru_cache(maxsize=8192)
def _epsilon(
    events: tuple[Event, ...],
    delta: float,
    relation: str,
    accountant: str,
    search: Search | None = None,
) -> float:
    if not events:
        return 0.0
    if search is not None:
        return float(_searched(events, relation, search).get_epsilon(delta))
    if accountant == "pld":
        return float(_by_pld(events, relation).get_epsilon(delta))
    return float(
        _composed(RdpAccountant(_RDP_ORDERS, RELATIONS[relation]), events).get_epsilon(delta)
    )


@functools.lru_cache(maxsize=8)
def _by_pld(events: tuple[Event, ...], relation: str) -> PLDAccountant:
    return _composed(PLDAccountant(RELATIONS[relation], GRID), events)


@functools.lru_cache(maxsize=64)
def _searched(events: tuple[Event, ...], relation: str, search: Search) -> RdpAccountant:
    run = dp_accounting.ComposedDpEvent([_dp_event(event) for event in events])
    return searches.priced(search, run, RELATIONS[relation])


def _composed(book: Any, events: tuple[Event, ...]) -> Any:
    for event in events:
        book.compose(_dp_event(event))
    return book


def _dp_event(event: Event) -> Any:
    gaussian = dp_accounting.GaussianDpEvent(event.noise_multiplier)
    sampled = dp_accounting.PoissonSampledDpEvent(event.sampling_prob, gaussian)
    return dp_accounting.SelfComposedDpEvent(sampled, event.steps)


def merged_events(events: Iterable[Event]) -> tuple[Event, ...]:
    """Returns the events with equal rates added up: far faster to compose, at the same cost."""
    steps: Counter[tuple[float, float]] = Counter()
    for event in events:
        steps[event.sampling_prob, event.noise_multiplier] += event.steps
    return tuple(sorted(Event(q, sigma, count) for (q, sigma), count in steps.items() if count))


def _rdp_upper_bound(target: float, delta: float, sampling_prob: float, steps: int) -> float:
    sigma = 0.3
    while epsilon_rdp([Event(sampling_prob, sigma, steps)], delta) > target:
        sigma *= 1.3
    return sigma


def _checked_delta(delta: float) -> float:
    if not 0 < delta < 1:
        raise ValueError(f"delta must lie in (0, 1), got {delta}.")
    return float(delta)


def _upper_tail(x: float) -> float:
    return 0.5 * math.erfc(x / math.sqrt(2))


def library_version() -> str:
    """Returns the version of dp_accounting that prices the events."""
    return importlib.metadata.version("dp-accounting")
