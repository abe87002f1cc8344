"""The words and numbers of privacy.json that do not depend on the plan's arithmetic."""

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from jaxfair.privacy import accounting
from jaxfair.privacy.accounting import Event
from jaxfair.privacy.ledger import Entry
from jaxfair.privacy.search import Search
from jaxfair.schema import NOT_COVERED

__all__ = [
    "COVERED",
    "RELEASED",
    "covered",
    "events_of",
    "group_costs",
    "not_covered",
    "stages_of",
    "tuning_cost",
    "tuning_of",
]

COVERED = "each {unit} of the training population, neighbours by adding or removing one"
COVERED_ALONE = (
    "each {unit} of the training population that is {owners} only one, neighbours by adding or "
    "removing one"
)
WATCHED = "the sizes of draws, for who watches the clock of a run with dp.padded_draws=False"
SEARCHED = (
    "every other run of the search, their scores and how many there were (tried.csv, tried.png), "
    "and validation patients, by whose scores this run was chosen, but for what search.json says"
)
RELEASED = ["parameters after every step", "functions of the noisy mean in metrics.jsonl"]


def not_covered(*, watched: bool, searched: bool = False) -> list[str]:
    """Returns what the guarantee does not cover.

    Args:
      watched: draws are not padded.
      searched: the run is the best one of a search that is paid for.
    """
    return [*NOT_COVERED, *([WATCHED] if watched else []), *([SEARCHED] if searched else [])]


def events_of(entries: Iterable[Entry]) -> list[dict[str, Any]]:
    """Returns the ledger's events, equal ones merged, as they stand in privacy.json."""
    merged = accounting.merged_events(entry.event for entry in entries)
    return [asdict(event) for event in merged]


def stages_of(entries: Iterable[Entry], delta: float) -> dict[str, Any]:
    """Returns what each stage costs by itself, and their sum.

    Stages are told apart by their name and their secret's tag. The sum is basic composition,
    at a delta that adds up too: it says what one composition of all saves, and it is not
    the claim. All populations count as the same people (protocol P2).
    """
    stages: dict[tuple[str, str, str], list[Event]] = {}
    for entry in entries:
        stages.setdefault((entry.stage, entry.population, entry.draws), []).append(entry.event)
    costs: list[dict[str, Any]] = [
        {"stage": stage, "population": people, "epsilon": accounting.epsilon(events, delta)}
        for (stage, people, _), events in stages.items()
    ]
    total = math.fsum(cost["epsilon"] for cost in costs)
    return {"apart": costs, "epsilon_summed": total, "delta_summed": delta * len(costs)}


def group_costs(
    entries: Sequence[Entry],
    inherited: int,
    rates: Mapping[int, float],
    delta: float,
    search: Search | None = None,
) -> list[dict[str, Any]]:
    """Returns the sampling probability and the epsilon of each group, by group code.

    A unit that is drawn more rarely is protected better; the claim is that of the group that is
    drawn most often. Draws of earlier stages count at the rate of their events.

    Args:
      entries: of the ledger; the first `inherited` are those of earlier stages.
      rates: group code -> sampling probability, -1 for a unit of unknown group.
    """
    before = [entry.event for entry in entries[:inherited]]
    costs = []
    for group, rate in rates.items():
        own = [Event(rate, e.noise_multiplier, e.steps) for e in entries[inherited:]]
        cost = accounting.epsilon([*before, *own], delta, search=search)
        costs.append({"group": group, "sampling_prob": rate, "epsilon": cost})
    return costs


def covered(units: Sequence[str]) -> str:
    """Returns whom a claim covers, as it stands in privacy.json.

    Where stages protect different units, an image that somebody adds or removes is a whole unit
    in one stage and changes one in another; both are an addition or a removal only where the image
    is all that its patient has, and so the claim is about those.

    Args:
      units: of all stages, from the better to the worse, as `descent.units_of`.
    """
    *better, least = units
    if not better:
        return COVERED.format(unit=least)
    owners = " and ".join(f"its {unit}'s" for unit in better)
    return COVERED_ALONE.format(unit=least, owners=owners)


def tuning_cost(
    runs: Sequence[Sequence[Event]], delta: float, *, stages: int = 1
) -> dict[str, Any]:
    """Returns what it costs that these runs on the same people were compared or published.

    Releasing all of them is one composition of all their events, and the best of them is a
    function of all. Runs may differ in rates, noise and steps. What folds save is told by
    `study.joint_cost`, which knows who trains in which run.

    Args:
      runs: the events of each; a run that was tried fifty times stands here fifty times.
      stages: how many of the runs belong to the claim itself; with no more than these nothing was
        compared, and epsilon is null.

    >>> tuning_cost([[Event(0.1, 4.0, 10)]], 1e-5)
    {'runs': 1, 'epsilon': None}
    """
    if len(runs) <= stages:
        return {"runs": len(runs), "epsilon": None}
    steps = Counter[tuple[float, float]]()
    for event in (event for events in runs for event in events):
        steps[event.sampling_prob, event.noise_multiplier] += event.steps
    together = [Event(*rates, count) for rates, count in steps.items()]
    return {"runs": len(runs), "epsilon": accounting.epsilon(together, delta)}


def tuning_of(
    entries: Sequence[Entry],
    chain: Sequence[Mapping[str, Any]],
    runs: int,
    delta: float | None,
    search: Search | None = None,
) -> dict[str, Any]:
    """Returns `tuning` of a claim: the runs that were compared for any of its stages, added up.

    A search that was paid for is in the epsilon of the claim; `search` names its law, its mean (the
    number itself is a secret) and what the run would cost alone.

    Args:
      entries: of the ledger, those of earlier stages first.
      chain: of the earlier stages, as `descent.Earlier.told` gives it.
      runs: how many were compared for the last stage, itself included.
      delta: None of a run without privacy, of which only the number of runs is told.
    """
    if delta is None:
        return {"runs": sum(link["tuning_runs"] for link in chain) + runs, "epsilon": None}
    if search is not None:
        alone = accounting.epsilon([entry.event for entry in entries], delta)
        told = {"law": search.law, "mean": search.mean, "epsilon_alone": alone}
        return {"runs": 1, "epsilon": None, "search": told}
    events, compared = [entry.event for entry in entries], []
    for link in chain:
        compared += [events[: link["lines"]]] * link["tuning_runs"]
        events = events[link["lines"] :]
    return tuning_cost([*compared, *[events] * runs], delta, stages=len(chain) + 1)
