"""Edges of the fair Methods: adversaries, missing attributes, second moments, stages."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pandas as pd

from jaxfair.fairness import thresholds
from jaxfair.methods import moments
from jaxfair.privacy import ledger as ledgers
from tests.engine.test_stages import open_two
from tests.methods import staged
from tests.methods.mitigated import QUICK
from tests.methods.staged import drawn, example_of, stages_of

KEY = jax.random.key(3)
UNASKED = {"label_mask": np.zeros(1, bool)}


def adversarial(**fields):
    """Afresh, whatever is cached, with its reversal on and no loss but the adversary's."""
    fields = {"sensitive_weight": 0.0} | fields
    (method, params, frozen), *_ = stages_of(staged.adversarial.__wrapped__(**fields))
    return method, params, frozen | {"strength": jnp.float32(0.7)}


def fairread(**fields):
    """The last stage, afresh, at parameters where no block is silent."""
    return stages_of(staged.fairread.__wrapped__(**{"attribute_dropout": 0.0} | fields))[-1]


def value_and_gradient(method, params, frozen, **changes):
    fun = lambda p: method.loss(p, frozen, example_of(**changes), KEY)[0]
    return jax.jit(jax.value_and_grad(fun), compiler_options=QUICK)(params)


def stepped(found, grads, part, step=0.05):
    """The loss after one part of the parameters went a little down its own gradient."""
    method, params, frozen = found
    moved = jax.tree.map(lambda p, g: p - step * g, params[part], grads[part])
    return float(value_and_gradient(method, params | {part: moved}, frozen, **UNASKED)[0])


def check_that_it_is_evaded(found, before, reader):
    """Nobody asked for the label, so the loss is the adversary's alone."""
    value, grads = value_and_gradient(*found, **UNASKED)
    assert stepped(found, grads, reader) < float(value) - 1e-5
    assert stepped(found, grads, before) > float(value) + 1e-5


def test_edge_280_what_the_adversary_reads_is_led_to_where_it_reads_worse():
    check_that_it_is_evaded(adversarial(), "disease", "adversary")


def test_edge_281_what_is_re_fused_is_led_to_where_the_adversary_reads_worse():
    check_that_it_is_evaded(fairread(alpha=0.7), "trunk", "fusion")


def test_edge_282_a_reversal_begins_with_no_strength_and_ends_with_all():
    method, _, frozen = adversarial(reversal=3.0)
    at = [float(method.schedule(frozen, jnp.float32(p))["strength"]) for p in (0, 0.1, 1)]
    np.testing.assert_allclose(at, [0, 3 * np.tanh(0.5), 3 * np.tanh(5)], rtol=1e-5)


def test_edge_283_the_row_loss_leaves_the_attribute_encoder_as_it_is():
    z, x = np.random.default_rng(0).normal(size=(2, 12, 5)).astype(np.float32)
    classes = jnp.eye(2)[jnp.arange(12) % 2]
    grads = jax.grad(moments.row_loss, argnums=(0, 1))(jnp.asarray(z), jnp.asarray(x), classes)
    assert np.any(grads[0]) and not np.any(grads[1])


def test_edge_284_the_two_embeddings_of_an_example_are_held_orthogonal_to_each_other():
    losses = [
        float(value_and_gradient(*adversarial(orthogonality="example", orthogonality_weight=w))[0])
        for w in (0.0, 2.0)
    ]
    method, params, frozen = adversarial(orthogonality="example")
    rows = {name: value[None] for name, value in example_of().items()}
    one, other = (method.embed(params, frozen, rows)[name][0] for name in ("disease", "sensitive"))
    cosine = float(one @ other / jnp.linalg.norm(one) / jnp.linalg.norm(other))
    assert abs(losses[1] - losses[0] - 2 * cosine**2) < 1e-4 and cosine**2 < 0.9


def test_edge_285_an_embedding_is_held_out_of_the_subspace_of_its_own_class():
    method, params, frozen = stages_of(staged.fcro.__wrapped__(column_weight=50.0))[-1]
    row = int(np.flatnonzero(drawn()["label"][:, 0])[-1])
    rows = {name: value[None] for name, value in example_of(row).items()}
    z = method.embed(params, frozen, rows)["disease"][0]
    others = jnp.zeros((2, 8, 8)).at[0, :, 0].set(z)  # all of it, in the class of the healthy
    own = jnp.zeros((2, 8, 8)).at[1, :, 0].set(z)
    found = []
    for basis in (0 * own, others, own):
        with_basis = frozen | {"subspace": {"basis": basis}}
        found.append(float(method.loss(params, with_basis, example_of(row), KEY)[0]))
    np.testing.assert_allclose(np.subtract(found[1:], found[0]), [0, 50], atol=1e-2)


def test_edge_286_a_missing_attribute_teaches_nobody():
    for method, params, frozen in (
        adversarial(sensitive_weight=1.0),
        stages_of(staged.fcro.__wrapped__())[0],
    ):
        unknown = UNASKED | {"group": jnp.array([-1, -1])}
        value, grads = value_and_gradient(method, params, frozen, **unknown)
        assert value == 0 and not any(np.any(leaf) for leaf in jax.tree.leaves(grads))


def test_edge_287_one_example_adds_a_second_moment_of_norm_one():
    """Which is what its noise was chosen for: at C = 1 it is sigma times one unit's part."""
    found = stages_of(staged.fcro.__wrapped__())[1]
    (grad,) = jax.tree.leaves(value_and_gradient(*found)[1])
    assert abs(float(jnp.linalg.norm(grad)) - 1) < 1e-5


def test_edge_288_what_is_symmetric_is_no_noise():
    rng = np.random.default_rng(0)
    noise = rng.normal(size=(2, 32, 32)).astype(np.float32)
    signal = 90 * np.einsum("d,e->de", np.eye(32)[0], np.eye(32)[0]).astype(np.float32)
    found = moments.subspaces(jnp.asarray(noise + signal), directions=1, energy=0.9)
    assert abs(float(found["edge"]) / (2 * np.sqrt(16)) - 1) < 0.1
    assert "2 of the 2 directions" in moments.noise_words(found)


def test_edge_289_every_stage_is_paid_for_in_one_ledger(tmp_path):
    trainer = open_two(tmp_path / "run")
    steps = [released.step for released in trainer.steps()]
    entries, _ = ledgers.read_entries(tmp_path / "run" / "ledger.jsonl")
    paid = {entry.stage: 0 for entry in entries}
    for entry in entries:
        paid[entry.stage] += entry.steps
    assert steps[-1] == 8 and paid == {"train": 4, "train 2": 4}
    trainer.close()


def test_edge_290_what_is_re_fused_is_led_away_alpha_times_as_far():
    def pull(alpha):
        found = value_and_gradient(*fairread(alpha=alpha), **UNASKED)[1]["trunk"]
        return np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(found)])

    np.testing.assert_allclose(pull(0.6), 3 * pull(0.2), rtol=1e-3, atol=1e-6)
    assert np.abs(pull(0.6)).max() > 1e-4


def test_edge_291_a_prediction_without_attributes_reads_none():
    rows = {name: jnp.asarray(values[:8]) for name, values in drawn().items()}
    for at_test, same in (("dropped", True), ("given", False)):
        method, params, frozen = fairread(at_test=at_test)
        one = method.score(params, frozen, rows)["a"]
        other = method.score(params, frozen, rows | {"group": rows["group"][::-1]})["a"]
        assert np.array_equal(one, other) == same


def test_edge_292_test_rows_move_no_threshold():
    rng = np.random.default_rng(0)
    rows = pd.DataFrame({
        "image_id": [f"i{i}" for i in range(400)], "patient_id": [f"p{i}" for i in range(400)],
        "split": np.repeat(["validation", "test"], 200), "task": "a",
        "y_true": rng.integers(0, 2, 400), "y_score": rng.random(400),
    })  # fmt: skip
    turned = rows.assign(y_score=np.where(rows["split"] == "test", 0.9, rows["y_score"]))
    assert thresholds.fit_thresholds(rows) == thresholds.fit_thresholds(turned)


def test_edge_293_every_stage_of_fairread_hears_one_example_at_a_time():
    count, batch = 4, {name: jnp.asarray(v[4:8]) for name, v in drawn().items()}
    keys = jax.random.split(KEY, count)
    for method, params, frozen in stages_of(staged.fairread.__wrapped__()):
        loss = lambda p, e, k, m=method, f=frozen: m.loss(p, f, e, k)[0]
        grad = jax.jit(jax.vmap(jax.grad(loss), (None, 0, 0)), compiler_options=QUICK)
        together = grad(params, batch, keys)
        copies = grad(params, jax.tree.map(lambda a: jnp.stack([a[0]] * count), batch), keys)
        for one, two in zip(jax.tree.leaves(together), jax.tree.leaves(copies)):
            np.testing.assert_array_equal(one[0], two[0])


def test_edge_294_a_later_stage_stands_on_what_the_one_before_ended_with(tmp_path):
    trainer = open_two(tmp_path / "run")
    with trainer:
        ends = {released.step: released.params for released in trainer.steps()}
    np.testing.assert_array_equal(trainer.assembly.frozen["encoder"], ends[4]["encoder"])


def test_edge_295_an_attribute_that_is_always_dropped_trains_no_block():
    found = fairread(alpha=0.0, attribute_dropout=1.0, at_test="dropped")
    losses = [value_and_gradient(*found, group=jnp.array(g))[0] for g in ([0, 0], [1, 2])]
    assert losses[0] == losses[1]


def test_edge_296_second_moments_are_added_up_as_they_come():
    optimizer = staged.fcro.__wrapped__().stages[0].optimizer
    moment = {"moment": jnp.ones(3)}
    updates, _ = optimizer.update(moment, optimizer.init(moment), moment)
    np.testing.assert_array_equal(optax.apply_updates(moment, updates)["moment"], 0)


def test_edge_297_an_adversary_for_equalized_odds_is_told_the_label():
    for changes, heard in (({}, True), (UNASKED, False)):
        kernel = value_and_gradient(*adversarial(), **changes)[1]["adversary"]["inner"]["kernel"]
        assert np.any(kernel[-1]) == heard and np.any(kernel[:-1])
