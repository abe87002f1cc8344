"""Mitigations of data, rates, sizes and stages: what they set, and what they refuse."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxfair.errors import InputError
from jaxfair.methods.fae import FAEConfig, make_fae
from jaxfair.methods.mitigations.catalog import (
    MITIGATIONS,
    REFUSED,
    mitigated,
    own_rates,
    own_sections,
)
from jaxfair.methods.mitigations.finetune import FineTune
from jaxfair.methods.mitigations.head import RefitHead
from jaxfair.methods.mitigations.sizes import SIZES, ModelSize
from jaxfair.methods.mitigations.upsampling import Upsampling, groups_of_units
from jaxfair.methods.mitigations.whom import Balance, Composition, CoreSet, DataSize
from tests.methods.mitigated import ATTRIBUTES, BATCH, CASES, PLAIN, QUICK, N, loss_of, stages

SEX = {"by": ("sex",), "attributes": ATTRIBUTES}


def gradients(method, params, frozen):
    grad = jax.vmap(jax.grad(loss_of(method, frozen)), in_axes=(None, 0, 0))
    keys = jax.random.split(jax.random.key(9), N)
    return jax.jit(grad, compiler_options=QUICK)(params, BATCH, keys)


def refusal(make, *given, **fields):
    with pytest.raises(InputError) as caught:
        make(*given, **fields)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("name", "config", "changes"),
    [
        ("composition", CASES["composition"], {"data": {"keep_by": ("sex",), "keep": (1.0, 0.5)}}),
        ("balance", Balance(**SEX, shares=(0.8, 0.2)),
         {"data": {"keep_by": ("sex",), "keep": (0.25, 1.0)}}),
        ("balance", Balance(**SEX, counted=True),
         {"data": {"keep_by": ("sex",), "keep_balanced": True}}),
        ("data_size", DataSize(0.1), {"data": {"keep_portion": 0.1}}),
        ("core_set", CoreSet(ids="list.txt", chosen_on="public"),
         {"data": {"keep_ids": "list.txt", "keep_where": ()}}),
        ("core_set", CoreSet(where="view=PA"),
         {"data": {"keep_ids": None, "keep_where": ("view=PA",)}}),
        ("averaging", CASES["averaging"],
         {"optim": {"average": "late", "average_from": 0, "ema_decay": 0.99}}),
        ("model_size", ModelSize("full"), {"method": SIZES["fae"]["full"]}),
        ("group_weights", CASES["group_weights"], {}),
        ("", None, {}),
    ],
)  # fmt: skip
def test_what_a_mitigation_sets_in_other_sections(name, config, changes):
    assert own_sections(name, config, {"method": {"name": "fae"}}) == changes
    if name:
        assert (mitigated(name, config, PLAIN) == PLAIN) == bool(changes)


def test_balancing_by_declared_shares_leaves_groups_of_one_size():
    keep = own_sections("balance", Balance(**SEX, shares=(0.8, 0.2)), {})["data"]["keep"]
    assert math.isclose(0.8 * keep[0], 0.2 * keep[1])


def test_the_small_autoencoder_of_the_thesis_has_one_and_a_half_million_parameters():
    counted = {}
    for size, fields in SIZES["fae"].items():
        init = lambda fields=fields: make_fae(FAEConfig(**fields)).init(jax.random.key(0), SHAPES)
        counted[size] = sum(math.prod(a.shape) for a in jax.tree.leaves(jax.eval_shape(init)[0]))
    assert round(counted["small"] / 1e6, 2) == 1.47 and round(counted["full"] / 1e6, 1) == 10.3
    assert round(counted["large"] / 1e6, 1) == 22.1


SHAPES = {"image": jax.ShapeDtypeStruct((128, 128, 1), np.float32)}


def test_sizes_of_another_method_are_refused():
    said = refusal(own_sections, "model_size", ModelSize(), {"method": {"name": "fcro"}})
    assert "knows sizes of fae, classifier, linear_probe" in said


def test_rates_by_group_are_the_factors_times_the_rate_of_the_plan():
    config = Upsampling(**SEX, factors=(3.0, 0.5))
    assert own_rates("upsampling", config, 0.1) == pytest.approx((0.3, 0.05))
    assert own_rates("jtt", CASES["jtt"], 0.1) == () == own_rates("", None, 0.1)
    assert "a probability above 1" in refusal(own_rates, "upsampling", config, 0.4)


def test_units_whose_images_differ_or_are_unknown_are_of_no_group():
    config = Upsampling(attributes={"sex": 2, "age": 3}, factors=(1.0,) * 6)
    codes = {"sex": np.array([0, 1, -1, 1, 0]), "age": np.array([2, 0, 1, -1, 0])}
    assert groups_of_units(config, codes.__getitem__).tolist() == [2, 3, -1, -1, 0]


def test_the_last_stage_of_fine_tuning_hears_the_chosen_groups_alone():
    method, params, frozen = stages("fine_tune")[1]
    found, plain = (gradients(one, params, frozen) for one in (method, PLAIN))
    weights = np.array([0.0, 1.0, 0.0])[np.arange(N) % 3]
    for ours, theirs in zip(jax.tree.leaves(found), jax.tree.leaves(plain), strict=True):
        scale = weights.reshape(-1, *[1] * (ours.ndim - 1))
        np.testing.assert_allclose(ours, scale * theirs, rtol=1e-6, atol=1e-7)
        assert not np.asarray(ours)[weights == 0].any()


def test_a_refit_trains_the_last_layer_alone_from_where_it_was_or_from_zero():
    before = stages("refit_head")[0]
    method = mitigated("refit_head", RefitHead(), PLAIN)
    params, frozen = method.stages[0].begin(before[1], before[2], jax.random.key(0), {})
    assert set(params) == {"head"} and set(frozen["balanced_head"]) == {"body"}
    jax.tree.map(np.testing.assert_array_equal, params["head"], before[1]["head"])
    afresh = mitigated("refit_head", RefitHead(afresh=True), PLAIN).stages[0]
    zeros, _ = afresh.begin(before[1], before[2], jax.random.key(0), {})
    assert not any(np.asarray(leaf).any() for leaf in jax.tree.leaves(zeros))
    one = jax.tree.map(lambda a: a[0], BATCH)
    key = jax.random.key(3)
    whole = loss_of(PLAIN, before[2])(before[1], one, key)
    assert jnp.allclose(loss_of(method.stages[0].method, frozen)(params, one, key), whole)


def test_the_last_layer_of_a_feature_autoencoder_is_its_output():
    method = mitigated("refit_head", RefitHead(), make_fae(FAEConfig(hidden_dims=(2, 2))))
    params = {"out": {"kernel": jnp.ones(2)}, "down0": {"kernel": jnp.ones(3)}}
    head, frozen = method.stages[0].begin(params, {"stats": {}}, None, {})
    assert set(head) == {"out"} and set(frozen["balanced_head"]) == {"down0"}
    assert "and there are only body" in refusal(method.stages[0].begin, {"body": 0}, {}, None, {})


@pytest.mark.parametrize(
    ("make", "fields", "sentence"),
    [
        (Composition, {**SEX, "keep": (0.5,)}, "mitigation.keep is (0.5,); give each of the 2"),
        (Composition, {**SEX, "keep": (0.0, 0.0)}, "not all of them 0"),
        (Composition, {**SEX, "keep": (1.5, 0.5)}, "a probability in [0, 1]"),
        (Composition, {**SEX, "keep": "counted"}, "a probability in [0, 1]"),
        (Balance, SEX, "give one of the two"),
        (Balance, {**SEX, "counted": True, "shares": (0.5, 0.5)}, "give one of the two"),
        (Balance, {**SEX, "shares": (0.5, 0.6)}, "with the sum 1.1"),
        (DataSize, {"portion": 0.0}, "mitigation.portion is 0.0"),
        (Upsampling, {**SEX, "factors": (1.0,)}, "has 1 numbers for the 2 groups by sex"),
        (Upsampling, {**SEX, "factors": (1.0, -1.0)}, "mitigation.factors holds -1.0"),
        (FineTune, {**SEX, "chosen": (0, 1)}, "name some, and not all, of the 2 groups"),
        (FineTune, {**SEX, "chosen": ()}, "mitigation.chosen is ()"),
        (FineTune, {**SEX, "chosen": (1,), "share": 1.0}, "mitigation.share is 1.0"),
        (CoreSet, {}, "needs mitigation.ids"),
        (CoreSet, {"ids": "list"}, "say on what the list of mitigation.ids was chosen"),
        (CoreSet, {"ids": "list", "chosen_on": "test"}, "makes every score of the run optimistic"),
        (CoreSet, {"ids": "list", "chosen_on": "validation"}, "that no ledger holds"),
        (CoreSet, {"ids": "list", "chosen_on": "training"}, "no epsilon holds for anybody"),
        (ModelSize, {"size": "smal"}, "Did you mean 'small'"),
    ],
)
def test_what_is_no_public_choice_is_refused_in_one_sentence(make, fields, sentence):
    assert sentence in refusal(make, **fields)


@pytest.mark.parametrize("name", REFUSED)
def test_what_couples_or_counts_is_refused_by_name_with_the_reason(name):
    assert REFUSED[name] in refusal(mitigated, name, None, PLAIN)
    assert name not in MITIGATIONS
