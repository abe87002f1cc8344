"""Faults of a released evaluation."""

import numpy as np

from jaxfair.fairness import noisy
from jaxfair.privacy import histogram, risk
from jaxfair.privacy.ledger import Ledger
from jaxfair.privacy.strategy import strategy
from jaxfair.publish import asking
from tests.privacy import test_edges_published
from tests.privacy.mutations.putting import replaced, wrapped


def fault_190_every_image_counts_as_a_patient():
    """A patient with fifty films moves the histogram by fifty."""

    def counted(patient, cell, size):
        return np.bincount(cell, minlength=size).astype(float)

    return replaced(histogram, "unit_histogram", counted)


def fault_191_a_patient_counts_in_both_parts():
    """Two events where one was paid for."""
    return replaced(histogram, "_counts", lambda patient, tests: np.ones(len(patient), bool))


def fault_192_each_question_has_the_whole_budget():
    def whole(original, epsilon, delta, questions):
        found = original(epsilon, delta, dict.fromkeys(questions, ("one",)))
        each = {part: found.queries[part][0].noise_multiplier for part in questions}
        queries = {
            part: tuple(histogram.Query(name, 1.0, each[part]) for name in names)
            for part, names in questions.items()
        }
        return found._replace(queries=queries)

    return wrapped(test_edges_published, "price", whole)


def fault_193_nobody_looks_at_what_was_released_before():
    def charged(self, entry):
        self._append(entry)
        return 0.0

    return replaced(Ledger, "charge", charged)


def fault_194_one_key_serves_all_questions():
    def same(original, secret, number, *, num_leaves):
        return original(secret, 0, num_leaves=num_leaves)

    return wrapped(histogram, "noise_key_data", same)


def fault_195_a_question_may_be_asked_until_the_noise_is_gone():
    def kept(original, self, *given):
        opened = dict(self._open)
        found = original(self, *given)
        self._open = opened
        return found

    return wrapped(histogram.Answers, "ask", kept)


def fault_196_groups_of_any_size_are_shown():
    def shown(original, *given, minimum=0.0, **named):
        with replaced(noisy, "enough", lambda *given: True):
            return original(*given, minimum=0.0, **named)

    return wrapped(test_edges_published, "noisy_table", shown)


def fault_197_delta_is_left_out_of_the_trade_off():
    """As if epsilon were pure: at epsilon 0 an attacker would be left to chance."""
    return wrapped(
        risk, "_found", lambda of, rate, epsilons, deltas: of(rate, epsilons, 0 * deltas)
    )


def fault_198_the_line_of_scores_follows_from_those_who_are_told_of():
    """The ends of the line are the lowest and the highest score of all, instead of public ones."""

    def fitted(original, scores, low, high):
        line = original(scores, low, high)
        return (line - line.min()) / max(line.max() - line.min(), 1e-9) * 8 - 4

    return wrapped(asking, "on_line", fitted)


def fault_199_the_sums_are_not_brought_to_norm_one():
    """Each bin moves its fading sums by more than was paid for."""

    def plain(bins):
        asked = strategy(bins)
        return asked / np.diag(asked)

    return replaced(histogram, "strategy", plain)


def fault_200_the_sums_are_put_on_the_noise_and_not_undone():
    return replaced(histogram, "strategy", lambda bins: np.linalg.inv(strategy(bins)))


def fault_201_tables_take_the_noise_of_each_bin_for_its_own():
    def alone(original, *given):
        return np.diag(np.diag(original(*given)))

    return wrapped(histogram.Answers, "noise", alone)
