"""Faults of how a release is put together."""

import math

import numpy as np

from jaxfair.privacy import histogram
from jaxfair.privacy.histogram import People
from jaxfair.privacy.ledger import Ledger
from jaxfair.privacy.secret import Secret
from jaxfair.publish import recomputed, release
from tests.privacy.mutations.putting import replaced, wrapped


def fault_360_the_labels_are_those_of_the_rows():
    """One patient with a label of his own changes what everybody's noise is."""

    def found(original, *given):
        made = original(*given)
        return made._replace(tasks=tuple(sorted(made.rows["task"].unique())))

    return wrapped(release, "evaluation_of", found)


def fault_361_twice_the_epsilon_is_spent():
    return wrapped(release, "price", lambda original, e, *given: original(2 * e, *given))


def fault_362_the_ledger_is_not_written():
    def kept(path, **named):
        return Ledger(path, writes=False, **named)

    return replaced(release, "Ledger", kept)


def fault_363_the_second_label_is_not_in_the_price():
    def forgetful(original, epsilon, delta, questions):
        first = {part: names[: len(names) // 2] for part, names in questions.items()}
        found = original(epsilon, delta, first)
        each = {part: found.queries[part][0].noise_multiplier for part in questions}
        return found._replace(
            queries={
                part: tuple(histogram.Query(name, 1.0, each[part]) for name in names)
                for part, names in questions.items()
            }
        )

    return wrapped(release, "price", forgetful)


def fault_364_counts_have_half_of_the_noise():
    return wrapped(
        histogram, "gaussian_like", lambda original, tree, words, sd: original(tree, words, sd / 2)
    )


def fault_365_tables_tell_of_the_noise_on_validation_patients():
    return wrapped(
        histogram.Answers, "noise_sd", lambda original, self, part: original(self, "validation")
    )


def fault_366_the_unit_of_a_release_is_the_image():
    def by_row(original, rows):
        return People(np.arange(len(rows)), original(rows).tests)

    return wrapped(release, "people_of", by_row)


def fault_367_nothing_is_hidden():
    return wrapped(
        release, "tables", lambda original, found, *, minimum: original(found, minimum=-math.inf)
    )


def fault_368_the_statement_is_of_another_noise():
    def other(original, price, *given, **named):
        half = price._replace(noise_multiplier=2 * price.noise_multiplier)
        return original(half, *given, **named)

    return wrapped(release, "statement_of_release", other)


def fault_369_the_secret_is_a_constant():
    return replaced(release, "os_secret", lambda: Secret(bytes(32), "os"))


def fault_370_every_run_pays_in_a_ledger_of_its_own():
    def own(original, path):
        own.calls += 1
        return original(path.with_name(f"{own.calls}.jsonl"))

    own.calls = 0
    return wrapped(release, "_alone", own)


def fault_371_no_budget_is_kept():
    def endless(path, *, budget, delta):
        return Ledger(path, budget=1e9, delta=delta)

    return replaced(release, "Ledger", endless)


def fault_372_delta_is_a_constant():
    return replaced(release, "delta_from_public_size", lambda size: 1e-5)


def fault_440_another_release_is_told_as_if_it_were_the_first():
    def alone(original, *given, **named):
        told = original(*given, **named)
        return told | {"epsilon_after_another": told["epsilon_alone"]}

    return wrapped(release, "statement_of_release", alone)


def fault_441_the_tables_are_not_computed_again():
    return replaced(recomputed, "_faults", lambda path, wanted: iter(()))
