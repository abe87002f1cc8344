"""What the verifier recomputes from a statement's own numbers and from the ledger."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from jaxfair.privacy import accounting
from jaxfair.privacy.accounting import Event
from jaxfair.privacy.ledger import Entry
from jaxfair.privacy.queries import GRADIENT_SUM, Query, check_names, joint, listed
from jaxfair.privacy.risk import risk
from jaxfair.privacy.sampling import UNKNOWN
from jaxfair.privacy.search import Search
from jaxfair.privacy.statement import events_of, group_costs, stages_of

__all__ = ["TOLERANCE", "cost_faults", "ledger_faults", "query_faults", "search_of"]

TOLERANCE = 1e-6


def search_of(config: Mapping[str, Any]) -> Search | None:
    """Returns the search that a run of this config.json belongs to; None for a run by itself."""
    dp = config["dp"]
    if not (dp.get("enabled", True) and dp.get("search_mean")):
        return None
    return Search(float(dp["search_mean"]), dp.get("search_law", Search.law))


def ledger_faults(
    statement: Mapping[str, Any],
    entries: Sequence[Entry],
    head: str,
    search: Search | None = None,
) -> list[str]:
    """Returns where the statement is not that of the ledger, or of one that did not pay for it.

    Args:
      entries, head: the ledger and the hash of its last line.
      search: that the run belongs to.
    """
    faults = []
    if statement["ledger_head"] != head:
        faults.append("ledger_head is not the hash of the ledger's last line")
    if statement["events"] != events_of(entries):
        faults.append("events are not those of the ledger")
    if statement["stages"] != stages_of(entries, statement["delta"]):
        faults.append(f"stages are {statement['stages']}, not those of the ledger")
    faults += _group_faults(statement, entries, search)
    entries = entries[statement["inherited"] :]
    if {entry.population for entry in entries} - {statement["population"]}:
        faults.append(f"population is {statement['population']!r}, but not in the ledger")
    paid = {n for e in entries for n in range(e.first_step, e.first_step + e.steps)}
    if not paid.issuperset(range(statement["steps"])):  # a crash may lose what was paid for
        faults.append(f"steps is {statement['steps']}, but the ledger pays for {len(paid)}")
    rates = [row.get("sampling_prob", 0) for row in statement["group_sampling"]]
    wanted = {
        "sampling_prob": max([statement["sampling_prob"], *rates]),
        "noise_multiplier": statement["joint_noise_multiplier"],
    }
    for entry in entries:
        for name, value in wanted.items():
            if getattr(entry, name) != value:
                faults.append(f"{name} is {value}, the ledger has {getattr(entry, name)}")
    return sorted(set(faults))


def _group_faults(
    statement: Mapping[str, Any], entries: Sequence[Entry], search: Search | None
) -> list[str]:
    """What each group pays at its own rate; the claim is the largest."""
    rows = statement["group_sampling"]
    if not rows:
        return []
    if any(row.keys() != {"group", "sampling_prob", "epsilon"} for row in rows):
        return [f"group_sampling cannot be read: {rows}"]
    rates = {row["group"]: row["sampling_prob"] for row in rows}
    if list(rates) != [UNKNOWN, *range(len(rows) - 1)]:
        return [f"group_sampling has the groups {list(rates)}"]
    faults = []
    if rates[UNKNOWN] != statement["sampling_prob"]:
        faults.append(f"units of unknown group are drawn at {rates[UNKNOWN]}, not sampling_prob")
    costs = group_costs(entries, statement["inherited"], rates, statement["delta"], search)
    if not _close(rows, costs):
        faults.append(f"group_sampling is {rows}, recomputed {costs}")
    if not math.isclose(max(r["epsilon"] for r in rows), statement["epsilon"], rel_tol=TOLERANCE):
        faults.append("epsilon is not that of the group that is drawn most often")
    return faults


def query_faults(statement: Mapping[str, Any]) -> list[str]:
    """The queries of a draw, the gradient sum first, and what they are together."""
    try:
        rows = statement["queries"]
        queries = [Query(r["name"], r["sensitivity"], r["noise_multiplier"]) for r in rows]
        gradient, *others = queries
        check_names(others)
    except (KeyError, TypeError, ValueError) as error:
        return [f"queries cannot be read: {error}"]
    faults = []
    told = (gradient.name, gradient.sensitivity, gradient.noise_multiplier)
    if told != (GRADIENT_SUM, statement["l2_clip_norm"], statement["noise_multiplier"]):
        faults.append(f"queries begin with {told}, not with the gradient sum of the statement")
    if not _close(rows, listed(queries)):
        faults.append(f"queries are {rows}, recomputed {listed(queries)}")
    together, claimed = joint(queries), statement["joint_noise_multiplier"]
    if not math.isclose(together, claimed, rel_tol=TOLERANCE):
        faults.append(f"joint_noise_multiplier is {claimed}, recomputed {together}")
    return faults


def _close(rows: list[dict[str, Any]], others: list[dict[str, Any]]) -> bool:
    """Equal names and texts, and numbers equal up to the tolerance."""

    def same(one: Any, other: Any) -> bool:
        if isinstance(one, str) or isinstance(other, str):
            return bool(one == other)
        return math.isclose(one, other, rel_tol=TOLERANCE)

    return len(rows) == len(others) and all(
        row.keys() == other.keys() and all(same(row[n], other[n]) for n in row)
        for row, other in zip(rows, others)
    )


def cost_faults(statement: Mapping[str, Any], search: Search | None = None) -> list[str]:
    """Recomputes what the events cost, by PLD, by RDP and, for one step, in closed form."""
    delta = statement["delta"]
    events = [
        Event(e["sampling_prob"], e["noise_multiplier"], e["steps"]) for e in statement["events"]
    ]
    costs = {
        "epsilon": accounting.epsilon(events, delta, search=search),
        "epsilon_rdp": accounting.epsilon_rdp(events, delta, search=search),
    }
    faults = [
        f"{name} is {statement[name]}, recomputed {cost}"
        for name, cost in costs.items()
        if not math.isclose(statement[name], cost, rel_tol=TOLERANCE)
    ]
    told, found = risk(events, delta, search), statement["true_positive_rates"]
    if not _close([found], [told["true_positive_rates"]]):
        faults.append(f"true_positive_rates are {found}, recomputed {told['true_positive_rates']}")
    if not math.isclose(statement["gaussian_mu"], told["gaussian_mu"], rel_tol=TOLERANCE):
        faults.append(
            f"gaussian_mu is {statement['gaussian_mu']}, recomputed {told['gaussian_mu']}"
        )
    if statement["epsilon"] > statement["budget"]:
        faults.append(f"epsilon {statement['epsilon']} is above the budget {statement['budget']}")
    if [event.steps for event in events] == [1]:
        exact = accounting.one_step_delta(
            events[0].sampling_prob, events[0].noise_multiplier, statement["epsilon"]
        )
        if exact > delta:
            faults.append(f"one step has delta {exact} in closed form, above {delta}")
    return faults
