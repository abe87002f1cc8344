"""Faults of the price, of refusals and of what a Method may see."""

import contextlib
import math

import flax.linen as nn
import jax.numpy as jnp

from jaxfair.data.dataset import Dataset
from jaxfair.engine import step
from jaxfair.models.extractor import FrozenNorm
from jaxfair.privacy import accounting, isolation, plan, statement
from jaxfair.privacy.ledger import Entry
from tests.privacy.mutations.putting import replaced, wrapped


def fault_09_a_loss_over_the_batch_is_not_noticed():
    """fair-uad-with-dp: the loss is rescaled by the batch's minimum and maximum."""
    return replaced(isolation, "check", lambda *arguments, **options: None)


def _no_refusal():
    through = lambda next_fun, args, kwargs, context: next_fun(*args, **kwargs)
    return replaced(step, "_refuse_batch_statistics", through)


def fault_10_running_statistics_are_updated_without_noise():
    """A BatchNorm in train mode, its statistics handed out beside the loss."""
    return _no_refusal()


def fault_41_a_batchnorm_becomes_a_norm_of_one_example():
    """vmap and a batch of one, silently."""
    return _no_refusal()


def _forget_prices():
    for price in (accounting._epsilon, accounting._by_pld):
        price.cache_clear()


@contextlib.contextmanager
def fault_23_every_relation_has_the_price_of_add_or_remove():
    """Replace-one quoted at the price of add-or-remove."""
    cheap = accounting.RELATIONS["add_or_remove_one"]
    _forget_prices()
    with replaced(accounting, "RELATIONS", dict.fromkeys(accounting.RELATIONS, cheap)):
        yield
    _forget_prices()


def fault_25_class_weights_come_from_private_labels():
    """tayebiarasteh/DP_CXR: pos_weight() from the training labels, unpaid."""
    original = Dataset.spec.fget

    def spec(self):
        return original(self) | {"pos_weight": float(self.manifest["label_anomaly"].mean())}

    return replaced(Dataset, "spec", property(spec))


def fault_26_two_queries_on_a_draw_are_two_events():
    """Group losses as an event beside the gradient's: 2.59 instead of 4.48."""
    return replaced(Entry, "shares_draw_with", lambda self, other: False)


def fault_28_the_choice_among_runs_is_free():
    """The best of five runs at the price of one."""

    alone = lambda original, runs, delta, **stages: (
        original(runs, delta, **stages) | {"epsilon": accounting.epsilon(runs[0], delta)}
    )
    return wrapped(statement, "tuning_cost", alone)


def fault_35_all_steps_have_the_last_noise_level():
    """Opacus #758: a schedule of sigma that is not composed."""

    def merged(original, events):
        events = list(events)
        sigma = max((event.noise_multiplier for event in events), default=1.0)
        same = [accounting.Event(e.sampling_prob, sigma, e.steps) for e in events]
        return original(same)

    return wrapped(accounting, "merged_events", merged)


def fault_36_the_price_is_that_of_the_central_limit():
    """Gaussian-DP accounting, which reports too little (Opacus' GDP accountant)."""

    def epsilon(events, delta, relation="add_or_remove_one"):
        mu = math.sqrt(
            sum(
                e.steps * e.sampling_prob**2 * (math.exp(min(50.0, e.noise_multiplier**-2)) - 1)
                for e in events
            )
        )
        return accounting.scipy.optimize.brentq(lambda x: _gaussian(x, mu) - delta, 0, 500)

    from tests.privacy import test_edges_accounting

    return replaced(test_edges_accounting, "epsilon", epsilon)


def _gaussian(epsilon, mu):
    upper = accounting._upper_tail
    return upper(epsilon / mu - mu / 2) - math.exp(epsilon) * upper(epsilon / mu + mu / 2)


def fault_37_delta_is_one_over_the_number_of_patients():
    """fair-uad-with-dp."""
    accepts = lambda delta, public_size: 1 / public_size if delta is None else delta
    return replaced(plan, "chosen_delta", accepts)


def fault_40_the_frozen_extractor_runs_in_train_mode():
    """fair-uad-with-dp: a frozen ResNet whose BatchNorm uses the batch."""

    def by_batch(next_fun, args, kwargs, context):
        if not isinstance(context.module, FrozenNorm) or context.method_name != "__call__":
            return next_fun(*args, **kwargs)
        next_fun(*args, **kwargs)
        axes = tuple(range(args[0].ndim - 1))
        return (args[0] - jnp.mean(args[0], axes)) / jnp.std(args[0], axes)

    return nn.intercept_methods(by_batch)
