"""What is refused where a plan, a ledger and a population are joined wrongly.

The engine joins them rightly by itself; who joins the pieces by hand is told here.
"""

from collections.abc import Sequence

import numpy as np

from jaxfair.errors import InputError
from jaxfair.privacy.accounting import Event
from jaxfair.privacy.cliprules.base import ClipRule
from jaxfair.privacy.ledger import Entry, Ledger, LedgerError
from jaxfair.privacy.queries import Query
from jaxfair.privacy.search import Search

__all__ = [
    "check_groups",
    "check_next",
    "check_paid",
    "check_priced",
    "check_rates",
    "own_entries",
]


def own_entries(
    ledger: Ledger,
    *,
    budget: float,
    delta: float,
    prior: Sequence[Entry],
    search: Search | None = None,
) -> list[Entry]:
    """Returns the lines of a ledger after those of earlier stages.

    Raises LedgerError for a ledger that was opened with another budget, delta or search, or that
    does not begin with `prior`.
    """
    if (ledger.budget, ledger.delta) != (budget, delta):
        raise LedgerError(
            f"{ledger.path} was opened for a budget of {ledger.budget} at delta {ledger.delta}, "
            f"but this plan has {budget} at {delta}: open it by plan.open_ledger(path)."
        )
    if ledger.search != search:
        raise LedgerError(
            f"{ledger.path} was opened for the search {ledger.search}, but this plan belongs to "
            f"{search}: open it by plan.open_ledger(path)."
        )
    if tuple(ledger.entries[: len(prior)]) != tuple(prior):
        raise LedgerError(
            f"{ledger.path} does not begin with the {len(prior)} lines of the run that this plan "
            "starts from: open it by plan.open_ledger(path)."
        )
    return ledger.entries[len(prior) :]


def check_next(entry: Entry, entries: Sequence[Entry]) -> None:
    """Raises LedgerError where a new line does not go on with the plan that wrote the others.

    Lines of one stage have the same rates, and lines of one run the same population. What
    concerns the same draws is left to the ledger itself.
    """
    for other in entries:
        if entry.shares_draw_with(other):
            continue
        if entry.population != other.population:
            raise LedgerError(
                f"The ledger paid for draws from population {other.population!r}, and now "
                f"{entry.population!r} is to be drawn: one run has one population; use another "
                "ledger."
            )
        same = (entry.sampling_prob, entry.noise_multiplier) == (
            other.sampling_prob,
            other.noise_multiplier,
        )
        if entry.stage == other.stage and not same:
            raise LedgerError(
                f"The ledger's stage {other.stage!r} draws with probability "
                f"{other.sampling_prob} at noise multiplier {other.noise_multiplier}, and this "
                f"plan with {entry.sampling_prob} at {entry.noise_multiplier}: it was opened for "
                "another plan; use a new ledger, or another stage's name."
            )


def check_paid(entries: Sequence[Entry], event: Event, steps: int) -> None:
    """Raises InputError where fewer than the first `steps` draws of a plan are paid for.

    Args:
      entries: lines of `own_entries`.
      event: of the plan; draws that were paid at other rates do not count.
    """
    rates = (event.sampling_prob, event.noise_multiplier)
    paid = {
        step
        for entry in entries
        if (entry.sampling_prob, entry.noise_multiplier) == rates
        for step in range(entry.first_step, entry.first_step + entry.steps)
    }
    missing = set(range(steps)) - paid
    if missing:
        raise InputError(
            f"A statement over {steps} steps is asked for, but the ledger has not paid for step "
            f"{min(missing)} of this plan ({len(missing)} steps are unpaid): call plan.charge "
            "before each draw."
        )


def check_rates(group_probs: Sequence[float]) -> None:
    """Raises InputError for a group's sampling probability outside (0, 1]."""
    for group, prob in enumerate(group_probs):
        if not 0 < prob <= 1:
            raise InputError(
                f"group_probs gives group {group} the rate {prob!r}; it must be in (0, 1]."
            )


def check_priced(rule: ClipRule | None, queries: Sequence[Query]) -> None:
    """Raises InputError where a rule asks something of a draw that the plan does not price."""
    known = {query.name: query.sensitivity for query in queries}
    for query in rule.queries if rule else ():
        if known.get(query.name) != query.sensitivity:
            raise InputError(
                f"The clip rule asks each draw for {query.name!r} with sensitivity "
                f"{query.sensitivity}, which the plan does not price: make the plan by make_plan "
                "with rule=..."
            )


def check_groups(groups: np.ndarray, count: int) -> None:
    """Raises InputError unless `groups` holds int codes of shape (n,) from -1 to `count` - 1."""
    if groups.ndim != 1 or not np.issubdtype(groups.dtype, np.integer):
        raise InputError(
            f"Group codes have shape {groups.shape} and type {groups.dtype}; a draw needs one "
            "integer per unit, -1 for unknown."
        )
    odd = groups[(groups < -1) | (groups >= count)]
    if len(odd):
        allowed = f"-1 to {count - 1}" if count else "only -1, as it has no rates by group"
        raise InputError(
            f"A unit has the group code {odd[0]}, and this plan knows {allowed}: give group_probs "
            "a rate for every group, or mark the unit as unknown (-1)."
        )
