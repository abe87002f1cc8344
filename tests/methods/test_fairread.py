"""FairREAD: its counts, its adversary, attributes given or dropped, and a whole private run."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxfair.errors import InputError
from jaxfair.methods.attributes import attribute_loss
from jaxfair.methods.fairread import FairreadConfig, describe, make_fairread
from jaxfair.methods.labels import label_inputs
from jaxfair.models.refusion import Refusion
from jaxfair.privacy.verify import verify_run
from tests.methods.staged import SMALL, N, drawn, example_of, fairread, opened, stages_of

KEY = jax.random.key(0)
PUBLISHED = {
    "labels": ("cardiomegaly",),
    "attributes": {"race": 2, "sex": 2, "age": 2},
    "arm": "published",
    "backbone": "densenet121",
}


def batch(**changes):
    return {name: jnp.asarray(values) for name, values in drawn().items()} | changes


def count(tree):
    return sum(leaf.size for leaf in jax.tree.leaves(tree))


def shapes(places=4, **fields):
    """Shapes of what the last stage begins with, or an earlier one, at 64 x 64 pixels."""
    method = make_fairread(FairreadConfig(**PUBLISHED | fields))
    spec = {
        "image": jax.ShapeDtypeStruct((64, 64, 3), jnp.float32),
        "group": jax.ShapeDtypeStruct((3,), jnp.int32),
    }

    def begin():
        variables = method.init(KEY, spec)
        for stage in method.stages[: places - 1]:
            variables = stage.begin(*variables, KEY, spec)
        return variables

    return jax.eval_shape(begin)


@pytest.mark.parametrize(("blocks", "expected"), [(1, 8_374_404), (2, 9_312_132)])
def test_the_published_arm_has_as_many_parameters_as_published(blocks, expected):
    assert count(shapes(blocks=blocks)[0]) == expected


def test_the_stages_before_have_as_many_parameters_as_fcros():
    """phi_A has an output for each of three attributes, phi_T for the one label."""
    params, frozen = shapes(places=3)
    assert count(frozen["attributes"]["params"]) == 7_085_443
    assert count(params) == 7_085_185


def example_row(example):
    return jax.tree.map(lambda value: jnp.asarray(value)[None], example)


def loss_and_gradient(method, params, frozen, example):
    fun = lambda p: method.loss(p, frozen, example, KEY)[0]
    return jax.device_get(jax.jit(jax.value_and_grad(fun))(params))


@pytest.mark.parametrize("conditional", [False, True])
def test_the_adversary_learns_to_tell_and_what_it_reads_is_led_the_other_way(conditional):
    """alpha = 0.5 against none: the adversary gets its own gradient, the trunk -alpha times it.

    Where it is told the label it has the numbers of that beside what it reads.
    """
    method, params, frozen = stages_of(fairread(alpha=0.5, conditional=conditional))[-1]
    other, example = fairread(alpha=0.0).stages[-1].method, example_of()
    fusion = {name: part for name, part in params["fusion"].items() if name != "adversary"}
    alone = loss_and_gradient(other, params | {"fusion": fusion}, frozen, example)
    both = loss_and_gradient(method, params, frozen, example)

    def telling(adversary, trunk):
        z = method.embed({**params, "trunk": trunk}, frozen, batch())["disease"][5:6]
        net = Refusion(1, 4, 8, vectors=True, width=8)
        variables = {"params": {"adversary": adversary}}
        told = (label_inputs(example_row(example)),) if conditional else ()
        guess = net.apply(variables, z, *told, method="guess")[0]
        logits = jnp.concatenate([jnp.zeros(1), guess])  # the sex has one output, the age three
        return attribute_loss(logits, example["group"], (2, 3))

    value, (own, trunk) = jax.jit(jax.value_and_grad(telling, (0, 1)))(
        params["fusion"]["adversary"], params["trunk"]
    )
    assert both[0] - alone[0] == pytest.approx(float(value), rel=1e-4)
    near = lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-6)
    jax.tree.map(near, both[1]["fusion"]["adversary"], own)
    wanted = jax.tree.map(lambda a, t: a - 0.5 * t, alone[1]["trunk"], trunk)
    jax.tree.map(near, both[1]["trunk"], wanted)
    assert max(np.abs(leaf).max() for leaf in jax.tree.leaves(trunk)) > 1e-3


def scores(method_fields=None, **changes):
    method, params, frozen = stages_of(fairread(**method_fields or {}))[-1]
    rows = batch(**changes)
    rows = {name: values for name, values in rows.items() if values is not None}
    return np.asarray(method.score(params, frozen, rows)["a"])


def test_attributes_are_read_at_test_time_where_they_are_given_and_not_where_dropped():
    other = jnp.asarray(drawn()["group"])[::-1]
    assert not np.array_equal(scores(), scores(group=other))
    dropped = {"at_test": "dropped"}
    np.testing.assert_array_equal(scores(dropped), scores(dropped, group=other))


def test_an_unknown_attribute_is_a_dropped_one_and_a_site_without_any_is_served():
    nobody = scores(group=jnp.full((N, 2), -1))
    np.testing.assert_array_equal(nobody, scores({"at_test": "dropped"}))
    np.testing.assert_array_equal(nobody, scores(group=None))


def test_attributes_are_dropped_in_training_with_the_probability_that_was_chosen():
    _, params, frozen = stages_of(fairread(alpha=0.0))[-1]
    example = example_of()

    def losses(rate, groups, keys):
        method = fairread(alpha=0.0, attribute_dropout=rate).stages[-1].method
        one = lambda group, key: method.loss(params, frozen, example | {"group": group}, key)[0]
        return np.asarray(jax.jit(jax.vmap(one))(groups, keys))

    keys = jax.random.split(KEY, 400)
    found = losses(0.25, jnp.repeat(example["group"][None], 400, axis=0), keys)
    cases = losses(0.0, jnp.stack(_dropped(example["group"])), keys[:4])
    share = np.isclose(found[:, None], cases, rtol=1e-5, atol=0).mean(axis=0)
    np.testing.assert_allclose(share, [0.75**2, 0.75 * 0.25, 0.25 * 0.75, 0.25**2], atol=0.07)
    assert share.sum() == pytest.approx(1.0)


def _dropped(group):
    return [jnp.where(jnp.array(lost), -1, group) for lost in np.ndindex(2, 2)]


def test_a_trunk_that_is_not_tuned_stays_as_fcro_left_it():
    method, params, frozen = stages_of(fairread(tuned=False, alpha=0.0))[-1]
    assert set(params) == {"fusion"} and "trunk" in frozen
    before = stages_of(fairread(tuned=False, alpha=0.0))[-2]
    z = method.embed(params, frozen, batch())["disease"]
    np.testing.assert_array_equal(z, before[0].embed(*before[1:], batch())["disease"])


def test_what_is_re_fused_is_held_out_of_the_subspace_in_our_arm():
    _, params, frozen = stages_of(fairread())[-1]

    def loss(weight):
        method = fairread(column_weight=weight).stages[-1].method
        return float(method.loss(params, frozen, example_of(), KEY)[0])

    assert loss(80.0) > loss(0.0) + 0.01


@pytest.mark.slow
def test_four_private_stages_have_one_ledger_and_keep_their_promise(tmp_path):
    trainer = opened(tmp_path / "run", fairread(), private=True)
    trainer.run()
    told = json.loads((tmp_path / "run" / "privacy.json").read_text())
    assert told["steps"] == 8 and told["epsilon"] <= 8.0
    apart = [stage["stage"] for stage in told["stages"]["apart"]]
    assert apart == ["train", "train 2", "train 3", "train 4"]
    assert verify_run(tmp_path / "run") == []
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(trainer.params()))
    here = trainer.assembly
    found = here.method.embed(trainer.params(), here.frozen, batch())
    assert list(found) == ["disease", "sensitive"]
    assert {name: e.shape for name, e in found.items()} == {"disease": (N, 8), "sensitive": (N, 8)}
    np.testing.assert_allclose(np.linalg.norm(found["disease"], axis=1), 1, rtol=1e-4)


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"arm": "published"}, "'published' re-fuses the maps of a backbone, and 'features' has"),
        ({"arm": "publishd"}, "arm = 'publishd' is none of"),
        ({"tuned": False}, "alpha = 0.1 turns an adversary on what tuned = False keeps"),
        ({"at_test": "guessed"}, "at_test = 'guessed' is none of"),
        ({"attribute_dropout": 1.5}, "attribute_dropout = 1.5 must be in"),
        ({"attribute_dropout": 1.0}, "attribute_dropout = 1 shows no attribute in training"),
        ({"blocks": 0}, "blocks = 0 must be at least 1"),
        ({"fusion_share": 0.5}, "target_share = 0.3, fusion_share = 0.5 add up to 1.05; it must"),
        ({"attributes": {}}, "'fairread' needs at least one"),
    ],
)
def test_a_wrong_field_ends_in_one_sentence(fields, sentence):
    with pytest.raises(InputError) as caught:
        FairreadConfig(**SMALL | fields)
    assert sentence in str(caught.value) and "\n" not in str(caught.value)


def test_a_report_is_told_what_a_prediction_needs():
    told = describe(FairreadConfig(**SMALL))
    assert told["needs"] == ["sex", "age_group"] and "reads sex, age_group" in told["note"]
    assert describe(FairreadConfig(**SMALL | {"at_test": "dropped"}))["needs"] == []
