"""The words and numbers of privacy.json that do not depend on the plan's arithmetic."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from jaxfair.privacy import accounting
from jaxfair.privacy.accounting import Event
from jaxfair.privacy.ledger import Entry
from jaxfair.schema import NOT_COVERED

__all__ = [
    "COVERED",
    "RELEASED",
    "events_of",
    "group_costs",
    "not_covered",
    "stages_of",
    "tuning_cost",
]

COVERED = "each {unit} of the training population, neighbours by adding or removing one"
WATCHED = "the sizes of draws, for who watches the clock of a run with dp.padded_draws=False"
RELEASED = ["parameters after every step", "functions of the noisy mean in metrics.jsonl"]


def not_covered(*, watched: bool) -> list[str]:
    """Returns what the guarantee does not cover; `watched` where draws are not padded."""
    return [*NOT_COVERED, *([WATCHED] if watched else [])]


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
    entries: Sequence[Entry], inherited: int, rates: Mapping[int, float], delta: float
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
        cost = accounting.epsilon([*before, *own], delta)
        costs.append({"group": group, "sampling_prob": rate, "epsilon": cost})
    return costs


def tuning_cost(events: Sequence[Event], delta: float, runs: int) -> dict[str, Any]:
    """Returns what it costs that `runs` runs like this one were compared on the same data.

    Releasing all of them is `runs` times the events in one composition, and the best of
    them is a function of all; epsilon is null where there was only this run.
    """
    if runs == 1:
        return {"runs": 1, "epsilon": None}
    repeated = [Event(e.sampling_prob, e.noise_multiplier, e.steps * runs) for e in events]
    return {"runs": runs, "epsilon": accounting.epsilon(repeated, delta)}
