"""The plan's part of privacy.json: what is promised, by which mechanism, at what price."""

from collections.abc import Sequence
from typing import Any

from jaxfair.privacy import accounting, release, sampling, wiring
from jaxfair.privacy import statement as words
from jaxfair.privacy.descent import uncovered
from jaxfair.privacy.ledger import Entry, Ledger
from jaxfair.privacy.queries import listed
from jaxfair.privacy.risk import risk

__all__ = ["statement_of"]


def statement_of(plan: Any, ledger: Ledger, own: Sequence[Entry], steps: int) -> dict[str, Any]:
    """Returns what `PrivacyPlan.statement` says after `steps` steps.

    Args:
      plan: the PrivacyPlan.
      own: the ledger's lines after those of earlier stages.

    Raises InputError where the ledger has not paid for all of the `steps` draws.
    """
    earlier = plan.earlier.told() if plan.earlier else {}
    tuning = words.tuning_of((), earlier.get("chain", ()), plan.tuning_runs, None)
    watched, searched = plan.private and not plan.padded_draws, plan.search is not None
    statement = {
        "relation": plan.relation,
        "accountant": accounting.accountant_of(plan.search),
        "sampling_prob": plan.sampling_prob,
        "expected_batch_size": plan.expected_batch_size,
        "public_size": plan.public_size,
        "sampler": "poisson",
        "steps": steps,
        "events": words.events_of(ledger.entries),
        "inherited": len(plan.prior),
        "stages": words.stages_of(ledger.entries, plan.delta),
        "tuning": tuning,
        "earlier": earlier,
        "ledger_head": ledger.head,
        "released": words.RELEASED,
        "padded_to": plan.padded_to,
        "not_covered": uncovered(words.not_covered(watched=watched, searched=searched), earlier),
        "queries": [],
        "group_sampling": [],
        "true_positive_rates": {},
        **dict.fromkeys(release.CLAIMS),
    }
    claims = _claims(plan, ledger, own, steps) if plan.private else {}
    return release.allowed("privacy.json", statement | claims)


def _claims(plan: Any, ledger: Ledger, own: Sequence[Entry], steps: int) -> dict[str, Any]:
    """What only a private run says."""
    wiring.check_paid(own, plan.event(steps), steps)
    search, entries = plan.search, ledger.entries
    rates = sampling.rate_by_group(plan.group_probs, plan.sampling_prob)
    costs = words.group_costs(entries, len(plan.prior), rates, plan.delta, search)
    chain = plan.earlier.told()["chain"] if plan.earlier else ()
    told = risk([entry.event for entry in entries], plan.delta, search)
    return {n: getattr(plan, n) for n in release.CLAIMS if n not in told} | told | {
        "epsilon": ledger.epsilon(),
        "epsilon_rdp": ledger.epsilon(accountant="rdp"),
        "queries": listed(plan.all_queries),
        "group_sampling": costs if plan.group_probs else [],
        "tuning": words.tuning_of(entries, chain, plan.tuning_runs, plan.delta, search),
    }  # fmt: skip
