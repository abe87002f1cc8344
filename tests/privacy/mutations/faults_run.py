"""Faults in the wiring of a real `train.run`: every part is right, and it is handed the wrong one.

A run is recorded once and looked at by many tests; a fault has it recorded anew.
"""

import contextlib
import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from jaxfair import start, train
from jaxfair.data.dataset import Dataset
from jaxfair.engine import features, scan, step, trainer
from jaxfair.engine.assembly import join
from jaxfair.engine.feed import Feed
from jaxfair.privacy import noise
from jaxfair.privacy.plan import PrivacyPlan
from tests.engine.recorded import real_run
from tests.privacy.mutations.putting import replaced, wrapped


@contextlib.contextmanager
def _anew(fault):
    real_run.cache_clear()
    try:
        with fault:
            yield
    finally:
        real_run.cache_clear()


def fault_90_the_rate_is_taken_from_the_true_count():
    """expected_batch_size / len(dataset), between the plan and the trainer."""

    def opened(original, assembly, people, *rest, **how):
        rate = assembly.plan.expected_batch_size / len(people.rows)
        plan = dataclasses.replace(assembly.plan, sampling_prob=rate)
        return original(assembly.with_parts(plan=plan), people, *rest, **how)

    return _anew(wrapped(train, "open_assembly", opened))


def fault_91_images_are_drawn_under_a_claim_of_patients():
    """The ids of a table's rows, where those of its patients are claimed."""

    def made(original, ids, rows, **facts):
        each = [(f"{name}/{row}", row) for name, own in zip(ids, rows) for row in own]
        return original([name for name, _ in each], [np.array([r]) for _, r in each], **facts)

    return _anew(wrapped(start, "make_population", made))


def fault_92_a_real_run_is_joined_without_its_checks():
    """`join` for `assemble`."""
    return replaced(start, "assemble", join)


def fault_93_the_keys_repeat_after_256_steps():
    """A counter of one byte."""
    again = lambda original, self, number: original(self, number % 256)
    return _anew(wrapped(Feed, "randomness", again))


def fault_94_features_are_centred_by_the_training_mean():
    """What a pipeline of scikit-learn does first."""

    def fields(original, *given, **how):
        made = original(*given, **how)
        x = made["features"]
        return made | {"features": features.Cached(x.values - x.values.mean(0), x.place)}

    return _anew(wrapped(trainer, "training_fields", fields))


def fault_95_a_leaf_without_an_axis_gets_no_noise():
    """A temperature or a scale, skipped by a loop over matrices."""

    def normal(original, words, shape, stddev):
        return original(words, shape, stddev) if shape else jnp.zeros(shape)

    return wrapped(noise, "_normal", normal)


def fault_96_norms_are_of_the_backends_default_precision():
    """Fine on a CPU; TF32 on a GPU."""

    def einsum(original, equation, *operands, precision=None):
        kept = precision if "k" in equation else None
        return original(equation, *operands, precision=kept)

    return wrapped(jnp, "einsum", einsum)


def fault_97_the_validation_set_is_trained_on():
    """`train + validation` for the last run before a paper."""

    def units(original, self, unit, split="train"):
        ids, rows = original(self, unit, split)
        more_ids, more_rows = original(self, unit, "validation")
        return [*ids, *more_ids], [*rows, *more_rows]

    return _anew(wrapped(Dataset, "units", units))


def fault_98_the_head_begins_at_the_share_of_positives():
    """A bias from the training labels, unpaid."""

    def opened(original, assembly, people, fields, *rest, **how):
        share = np.clip(fields["label"](people.all_rows).mean(0), 0.1, 0.9)
        params = jax.device_get(assembly.params)
        params["head"]["bias"] = np.log(share / (1 - share)).astype(np.float32)
        made = assembly.with_variables(params, assembly.frozen)
        return original(made, people, fields, *rest, **how)

    return _anew(wrapped(train, "open_assembly", opened))


def fault_99_the_last_step_before_a_save_is_not_paid_for():
    """Counting from zero."""
    fewer = lambda original, self, first, count: original(self, first, max(1, count - 1))
    return _anew(wrapped(trainer.Trainer, "_pay", fewer))


def fault_100_the_clip_norm_of_the_config_does_not_arrive():
    """Noise for C on a sum that was clipped to 2 C."""

    def sum_grads(original, self, *given):
        return original(dataclasses.replace(self, l2_clip_norm=2 * self.l2_clip_norm), *given)

    return _anew(wrapped(PrivacyPlan, "sum_grads", sum_grads))


def fault_101_the_seed_of_the_config_seeds_the_secret():
    """One seed for everything, so that a run can be repeated."""
    seeded = lambda original, settings, *rest: original(settings, *rest)._replace(
        insecure_seed=settings.seed
    )
    return _anew(wrapped(train, "_options", seeded))


def fault_102_the_sum_of_one_device_is_taken_for_all():
    """A device's own total, as it comes out of `shard_map` without its checks."""

    def own(original, total, devices):
        return [total] * devices

    return _anew(wrapped(step, "_of_all_devices", own))


def fault_103_dropout_is_keyed_by_the_noise():
    """One key a step, split by nobody."""

    def shared(original, self, number):
        keys = original(self, number)
        return keys._replace(examples=keys.noise[0, 0])

    return _anew(wrapped(Feed, "randomness", shared))


def fault_104_labels_are_weighted_by_how_frequent_they_are():
    """Soft labels from the share of positives among these patients."""

    def fields(original, *given, **how):
        made = original(*given, **how)
        y = made["label"]
        values = (y.values - y.values.mean(0)).astype(np.float32)
        return made | {"label": features.Cached(values, y.place)}

    return _anew(wrapped(trainer, "training_fields", fields))


def fault_105_the_rest_of_a_sum_is_lost_between_chunks_on_the_device():
    """A carry of the high part alone."""

    def make(original, made, *rest, **named):
        def update(state, *given):
            state, released = made.update(state, *given)
            lost = jax.tree.map(jnp.zeros_like, state.sum_rest)
            return state._replace(sum_rest=lost), released

        return original(made._replace(update=update), *rest, **named)

    return wrapped(scan, "make_scanned_delivery", make)
