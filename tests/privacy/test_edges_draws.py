"""Sharp edges of the draw: who takes part, how often, and what a step makes of them."""

import dataclasses
import pathlib

import jax
import numpy as np
import pandas as pd
import pytest
from scipy import stats

from jaxfair.data import manifest
from jaxfair.data.dataset import Dataset
from jaxfair.engine import population
from jaxfair.errors import InputError
from jaxfair.privacy import plan as plans
from jaxfair.privacy.plan import PrivacyConfig
from tests.privacy.toy import Bench, C, examples_of, flat64, looped, plan_of, with_prob

UNITS, PROB, STEPS = 20, 0.3, 1500


def inclusion(source, steps=STEPS):
    """(steps, units) bool: who is in which draw of a feed."""
    table = np.zeros((steps, len(source.population.rows)), bool)
    for step in range(steps):
        table[step, source.draw(step)] = True
    return table


def public_record(count, folder):
    """Everything about a short run on `count` patients that an outsider may see."""
    people = population.make_population(
        [f"p{i}" for i in range(count)], [np.array([i]) for i in range(count)]
    )
    plan = plans.make_plan(
        PrivacyConfig(epsilon=0.4, clipping="vmap"), steps=4, expected_batch_size=5, public_size=50
    )
    bench, ledger = Bench(plan=plan), plan.open_ledger(folder / f"{count}.jsonl")
    source = bench.feed(examples_of(np.ones(count)))._replace(population=people)
    plan.charge(ledger, stage="train", population="p", draws="tag", first_step=0, steps=4)
    chunks = [jax.tree.map(np.shape, c) for c, _, _ in source.chunks(0, 4)]
    state, seen = bench.train(source, steps=4)
    shapes = {str(chunk) for chunk in chunks}
    return (plan, ledger.entries, plan.statement(ledger, int(state.step)), shapes, len(seen))


def test_edge_02_one_patient_more_changes_nothing_public(tmp_path):
    assert public_record(40, tmp_path) == public_record(39, tmp_path)


def test_edge_11_draws_are_poisson_in_size_and_in_pairs():
    table = inclusion(Bench(plan=plan_of(prob=PROB)).feed(examples_of(np.ones(UNITS))))
    sizes = np.bincount(table.sum(axis=1), minlength=UNITS + 1)
    expected = STEPS * stats.binom.pmf(np.arange(UNITS + 1), UNITS, PROB)
    common = expected > 5
    observed = np.append(sizes[common], sizes[~common].sum())
    wanted = np.append(expected[common], expected[~common].sum())
    assert stats.chisquare(observed, wanted * observed.sum() / wanted.sum()).pvalue > 1e-5
    together = (table.T.astype(int) @ table)[np.triu_indices(UNITS, 1)]
    z = (together - STEPS * PROB**2) / np.sqrt(STEPS * PROB**2 * (1 - PROB**2))
    assert np.abs(z).max() < 5


def test_edge_12_every_patient_is_drawn_at_the_accounted_rate():
    rows = np.split(np.arange(60), [1, 3, 6, 10, 15, 25, 40])
    bench = Bench(plan=plan_of(1.0, prob=PROB))
    source = bench.feed(examples_of(np.ones(60)), rows=rows)
    assert bench.plan.event(1).sampling_prob == source.plan.sampling_prob
    for count in inclusion(source).sum(axis=0):
        assert stats.binomtest(int(count), STEPS, PROB).pvalue > 1e-6


def dataset(patients):
    """A dataset of one training image per entry of `patients`."""
    table = pd.DataFrame({
        "image_id": [f"i{n}" for n in range(len(patients))],
        "patient_id": patients,
        "split": "train", "sex": "F", "age": 40.0, "age_group": "31-45", "view": "PA",
        "label_anomaly": 0.0, "also_test": False,
    })  # fmt: skip
    pixels = np.zeros((len(patients), 8, 8, 1), np.uint8)
    return Dataset(
        table, pixels, "phantom", "made up", "patient", "independent", "", {}, pathlib.Path(), ()
    )


def test_edge_13_a_person_listed_twice_is_one_unit():
    upsampled = dataset(["a", "b", "c", "a", "a", "b"])
    ids, rows = upsampled.units("patient")
    assert ids == ["a", "b", "c"]
    source = Bench().feed(examples_of(np.ones(6)), rows=rows, names=ids)
    (chunk, _, _), *_ = source.chunks(0, 1)
    drawn = np.asarray(chunk.unit_id)[~np.asarray(chunk.is_padding)]
    assert len(drawn) == len(set(drawn)) == 3
    copied = pd.concat([upsampled.manifest, upsampled.manifest[:1]])
    with pytest.raises(InputError, match="more than once"):
        manifest.check(copied)


def test_edge_15_a_step_is_one_draw_however_many_chunks_it_has(tmp_path):
    bench = Bench(plan=plan_of(4.0), microbatch=4, chunk=4)
    source = bench.feed(examples_of(np.ones(10)))
    state, seen = bench.train(source, steps=4)
    ledger = bench.plan.open_ledger(tmp_path / "ledger.jsonl")
    bench.plan.charge(ledger, stage="t", population="p", draws="d", first_step=0, steps=4)
    assert int(state.step) == len(seen) == sum(e.steps for e in ledger.entries) == 4


def test_edge_22_an_empty_draw_is_a_step_on_every_device():
    bench = Bench(plan=plan_of(1.0, prob=0.03), devices=8, microbatch=1)
    source = bench.feed(examples_of(np.ones(20)))
    sizes = [len(source.draw(n)) for n in range(20)]
    state, seen = bench.train(source, steps=20)
    assert sizes.count(0) > 3 and max(sizes) >= 1
    assert int(state.step) == 20
    assert all(released["noisy_mean_norm"] > 0 for released in seen)


def test_edge_24_removing_a_patient_with_many_images_moves_the_sum_by_at_most_c():
    rows = [np.array([0]), np.arange(1, 6), np.array([6, 7])]
    bench, examples = Bench(chunk=16), examples_of(np.full(8, 40.0))
    names = ["a", "b", "c"]
    for gone in range(3):
        others = [i for i in range(3) if i != gone]
        full = bench.noisy_sum(examples, rows=rows, names=names)
        rest = bench.noisy_sum(
            examples, rows=[rows[i] for i in others], names=[names[i] for i in others]
        )
        assert np.linalg.norm(full - rest) <= C * (1 + 1e-6)


def test_edge_30_odd_records_and_odd_draws_change_no_shape_and_raise_nothing():
    scales = np.ones(40, np.float32)
    scales[:4] = [np.nan, np.inf, 3e38, 0.0]
    bench = Bench(plan=plan_of(1.0, prob=0.3))
    source = bench.feed(examples_of(scales))
    assert len({len(source.draw(n)) for n in range(8)}) > 3
    state, _ = bench.train(source, steps=8)
    state, _ = bench.train(with_prob(source, 1.0), first=8, state=state)
    state, _ = bench.train(with_prob(source, 0.0), first=9, state=state)
    assert bench.step.update._cache_size() == 1
    assert np.isfinite(flat64(state.opt_state)).all()


def test_edge_31_a_draw_above_the_buffer_is_not_truncated():
    bench, examples = Bench(chunk=8), examples_of(np.linspace(0.1, 9, 29))
    np.testing.assert_allclose(bench.noisy_sum(examples), looped(bench, examples), atol=1e-4)


def test_edge_34_nothing_of_a_draw_is_left_for_the_next_one():
    bench = Bench(plan=plan_of(prob=0.5))
    source = bench.feed(examples_of(np.linspace(0.1, 9, 20)))
    state, _ = bench.train(source, steps=2)
    fresh, _ = bench.train(source, first=1, steps=1)
    assert not flat64(state.clipped_sum).any()
    np.testing.assert_array_equal(flat64(state.opt_state), flat64(fresh.opt_state))


def test_the_public_record_would_show_a_changed_plan(tmp_path):
    plan, *_ = public_record(20, tmp_path)
    assert dataclasses.replace(plan, delta=1e-6) != plan
