"""Faults of what a plan promises about a draw, and of what a run writes down."""

from unittest import mock

from jaxfair.privacy import release, sampling, wiring
from jaxfair.privacy.promise import PrivacyPlan
from tests.privacy.mutations.putting import replaced, wrapped


def fault_43_a_batch_size_is_logged():
    """The realised size of each draw, beside the loss, in most training loops."""
    return mock.patch.dict(release.METRICS, batch_size="how many were drawn")


def fault_44_steps_per_second_are_logged():
    """This project until version 0.2: the rate tells how many units there are."""
    return mock.patch.dict(release.METRICS, steps_per_second="how fast it goes")


def fault_45_the_joint_noise_multiplier_is_forgotten():
    """Side queries released for free beside the gradient."""
    own = property(lambda self: self.noise_multiplier)
    return replaced(PrivacyPlan, "joint_noise_multiplier", own)


def fault_46_rates_by_group_are_priced_at_their_mean():
    """Who is drawn more often than the mean has less privacy than the claim."""
    probs = lambda self: (self.sampling_prob, *self.group_probs)
    mean = property(lambda self: sum(probs(self)) / len(probs(self)))
    return replaced(PrivacyPlan, "priced_prob", mean)


def fault_47_an_unknown_group_is_drawn_at_a_groups_rate():
    """Code -1 reads the last entry of a table of rates, as it does in numpy."""
    rates = lambda original, probs, rate: original(probs, rate) | {sampling.UNKNOWN: probs[-1]}
    return wrapped(sampling, "rate_by_group", rates)


def fault_48_groups_share_a_generator():
    """One key a step: groups of one size and one rate are drawn in the same places."""
    same = lambda original, secret, purpose, step, *rest: original(secret, purpose, step)
    return wrapped(sampling, "_generator", same)


def fault_49_a_statement_over_unpaid_steps_is_given():
    """100 steps drawn and never charged: epsilon 0.0 where 24.08 was spent."""
    return replaced(wiring, "check_paid", lambda *arguments: None)


def fault_50_a_ledger_of_another_delta_is_accepted():
    """The epsilon of a loose delta beside the delta of the plan."""
    entries = lambda ledger, *, prior, **_: ledger.entries[len(prior) :]
    return replaced(wiring, "own_entries", entries)
