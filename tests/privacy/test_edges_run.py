"""Sharp edges of a real `train.run`: what the compiled step is given, beside a slow truth."""

import hashlib
import json
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxfair import start, train
from jaxfair.config import load_config, method_from_settings, settings_from_config
from jaxfair.errors import InputError
from jaxfair.privacy import noise, sampling
from jaxfair.privacy.ledger import read_entries
from jaxfair.privacy.sums import rounding
from tests.engine import recorded
from tests.engine.recorded import BATCH, PUBLIC, STEPS, real_run
from tests.engine.test_scan import cached, scanned
from tests.privacy.test_precision import behind, faults_of
from tests.privacy.test_rounding import bench_of, examples
from tests.privacy.toy import Bench, flat64, method_of, plan_of
from tests.small import small_config
from tests.test_phantoms import FILMS, FOLDER


def drawn(run, number):
    """The ids that the declared rate draws for a step."""
    ids = np.array(list(run.patients), np.uint32)
    rate = BATCH / PUBLIC
    return ids[sampling.poisson_draw(run.secret, number, num_units=len(ids), sampling_prob=rate)]


def test_edge_90_the_rate_of_the_draws_is_that_of_the_declared_size():
    run = real_run()
    assert len(run.steps) == STEPS and abs(len(run.patients) - PUBLIC) > PUBLIC / 5
    for number, calls in enumerate(run.steps):
        ids = np.concatenate([call.ids for call in calls])
        np.testing.assert_array_equal(np.sort(ids), np.sort(drawn(run, number)))


def test_edge_91_who_is_drawn_is_a_patient_where_patients_are_claimed():
    run = real_run()
    claim = json.loads(run.trainer.folder.privacy.read_text())
    assert claim["unit"] == "patient"
    assert any(len(rows) > 1 for rows in run.patients.values())
    assert sorted(run.trainer._population.ids) == sorted(run.patients)


def coupled(settings):
    """The config's Method with a loss that reads the other devices'."""
    method = method_from_settings(settings)

    def loss(*given):
        value, aux = method.loss(*given)
        return jax.lax.pmean(value, "data"), aux

    return method._replace(loss=loss)


def test_edge_92_a_real_run_looks_whether_its_examples_are_kept_apart(tmp_path):
    read = mock.Mock(side_effect=AssertionError("data were opened"))
    with (
        recorded.stopped_before_scoring(),
        mock.patch.object(start, "method_from_settings", coupled),
        mock.patch.object(train, "open_data", read),
        pytest.raises(Exception) as caught,
    ):
        train.run(recorded.config_of(), tmp_path, num_devices=1, progress=False)
    assert isinstance(caught.value, InputError) and "mesh axis" in str(caught.value)


def test_edge_93_the_keys_of_twenty_thousand_steps_are_all_distinct():
    trainer = real_run().trainer
    feed = trainer.assembly.feed(real_run().secret, trainer._population, {})
    count, leaves = 20_000, trainer.assembly.num_leaves
    keys = [feed.randomness(step) for step in range(count)]
    words = np.stack([key.noise for key in keys]).reshape(-1, 2)
    assert len(np.unique(words, axis=0)) == count * leaves * noise.DRAWS_PER_NORMAL
    assert len(np.unique(np.stack([key.examples for key in keys]), axis=0)) == count
    draws = [feed.draw(step).tobytes() for step in range(300)]
    assert len(set(draws)) > 250


def prepared(run):
    """name -> (rows, ...) of the training images, by a Method made anew from the config."""
    method = method_from_settings(run.settings)
    _, frozen = method.init(jax.random.key(run.settings.seed), run.settings.data.spec)
    raw = {name: read(np.arange(len(run.dataset))) for name, read in run.dataset.fields.items()}
    return jax.device_get(jax.jit(jax.vmap(method.prepare, (None, 0)))(frozen, raw))


def test_edge_94_a_step_is_given_what_prepare_makes_of_the_patients_own_image():
    run = real_run()
    truth, used = prepared(run), set()
    for call in run.calls:
        for place, unit in enumerate(call.ids):
            own = run.patients[int(unit)]
            same = [
                all(
                    np.allclose(call.rows(name)[place], values[row], rtol=1e-5, atol=1e-6)
                    for name, values in truth.items()
                )
                for row in own
            ]
            assert sum(same) == 1
            used.add(own[same.index(True)])
    assert len(used) > 3


def test_edge_95_every_leaf_gets_its_noise_also_one_without_an_axis():
    shapes = {"none": (), "one": (1,), "some": (5,), "more": (2, 3)}
    params = lambda: {name: jnp.zeros(shape) for name, shape in shapes.items()}
    loss = lambda p, frozen, example, key: (0.0 * sum(map(jnp.sum, p.values())), {})
    bench, count = Bench(method_of(loss, params), plan_of(3.0, batch=1)), 600
    feed, state, seen = bench.feed(examples(np.ones(2))), bench.start(), []
    for number in range(count):
        state, _ = bench.train(feed, first=number, state=state)
        seen.append(jax.device_get(state.opt_state))
    for name in shapes:
        values = np.stack([one[name].reshape(-1) for one in seen])
        variance = values.var(axis=0) / bench.plan.noise_stddev() ** 2
        assert np.all(np.abs(variance - 1) < 5 * (2 / count) ** 0.5), name


def real_configs(home):
    """The autoencoder and a classifier, tiny."""
    classifier = load_config(f"{FOLDER / 'table_resnet.py'}:phantom")
    with classifier.unlocked():
        classifier.update_from_flattened_dict(FILMS | recorded.SIZES)
    sizes = {name.replace(".", "__"): value for name, value in recorded.SIZES.items()}
    return {"fae": small_config(home, **sizes), "classifier": classifier}


def test_edge_96_the_products_of_a_real_step_are_of_full_precision(tmp_path):
    for name, config in real_configs(tmp_path).items():
        made = start.shapes_of(settings_from_config(config), train.make_mesh(1))
        assert made.plan.clipping == "fast"
        traced = made.step.update.trace(*made.shapes())
        products = list(behind(traced.jaxpr.jaxpr, set()))
        assert len(products) > 5, name
        assert not faults_of(products), name


def test_edge_97_nobody_who_is_held_out_is_drawn():
    run = real_run()
    held_out = run.dataset.manifest
    held_out = held_out[held_out["split"] != "train"]["patient_id"]
    others = {recorded.hashed(str(name)) for name in held_out}
    assert others and not others & {int(unit) for unit in run.trainer._population.ids}
    assert {int(unit) for call in run.calls for unit in call.ids} <= set(run.patients)


def test_edge_98_a_run_begins_with_what_its_method_draws_and_no_patient_shapes():
    run = real_run()
    method = method_from_settings(run.settings)
    params, frozen = method.init(jax.random.key(run.settings.seed), run.settings.data.spec)
    jax.tree.map(np.testing.assert_array_equal, run.calls[0].params, jax.device_get(params))
    for call in run.calls:
        jax.tree.map(np.testing.assert_array_equal, call.frozen, jax.device_get(frozen))


def test_edge_99_each_draw_is_paid_for_at_the_rate_and_noise_that_it_had():
    run = real_run()
    entries, _ = read_entries(run.trainer.folder.ledger)
    assert sum(entry.steps for entry in entries) == len(run.steps)
    plan = run.trainer.plan
    for entry in entries:
        assert entry.event.sampling_prob == BATCH / PUBLIC
        assert entry.event.noise_multiplier == plan.noise_multiplier
    assert plan.noise_stddev() == plan.noise_multiplier * run.settings.dp.l2_clip_norm


def slow_norms(run):
    """The norm of each step's noisy mean: example by example, in float64."""
    method, plan = method_from_settings(run.settings), run.trainer.plan
    clip = rounding.bound(run.settings.dp.l2_clip_norm, plan.max_draw) * (1 - 2.0**-12)
    key = jax.random.key(0)
    grad = jax.jit(jax.grad(lambda p, f, e: method.loss(p, f, e, key)[0]))
    clipped = 0
    for number, calls in enumerate(run.steps):
        params, frozen = calls[0].params, calls[0].frozen
        total = np.zeros(len(flat64(params)))
        for call in calls:
            for place in np.flatnonzero(~call.chunk.is_padding):
                example = {name: a[place] for name, a in call.chunk.examples.items()}
                g = flat64(grad(params, frozen, example))
                clipped += np.linalg.norm(g) > clip
                total += g * min(1.0, clip / np.linalg.norm(g))
        words = noise.noise_key_data(run.secret, number, len(jax.tree.leaves(params)))
        added = noise.gaussian_like(params, jnp.asarray(words), plan.noise_stddev())
        yield np.linalg.norm(total + flat64(added)) / BATCH
    assert clipped


def assert_slow_truth(run):
    released = [calls[-1].released["noisy_mean_norm"] for calls in run.steps]
    np.testing.assert_allclose(released, list(slow_norms(run)), rtol=1e-4)


def test_edge_100_a_real_step_gives_the_noisy_mean_of_the_slow_truth():
    assert_slow_truth(real_run())


def test_edge_101_a_seed_in_the_config_does_not_fix_the_secret():
    first, second = real_run(), real_run(again=1)
    assert first.secret.source == second.secret.source == "os"
    assert first.secret.material != second.secret.material


def test_edge_102_two_devices_add_up_to_the_slow_truth_of_a_real_run():
    run = real_run(devices=2)
    assert run.trainer.assembly.mesh.size == 2
    assert_slow_truth(run)


def test_edge_103_what_is_random_in_an_example_shares_no_key_with_the_noise():
    run = real_run()
    of_noise = {pair.tobytes() for c in run.calls for pair in c.randomness.noise.reshape(-1, 2)}
    of_examples = {np.asarray(call.randomness.examples).tobytes() for call in run.calls}
    assert len(of_examples) == STEPS and not of_noise & of_examples


def test_edge_104_a_label_is_that_of_the_table():
    run = real_run()
    columns = [f"label_{task}" for task in run.dataset.tasks]
    table = run.dataset.manifest[columns].to_numpy(np.float32)
    for call in run.calls:
        for label, unit in zip(call.rows("label"), call.ids, strict=True):
            own = table[run.patients[int(unit)]]
            assert (np.nan_to_num(own) == label).all(axis=1).any()


def test_edge_105_a_sum_over_chunks_on_the_device_loses_nothing():
    """The scanned delivery carries both numbers of the total from chunk to chunk."""
    bench = bench_of(180, microbatch=1, chunk=1)
    scales = np.full(180, 2.0**-26, np.float32)
    scales[:3] = 0.25  # beside which each of the others is rounded away
    feed = cached(bench.feed(examples(scales)))
    _, state, _ = scanned(bench, feed, length=64, stretches=((0, 1),))
    total = flat64(state.opt_state)[0] * bench.plan.expected_batch_size
    assert abs(total - scales.astype(np.float64).sum()) <= 2.0**-23


def test_the_ids_of_the_truth_are_those_of_the_units():
    assert hashlib.sha256(b"a").digest()[:4] == np.uint32(recorded.hashed("a")).tobytes()
