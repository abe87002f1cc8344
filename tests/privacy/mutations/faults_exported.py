"""Faults of what export writes."""

import contextlib

import jax.numpy as jnp
import pandas as pd

from jaxfair.export import __main__ as command
from jaxfair.export import about
from jaxfair.files import read_json
from jaxfair.model_file import function
from tests.privacy.mutations.putting import replaced, wrapped


def fault_210_figures_of_validation_patients_are_in_every_file():
    return replaced(command, "holds_evaluation", lambda privacy, in_house: True)


def fault_211_the_card_tells_a_score():
    def telling(original, folder, *given):
        scores = pd.read_parquet(folder.predictions)["y_score"]
        return [*original(folder, *given), f"Scores have the mean {scores.mean()}."]

    return wrapped(command, "first_lines", telling)


def fault_212_the_optimiser_lies_beside_the_parameters():
    def both(params, state):
        return {**params, "state": jnp.asarray(state["first"])}

    return replaced(about, "averaged_params", both)


def fault_213_the_claim_holds_the_secret():
    def with_secret(original, folder):
        return original(folder) | {"secret": (folder.path / "secret" / "key").read_bytes().hex()}

    return wrapped(command, "_claim", with_secret)


def fault_214_the_claim_counts_who_trained():
    def counting(original, folder):
        return original(folder) | {"patients": read_json(folder.path / "data_card.json")}

    return wrapped(command, "_claim", counting)


def fault_215_a_fixed_seed_is_taken_for_a_secret():
    return replaced(command, "holds_evaluation", lambda privacy, in_house: in_house)


def fault_216_nobody_looks_whether_the_claim_holds():
    return replaced(command, "verify_run", lambda path: [])


def fault_217_the_program_says_which_lines_it_came_from():
    return replaced(function, "_placeless", contextlib.nullcontext)
