"""Faults of the assembly: right parts, joined wrongly."""

import jax.numpy as jnp
import numpy as np

from jaxfair.engine import books, feed, opening, population
from jaxfair.engine.assembly import Assembly
from jaxfair.engine.replay import parts_of_stages
from jaxfair.engine.trainer import Trainer
from jaxfair.privacy.plan import PrivacyPlan
from jaxfair.run.folder import RunFolder
from tests.privacy.mutations.putting import replaced, wrapped


def fault_51_steps_are_trained_before_they_are_paid_for():
    """A killed run has drawn, and its ledger does not know it."""
    return replaced(Trainer, "_pay", lambda self, first, count: None)


def fault_52_the_first_steps_choice_of_images_is_kept():
    """The other images of a patient never train."""
    first = lambda original, secret, step, *rest: original(secret, 0, *rest)
    return wrapped(feed.sampling, "draw_images", first)


def fault_53_group_codes_stand_in_another_order_than_units():
    """Rates follow a table that was sorted for itself."""

    def turned(original, ids, rows, *, groups=None, **facts):
        return original(ids, rows, groups=groups if groups is None else groups[::-1], **facts)

    return wrapped(population, "make_population", turned)


def fault_54_the_fingerprint_knows_the_first_stage_only():
    """A later stage may change between two halves of a run."""
    return replaced(books, "parts_of_stages", lambda stages: parts_of_stages(stages[:1]))


def fault_55_the_microbatch_of_the_folder_is_read_and_not_used():
    """A resumed run adds up in another order than the run that it continues."""
    return replaced(Assembly, "with_microbatch", lambda self, microbatch: self)


def fault_56_the_clip_norm_is_missing_from_the_config_of_a_run():
    """A resume at another C draws the same noise at another scale."""

    def forgetful(original, *arguments):
        config = original(*arguments)
        return config | {"dp": {k: v for k, v in config["dp"].items() if k != "l2_clip_norm"}}

    return wrapped(opening, "_config_of", forgetful)


def fault_57_the_secret_stays_in_the_folder():
    """Whoever reads it takes the noise off again."""
    return replaced(RunFolder, "forget_secret", lambda self: None)


def fault_58_only_the_first_stage_is_checked_for_coupling():
    """Later stages are joined as they are."""
    return wrapped(opening, "stages_of", lambda original, assembly, make: original(assembly))


def fault_59_the_noise_of_the_first_step_is_added_in_every_step():
    """The difference of two updates is free of noise."""
    first = lambda original, secret, step, *rest: original(secret, 0, *rest)
    return wrapped(feed.noise, "noise_key_data", first)


def fault_60_padding_counts_as_somebody():
    """The mask is made and not used."""

    def sum_grads(original, plan, loss_fn, params, batch, keys, mask):
        return original(plan, loss_fn, params, batch, keys, jnp.ones_like(mask))

    return wrapped(PrivacyPlan, "sum_grads", sum_grads)


def fault_61_ids_follow_the_place_in_a_draw():
    """What is random inside an example then depends on who else was drawn."""

    def chunks(original, rows, ids, *rest):
        return original(rows, np.arange(len(ids), dtype=np.uint32), *rest)

    return wrapped(feed, "rows_of_draw", chunks)
