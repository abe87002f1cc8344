"""Sharp edges of what leaves a step, what a Method may see, and what a restart repeats."""

import dataclasses
import re
import typing

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxfair.engine.mesh import AXIS
from jaxfair.errors import InputError
from jaxfair.methods.catalog import METHODS
from jaxfair.models.extractor import FrozenNorm
from jaxfair.privacy import isolation
from jaxfair.privacy import plan as plans
from tests.privacy.test_edges_draws import dataset
from tests.privacy.toy import (
    Bench,
    C,
    dense_loss,
    dense_params,
    examples_of,
    flat64,
    method_of,
    plan_of,
)

SPEC = {
    "x": jax.ShapeDtypeStruct((36,), jnp.float32),
    "scale": jax.ShapeDtypeStruct((), jnp.float32),
}


def over_the_batch(reduce):
    """A function of one example that, under vmap, sees the whole batch."""

    @jax.custom_batching.custom_vmap
    def scaled(value):
        return value

    @scaled.def_vmap
    def _(size, batched, value):
        return (value - value.min()) / reduce(value), True

    return scaled


def test_edge_09_a_loss_that_sees_other_examples_is_refused():
    """fair-uad-with-dp rescales by the batch's minimum and maximum: up to 21.5 C, measured."""
    with pytest.raises(InputError, match="couples the examples"):
        Bench(method_of(couples_examples=True))

    def by_collective(params, frozen, example, key):
        loss, aux = dense_loss(params, frozen, example, key)
        return loss - jax.lax.pmean(loss, AXIS), aux

    squash = over_the_batch(jnp.max)

    def by_batching_rule(params, frozen, example, key):
        example = example | {"scale": squash(example["scale"])}
        return dense_loss(params, frozen, example, key)

    for loss in (by_collective, by_batching_rule):
        with pytest.raises(InputError, match="examples"):
            isolation.check("toy", loss, None, dense_params(), {}, SPEC)
    isolation.check("toy", dense_loss, None, dense_params(), {}, SPEC)


class Normalised(nn.Module):
    """A dense layer after a normalisation of the examples it is given."""

    stored: bool | None = None

    @nn.compact
    def __call__(self, x, stored=None):
        return nn.Dense(2)(nn.BatchNorm(self.stored)(x, stored))


def normalised_loss(aux, stored=False):
    def loss(params, frozen, example, key):
        out, updated = Normalised().apply(params, example["x"][None], stored, mutable="batch_stats")
        return example["scale"] * jnp.sum(out), updated if aux else {}

    return loss


def normalised_params():
    return Normalised(True).init(jax.random.key(0), jnp.zeros((1, 36)))


def test_edge_10_statistics_that_training_updates_are_refused():
    bench = Bench(method_of(normalised_loss(aux=True), normalised_params))
    with pytest.raises(InputError, match=r"updates statistics .* GroupNorm"):
        bench.clipped_sum(examples_of([1.0, 2.0]))


def test_edge_41_a_batchnorm_that_would_normalise_each_example_alone_is_refused():
    with pytest.raises(InputError, match="BatchNorm"):
        Bench(method_of(normalised_loss(aux=False), normalised_params)).clipped_sum(
            examples_of([1.0, 2.0])
        )
    stored = Bench(method_of(normalised_loss(aux=False, stored=True), normalised_params))
    assert np.isfinite(stored.clipped_sum(examples_of([1.0]))).all()


def test_edge_19_a_killed_run_repeats_its_draws_and_noise_and_pays_once(tmp_path):
    plan = plan_of(4.0, prob=0.4, budget=50.0)
    bench = Bench(plan=plan)

    def leg(first, last, state=None, *, folder=tmp_path, begun=True):
        """A process of its own: all it knows lies in the folder, and in a checkpoint."""
        secret = plan.open_secret(
            folder / "secret", seed=0, insecure_seed=None, may_create=not begun
        )
        spent = plan.charge(
            plan.open_ledger(folder / "ledger.jsonl"), stage="t", population="p",
            draws=secret.tag("draws", ""), first_step=first, steps=last - first,
        )  # fmt: skip
        source = bench.feed(examples_of(np.ones(12)), secret=secret)
        state, _ = bench.train(source, first=first, steps=last - first, state=state)
        return state, spent, [source.draw(n).tolist() for n in range(last)]

    whole, spent, draws = leg(0, 5, begun=False)
    for killed in range(1, 5):
        saved, *_ = leg(0, killed)
        again, paid, repeated = leg(killed, 5, saved)
        np.testing.assert_array_equal(flat64(again), flat64(whole))
        assert (paid, repeated) == (spent, draws)
    with pytest.raises(InputError, match="cannot be replayed"):
        leg(2, 3, folder=tmp_path / "copy")


def test_edge_25_a_method_is_built_from_public_values_only():
    """tayebiarasteh/DP_CXR weights classes by the counts of the private training labels."""
    full, less = dataset(["a", "b", "c"]), dataset(["a", "b"])
    less.manifest["label_anomaly"] = 1.0
    assert full.spec == less.spec
    assert all(isinstance(value, jax.ShapeDtypeStruct) for value in full.spec.values())
    plain = {"int", "float", "str", "bool", "None", "tuple", "..."}
    for config, *_ in METHODS.values():
        for field in dataclasses.fields(config):
            named = typing.get_type_hints(config)[field.name]
            words = set(re.findall(r"[\w.]+", str(named).replace("<class '", "").replace("'>", "")))
            if field.name == "attributes":  # how many values data.groups may have: declared lists
                words -= {"collections.abc.Mapping"}
            assert words <= plain, f"{config.__name__}.{field.name} holds a {named}"
    assert METHODS["classifier"].config(labels=("any",)).class_weights == ()


def test_edge_29_exact_losses_norms_and_shares_are_not_released():
    def loss(params, frozen, example, key):
        value, _ = dense_loss(params, frozen, example, key)
        return value + jnp.sum(example["x"]), {"loss": value, "label": example["scale"]}

    bench = Bench(method_of(loss), plan_of(1.0))
    released = []
    for seed, count in ((1, 3), (2, 6)):
        _, seen = bench.train(bench.feed(examples_of(np.zeros(count), seed)))
        assert set(seen[0]) == {"noisy_mean_norm", "params_norm"}
        released.append(flat64(seen))
    np.testing.assert_array_equal(*released)
    state = bench.start()
    sums = {"clipped_sum", "sum_rest", "answers", "answers_rest"}
    assert set(state._fields) == {"params", "opt_state", "step", "rule_state"} | sums


def test_edge_40_a_frozen_extractor_uses_stored_statistics_and_pretraining_is_paid(tmp_path):
    """fair-uad-with-dp runs its frozen ResNet in train mode: features depend on the batch."""
    images = jnp.asarray(np.random.default_rng(0).normal(size=(4, 5, 5, 3)), jnp.float32)
    variables = FrozenNorm().init(jax.random.key(0), images)
    together = FrozenNorm().apply(variables, images)
    alone = jnp.concatenate([FrozenNorm().apply(variables, image[None]) for image in images])
    np.testing.assert_allclose(together, alone, atol=1e-6)
    np.testing.assert_allclose(
        FrozenNorm().apply(variables, images[::-1]), together[::-1], atol=1e-6
    )
    plan = plan_of(4.0, prob=0.1)
    ledger = plan.open_ledger(tmp_path / "ledger.jsonl")
    spent = [
        plan.charge(ledger, stage=s, population="p", draws=s, first_step=0, steps=10)
        for s in ("pretrain", "train")
    ]
    assert spent[1] == pytest.approx(plans.accounting.epsilon([plan.event(20)], plan.delta))
    assert spent[1] > spent[0] and C > 0
