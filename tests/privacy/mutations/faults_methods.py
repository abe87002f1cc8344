"""Faults of the fair Methods: who is led where, what is masked, and what a stage stands on."""

import jax
import jax.numpy as jnp
import optax

from jaxfair.engine import trainer
from jaxfair.engine.trainer import Trainer
from jaxfair.fairness import thresholds
from jaxfair.methods import adversarial, attributes, fairread, fcro, moments
from tests.privacy.mutations.putting import replaced, wrapped


def fault_280_the_encoder_follows_the_adversary_of_the_adversarial_method():
    """Encoder and adversary agree, and the attributes show more."""
    return wrapped(adversarial, "reverse", lambda original, x, strength: original(x, -strength))


def fault_281_what_is_re_fused_follows_the_adversary():
    return wrapped(fairread, "reverse", lambda original, x, strength: original(x, -strength))


def fault_282_the_reversal_has_its_whole_strength_from_the_first_step():
    return replaced(adversarial, "rising", lambda progress: jnp.ones_like(progress))


def fault_283_the_row_loss_teaches_the_attribute_encoder():
    """The gradient of what is to be fixed is not stopped."""
    return replaced(jax.lax, "stop_gradient", lambda x: x)


def fault_284_the_disease_embedding_is_held_orthogonal_to_itself():
    return wrapped(adversarial, "cosine_loss", lambda original, one, other: original(one, one))


def fault_285_an_embedding_is_held_out_of_the_subspace_of_the_other_class():
    turned = lambda original, basis, *rest: original(basis[::-1], *rest)
    return wrapped(moments, "column_loss", turned)


def fault_286_an_attribute_that_is_missing_counts_as_its_first_value():
    known = lambda original, group, sizes: original(jnp.maximum(group, 0), sizes)
    return wrapped(attributes, "attribute_onehot", known)


def fault_287_one_example_adds_half_a_second_moment_and_gets_all_of_the_noise():
    return wrapped(moments, "moment_loss", lambda original, *given: original(*given) / 2)


def fault_288_the_edge_of_the_noise_counts_the_signal():
    def all_of_it(moment):
        return 2 * jnp.std((moment + jnp.swapaxes(moment, 1, 2)) / 2) * moment.shape[-1] ** 0.5

    return replaced(moments, "noise_edge", all_of_it)


def fault_289_only_the_first_stage_is_paid_for():
    def first(original, self, *given):
        return original(self, *given) if self._stage == 0 else None

    return wrapped(Trainer, "_pay", first)


def fault_290_alpha_is_ignored():
    return wrapped(fairread, "reverse", lambda original, x, strength: original(x, 1.0))


def fault_291_predictions_without_attributes_read_them():
    def given(original, config, *rest):
        object.__setattr__(config, "at_test", "given")
        return original(config, *rest)

    return wrapped(fairread, "fusion_stage", given)


def fault_292_thresholds_are_picked_on_test_rows_too():
    every = lambda original, rows, *rest: original(rows.assign(split="validation"), *rest)
    return wrapped(thresholds, "fit_thresholds", every)


def fault_293_an_attribute_encoder_hears_the_other_examples():
    """As where its logits are scaled by who else is in the batch."""

    @jax.custom_batching.custom_vmap
    def counted(code):
        return code

    @counted.def_vmap
    def _(size, batched, code):
        return jnp.broadcast_to(jnp.sum(code), code.shape), True

    def hearing(original, logits, group, sizes):
        return original(logits * (1 + counted(group[0]) / 10), group, sizes)

    return wrapped(fcro, "attribute_loss", hearing)


def fault_294_a_later_stage_stands_on_what_was_never_trained():
    return replaced(trainer, "enter", lambda stages, number, before, state: stages[number])


def fault_295_no_attribute_is_ever_dropped_in_training():
    none = lambda original, key, p, shape: jnp.zeros(shape, bool)
    return wrapped(jax.random, "bernoulli", none)


def fault_296_second_moments_are_added_up_at_another_rate():
    return replaced(optax, "sgd", lambda rate: optax.scale(-0.5))


def fault_297_the_adversary_is_told_no_label():
    return wrapped(adversarial, "label_inputs", lambda original, batch: 0 * original(batch))
