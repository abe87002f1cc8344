"""What each mitigation does to a loss, beside the plain Method and a loop; and what it refuses."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxfair.errors import InputError
from jaxfair.methods.base import Stage, no_loss
from jaxfair.methods.mitigations.catalog import mitigated
from jaxfair.methods.mitigations.dro import GroupDRO
from jaxfair.methods.mitigations.groups import Grouped, group_of
from jaxfair.methods.mitigations.head import BalancedHead
from jaxfair.methods.mitigations.jtt import TrainTwice
from jaxfair.methods.mitigations.norms import GroupNorms
from jaxfair.methods.mitigations.weights import GroupWeights
from tests.methods.mitigated import (
    ATTRIBUTES,
    BATCH,
    CASES,
    PLAIN,
    QUICK,
    SPEC,
    N,
    loss_of,
    moved,
    stages,
)

KEYS = jax.random.split(jax.random.key(9), N)
SEX = {"by": ("sex",), "attributes": ATTRIBUTES}
PARAMS, FROZEN = PLAIN.init(jax.random.key(0), SPEC)
STAGED = PLAIN._replace(stages=(Stage(PLAIN, lambda *given: given[:2], 0.5),))


def row(tree, i):
    return jax.tree.map(lambda a: a[i], tree)


def gradients(method, params, frozen, batch=BATCH):
    grad = jax.vmap(jax.grad(loss_of(method, frozen)), in_axes=(None, 0, 0))
    return jax.jit(grad, compiler_options=QUICK)(params, batch, KEYS)


@functools.cache
def plain_gradients(seed):
    """Per-example gradients of PLAIN at made-up parameters."""
    return gradients(PLAIN, moved(PARAMS, seed), FROZEN)


def check_weighted(found, plain, weights):
    for ours, theirs in zip(jax.tree.leaves(found), jax.tree.leaves(plain), strict=True):
        scale = np.asarray(weights).reshape(-1, *[1] * (ours.ndim - 1))
        np.testing.assert_allclose(ours, scale * theirs, rtol=2e-5, atol=2e-6)


def refusal(make, *arguments, **fields):
    with pytest.raises(InputError) as caught:
        make(*arguments, **fields)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("by", "codes", "number"),
    [
        (("sex",), (0, 1), 0), (("sex",), (1, 0), 1), (("sex",), (-1, 0), 2),
        (("sex",), (7, 0), 2), (("age",), (0, 2), 2), ((), (1, 2), 5), ((), (0, 2), 2),
        ((), (1, -1), 6), (("age", "sex"), (1, 2), 5), (("age", "sex"), (1, 0), 1),
    ],
)  # fmt: skip
def test_groups_are_crossed_and_the_unknown_is_the_last(by, codes, number):
    config = Grouped(by=by, attributes={"sex": 2, "age": 3})
    found = group_of(config, {"group": jnp.asarray(codes, jnp.int32)})
    assert int(found) == number and found.dtype == jnp.int32 and number <= config.groups


def test_groups_that_are_not_there_are_refused():
    assert "set data.groups" in refusal(Grouped)
    said = refusal(Grouped, by=("sxe",), attributes=ATTRIBUTES)
    assert "mitigation.by names 'sxe'" in said and "Did you mean 'sex'?" in said
    assert "carry no `group`" in refusal(group_of, Grouped(attributes=ATTRIBUTES), {})


def test_a_loss_has_the_public_weight_of_its_group_and_the_unknown_weighs_one():
    method, params, frozen = stages("group_weights")[0]
    weights = np.array([2.0, 0.5, 1.0])[np.arange(N) % 3]
    check_weighted(gradients(method, params, frozen), plain_gradients(1), weights)


def test_later_stages_are_weighted_alike():
    later = mitigated("group_weights", CASES["group_weights"], STAGED).stages[0].method
    loss = lambda m: loss_of(m, FROZEN)(PARAMS, row(BATCH, 1), KEYS[1])
    np.testing.assert_allclose(loss(later), 0.5 * loss(PLAIN), rtol=1e-6)


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"weights": ()}, "has 0 numbers for the 2 groups by sex; give a weight for each"),
        ({"weights": (1.0, 0.0)}, "mitigation.weights holds 0.0"),
        ({"weights": (float("nan"), 1.0)}, "mitigation.weights holds nan"),
        ({"weights": (1.0, 2000.0)}, "mitigation.weights holds 2000.0"),
        ({"weights": "counted"}, "mitigation.weights holds c"),
        ({"weights": (1.0,), "by": ()}, "1 numbers for the 4 groups by sex and view"),
    ],
)
def test_wrong_weights_end_in_one_sentence(fields, sentence):
    assert sentence in refusal(GroupWeights, **SEX | fields)


def without_drop():
    method = mitigated("group_norms", GroupNorms(**SEX, drop=0.0), PLAIN)
    params, frozen = method.init(jax.random.key(0), SPEC)
    return method, moved(params, 1), frozen


def of_row(params, number):
    """The parameters of PLAIN that a group sees."""
    norm = {name: table[number] for name, table in params["body"]["norm"].items()}
    return params | {"body": params["body"] | {"norm": norm}}


def test_an_example_trains_the_norms_of_its_own_group_alone():
    method, params, frozen = without_drop()
    found = gradients(method, params, frozen)
    one = jax.jit(jax.grad(loss_of(PLAIN, FROZEN)))
    for i in range(3):
        ours, number = row(found, i), i % 3
        for table in ours["body"]["norm"].values():
            assert table.shape == (3, 4) and not np.delete(table, number, axis=0).any()
        truth = one(of_row(params, number), row(BATCH, i), KEYS[i])
        check_weighted(of_row(ours, number), truth, np.ones(()))


def test_the_score_of_an_image_is_that_of_the_norms_of_its_group():
    method, params, frozen = without_drop()
    ours = jax.jit(method.score)(params, frozen, BATCH)
    for number in range(3):
        theirs = PLAIN.score(of_row(params, number), frozen, BATCH)
        for task in PLAIN.tasks:
            mine = slice(number, None, 3)
            np.testing.assert_allclose(ours[task][mine], theirs[task][mine], rtol=1e-5)


def test_a_dropped_group_trains_the_norms_of_the_unknown_at_the_rate_that_was_asked():
    method, params, frozen = stages("group_norms")[0]
    grad = jax.vmap(jax.grad(loss_of(method, frozen)), in_axes=(None, None, 0))
    many = jax.random.split(jax.random.key(5), 2000)
    found = jax.jit(grad)(params, row(BATCH, 0), many)["body"]["norm"]["scale"]
    used = np.abs(found).sum(axis=-1) > 0
    assert (used.sum(axis=1) == 1).all() and not used[:, 1].any()
    assert abs(used[:, 2].mean() - 0.25) < 0.04


def test_tables_begin_alike_and_the_last_stage_alone_is_changed():
    method = mitigated("group_norms", CASES["group_norms"], STAGED)
    params, frozen = method.init(jax.random.key(0), SPEC)
    assert params["body"]["norm"]["scale"].shape == (4,)
    begun, _ = method.stages[0].begin(moved(params, 1), frozen, None, SPEC)
    table = np.asarray(begun["body"]["norm"]["bias"])
    assert table.shape == (3, 4) and (table == table[0]).all() and table.any()


def test_norms_by_group_are_refused_where_there_are_none_or_a_batch_is_one():
    def without_norm(key, spec):
        params, frozen = PLAIN.init(key, spec)
        return {"head": params["head"]}, frozen

    config = CASES["group_norms"]
    bare = mitigated("group_norms", config, PLAIN._replace(init=without_norm))
    assert "'small' has none here" in refusal(bare.init, jax.random.key(0), SPEC)
    coupled = PLAIN._replace(batch_loss=lambda *given: jnp.zeros(()))
    assert "a loss of whole batches" in refusal(mitigated, "group_norms", config, coupled)
    assert "mitigation.drop is 1.0" in refusal(GroupNorms, **SEX, drop=1.0)


def test_group_dro_moves_the_model_by_the_weights_and_the_weights_by_the_losses():
    method, params, frozen = stages("group_dro")[0]
    assert method.loss is no_loss
    mask = jnp.arange(N) < 8
    grad = jax.jit(jax.grad(lambda p: method.batch_loss(p, frozen, BATCH, mask, KEYS)))
    found, own = grad(params), {name: params[name] for name in ("body", "head")}
    losses = jax.jit(jax.vmap(loss_of(PLAIN, FROZEN), (None, 0, 0)))(own, BATCH, KEYS)[:8]
    losses, each = np.asarray(losses), gradients(PLAIN, own, FROZEN)
    groups = np.arange(8) % 3
    means = np.array([losses[groups == g].mean() for g in range(3)])
    np.testing.assert_allclose(found["group_dro"]["log_weights"], -means, rtol=1e-4)
    q = np.asarray(jax.nn.softmax(params["group_dro"]["log_weights"]))
    share = q[groups] / np.array([(groups == g).sum() for g in groups])
    truth = jax.tree.map(lambda g: sum(share[i] * g[i] for i in range(8)), each)
    check_weighted({name: found[name] for name in own}, truth, np.ones(()))


def test_group_dro_keeps_a_batch_loss_and_refuses_stages():
    beside = PLAIN._replace(batch_loss=lambda params, *rest: jnp.sum(params["head"]["bias"] ** 2))
    both, alone = (mitigated("group_dro", CASES["group_dro"], m) for m in (beside, PLAIN))
    params, frozen = both.init(jax.random.key(0), SPEC)
    params = moved(params, 1)
    given = (params, frozen, BATCH, jnp.ones(N, bool), KEYS)
    extra = both.batch_loss(*given) - alone.batch_loss(*given)
    np.testing.assert_allclose(extra, jnp.sum(params["head"]["bias"] ** 2), rtol=1e-4)
    assert "has stages of its own" in refusal(mitigated, "group_dro", CASES["group_dro"], STAGED)
    assert "mitigation.rate is 0.0" in refusal(GroupDRO, **SEX, rate=0.0)


SCHEDULED = PLAIN._replace(
    schedule=lambda frozen, progress: {"shift": frozen["shift"] * progress},
    embed=lambda params, frozen, batch: {"x": (batch["x"] - frozen["shift"]) * norm_of(params)},
)


def norm_of(params):
    return params["body"]["norm"]["scale"][:3]


@pytest.mark.parametrize("name", CASES)
def test_embeddings_and_schedules_are_those_of_the_method_whatever_lies_beside(name):
    method = mitigated(name, CASES[name], SCHEDULED)
    params, frozen = method.init(jax.random.key(0), SPEC)
    for stage in (None, *method.stages):
        if stage is not None:
            params, frozen = stage.begin(params, frozen, None, SPEC)
            method = stage.method
        later = method.schedule(frozen, 0.5)
        assert jax.tree.structure(later) == jax.tree.structure(frozen)
        found = method.embed(params, later, BATCH)["x"]
        np.testing.assert_allclose(found, BATCH["x"] - 0.5, rtol=1e-6)


def mistakes(params, label=None, batch=BATCH):
    """Which examples PLAIN gets wrong, label by label in numpy."""
    scores = PLAIN.score(params, FROZEN, batch)
    wrong = np.zeros(N, bool)
    for j, task in enumerate(PLAIN.tasks):
        if label in (None, task):
            y = np.asarray(batch["label"][:, j])
            asked = np.asarray(batch["label_mask"][:, j]) & ~np.isnan(y)
            wrong |= asked & ((np.asarray(scores[task]) > 0.5) != (y == 1))
    return wrong


@pytest.mark.parametrize("label", ["", "b"])
def test_what_the_first_model_gets_wrong_weighs_more_in_the_second_training(label):
    method = mitigated("jtt", TrainTwice(weight=4.0, label=label), PLAIN)
    ended, frozen = moved(PARAMS, 2), method.init(jax.random.key(0), SPEC)[1]
    _, frozen = method.stages[0].begin(ended, frozen, None, SPEC)
    wrong = mistakes(ended, label or None)
    assert 0 < wrong.sum() < N and not wrong[5]
    found = gradients(method.stages[0].method, moved(PARAMS, 1), frozen)
    check_weighted(found, plain_gradients(1), np.where(wrong, 4.0, 1.0))


@pytest.mark.parametrize("how", ["masked", "nan"])
def test_a_label_that_was_not_asked_is_never_wrong(how):
    method, params, frozen = stages("jtt")[1]
    asked_less = BATCH | (
        {"label_mask": BATCH["label_mask"].at[:, 0].set(False)}
        if how == "masked"
        else {"label": BATCH["label"].at[:, 0].set(jnp.nan)}
    )
    ended = frozen["jtt"]
    wrong, more = mistakes(ended, batch=asked_less), mistakes(ended)
    assert 0 < wrong.sum() < more.sum()
    found, plain = (
        gradients(m, params, f, asked_less) for m, f in ((method, frozen), (PLAIN, FROZEN))
    )
    check_weighted(found, plain, np.where(wrong, 4.0, 1.0))


def test_the_second_training_begins_where_the_first_one_began():
    method = mitigated("jtt", CASES["jtt"], PLAIN)
    first, frozen = method.init(jax.random.key(0), SPEC)
    params, kept = method.stages[0].begin(moved(first, 1), frozen, None, SPEC)
    jax.tree.map(np.testing.assert_array_equal, params, first)
    jax.tree.map(np.testing.assert_array_equal, kept["jtt"], moved(first, 1))
    assert set(kept) == {"jtt", "shift"} and method.stages[0].share == 0.5
    ours = loss_of(method, frozen)(params, row(BATCH, 0), KEYS[0])
    assert ours == loss_of(PLAIN, FROZEN)(params, row(BATCH, 0), KEYS[0])


def test_training_twice_is_refused_without_labels_tasks_or_one_training():
    config = CASES["jtt"]
    assert "has stages of its own" in refusal(mitigated, "jtt", config, STAGED)
    said = refusal(mitigated, "jtt", TrainTwice(label="c"), PLAIN)
    assert "the tasks of 'small' are a, b" in said
    method, params, frozen = stages("jtt")[1]
    unlabelled = {name: value for name, value in row(BATCH, 0).items() if name != "label"}
    bare = lambda p, f, e, k: (jnp.zeros(()), {})
    method = mitigated("jtt", config, PLAIN._replace(loss=bare)).stages[0].method
    assert "trains without labels" in refusal(method.loss, params, frozen, unlabelled, KEYS[0])
    assert "mitigation.weight holds 0" in refusal(TrainTwice, weight=0)
    assert "mitigation.share is 1.0" in refusal(TrainTwice, share=1.0)


def test_the_head_alone_is_trained_further_on_cells_that_weigh_the_same():
    method, params, frozen = stages("balanced_head")[1]
    assert set(params) == {"head"} and set(frozen) == {"balanced_head", "shift"}
    whole = {**frozen["balanced_head"], **params}
    plain = gradients(PLAIN, whole, FROZEN)["head"]
    shares = np.array([[0.6, 0.1], [0.2, 0.1]])
    weights = np.ones(N)
    for i in range(N):
        y = np.asarray(BATCH["label"][i, 0])
        if i % 3 < 2 and BATCH["label_mask"][i, 0] and not np.isnan(y):
            weights[i] = 1 / (4 * shares[i % 3, int(y)])
    assert weights[4] == weights[5] == weights[2] == 1
    check_weighted(gradients(method, params, frozen)["head"], plain, weights)


def test_the_head_begins_as_it_was_and_earlier_stages_keep_their_proportions():
    later = Stage(PLAIN, lambda *given: given[:2], 0.25)
    staged = PLAIN._replace(stages=(later, later._replace(share=0.5)))
    method = mitigated("balanced_head", CASES["balanced_head"], staged)
    assert [stage.share for stage in method.stages] == [0.125, 0.25, 0.5]
    params, _ = method.stages[-1].begin(moved(PARAMS, 1), FROZEN, None, SPEC)
    jax.tree.map(np.testing.assert_array_equal, params, {"head": moved(PARAMS, 1)["head"]})
    assert method.stages[-1].method.stages == ()


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"shares": "counted"}, "never computed from private data"),
        ({"shares": (0.5, 0.5)}, "has 2 numbers with the sum 1; give one for each of the 4 cells"),
        ({"shares": (0.5, 0.5, 0.5, 0.5)}, "with the sum 2"),
        ({"shares": (0.5, 0.5, 0.0, 0.0)}, "mitigation.shares holds 0.0"),
        ({"shares": (0.4999, 0.25, 0.25, 0.0001)}, "mitigation.shares holds 2500"),
        ({"shares": (0.25,) * 4, "share": 0.0}, "mitigation.share is 0.0"),
    ],
)
def test_shares_that_are_no_public_shares_are_refused(fields, sentence):
    assert sentence in refusal(BalancedHead, **SEX | fields)


def test_a_head_is_refused_where_there_is_none():
    method = mitigated("balanced_head", CASES["balanced_head"], PLAIN)
    said = refusal(method.stages[0].begin, {"body": PARAMS["body"]}, FROZEN, None, SPEC)
    assert "asks for head or out" in said and "only body" in said
    bare = PLAIN._replace(loss=lambda *given: (jnp.zeros(()), {}))
    last = mitigated("balanced_head", CASES["balanced_head"], bare).stages[0]
    variables = last.begin(PARAMS, FROZEN, None, SPEC)
    unlabelled = {"group": BATCH["group"][0]}
    said = refusal(last.method.loss, *variables, unlabelled, KEYS[0])
    assert "trains without labels" in said
    other = BalancedHead(**SEX, shares=(0.25,) * 4, label="c")
    assert "the tasks of 'small' are a, b" in refusal(mitigated, "balanced_head", other, PLAIN)
