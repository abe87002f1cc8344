"""Faults of a search that is paid for, and of the minimum of a convex objective."""

import numpy as np

from jaxfair.engine import minimum as engine_minimum
from jaxfair.privacy import accounting, ledger, perturbation, score, search
from jaxfair.privacy.secret import insecure_secret
from tests.privacy import test_edges_search
from tests.privacy.mutations.putting import replaced, wrapped


def fault_260_a_search_costs_what_one_run_costs():
    def alone(events, relation, search):
        return accounting._by_pld(events, relation)

    return replaced(accounting, "_searched", alone)


def fault_261_a_search_ends_at_twice_its_mean():
    def cut(original, asked, secret):
        return min(original(asked, secret), 2 * int(asked.mean))

    return wrapped(test_edges_search, "stopping_number", cut)


def fault_262_a_public_seed_draws_the_number_of_runs():
    def public(original, secret, purpose, *numbers):
        return original(insecure_secret(0), purpose, *numbers)

    return wrapped(search, "generator", public)


def fault_263_all_scores_have_the_same_noise():
    def same(original, secret, number, *, num_leaves):
        return original(secret, 0, num_leaves=num_leaves)

    return wrapped(score, "noise_key_data", same)


def fault_264_every_image_adds_to_a_score():
    return replaced(score, "unit_scores", lambda unit, y_true, y_score: y_score)


def fault_265_the_ledger_of_a_search_prices_a_run_by_itself():
    def alone(original, self, **named):
        return accounting.epsilon((entry.event for entry in self.entries), self.delta)

    return wrapped(ledger.Ledger, "epsilon", alone)


def fault_266_the_curvature_is_free():
    return replaced(perturbation, "dominating_mu", lambda mu, curvature: mu)


def fault_267_features_keep_their_length():
    def long(features):
        return np.concatenate([features, np.ones((len(features), 1))], axis=1)

    return replaced(perturbation, "_bounded", long)


def fault_268_the_linear_term_has_half_its_noise():
    def half(original, tree, words, stddev):
        return original(tree, words, stddev / 2)

    return wrapped(perturbation, "gaussian_like", half)


def fault_269_what_the_solver_gives_is_released_as_it_is():
    def none(original, tree, words, stddev):
        return original(tree, words, 0.0 if stddev == 5.0 else stddev)

    return wrapped(perturbation, "gaussian_like", none)


def fault_270_the_output_has_the_noise_of_a_gradient():
    def of_a_gradient(original, tree, words, stddev):
        return original(tree, words, 1.5)

    return wrapped(perturbation, "gaussian_like", of_a_gradient)


def fault_271_the_solver_takes_one_step():
    def early(x, y, w, b, asked):
        slope = x.T @ (w * (0.5 - y)) + b
        bend = (x * (w / 4)[:, None]).T @ x + asked.strength * np.eye(x.shape[1])
        return -np.linalg.solve(bend, slope)

    return replaced(perturbation, "_newton", early)


def fault_272_every_image_of_a_unit_takes_part():
    def every(secret, step, draw, rows, ids):
        return np.concatenate([rows[unit] for unit in draw])

    return replaced(engine_minimum.sampling, "draw_images", every)
