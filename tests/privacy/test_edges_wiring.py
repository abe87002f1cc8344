"""Sharp edges of the assembly: every part is right, and they are joined wrongly."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxfair.engine import population
from jaxfair.errors import InputError
from jaxfair.methods.base import Stage
from jaxfair.privacy import ledger as ledgers
from tests.engine.test_assembly import HEAD, X, begin_head, head_loss, left, opened, promise, two
from tests.privacy.toy import Bench, C, examples_of, method_of, plan_of


def test_edge_51_nothing_is_read_for_a_step_that_is_not_paid_for(tmp_path):
    paid = []

    def read(rows):
        entries, _ = ledgers.read_entries(tmp_path / "run" / "ledger.jsonl")
        paid.append(sum(entry.steps for entry in entries))
        return X[rows]

    fields = {"x": read}
    with pytest.raises(KeyboardInterrupt), opened(tmp_path / "run", fields=fields) as trainer:
        next(trainer.steps())
        raise KeyboardInterrupt
    assert paid and min(paid) >= trainer.step == 2


def test_edge_52_each_step_chooses_the_images_of_a_patient_anew():
    rows = [np.arange(10 * i, 10 * i + 10) for i in range(4)]
    feed = Bench().feed(examples_of(np.ones(40)), rows=rows)
    assert len({tuple(asked.rows[:4]) for asked in feed.chunk_rows(0, 6)}) == 6


def test_edge_53_units_are_drawn_at_the_rates_of_their_own_groups():
    """Who has a rate of one is always drawn, who has next to none is never."""
    groups = np.array([0, 1, 1, 0, 1])
    rows = [np.array([i]) for i in range(5)]
    people = population.make_population(list("abcde"), rows, groups=groups)
    plan = plan_of(1.0, prob=0.5, group_probs=(1.0, 1e-12))
    feed = Bench(plan=plan).feed(examples_of(np.ones(5)))._replace(population=people)
    assert all(feed.draw(step).tolist() == [0, 3] for step in range(20))


def test_edge_54_a_later_stage_may_not_change_before_a_resume(tmp_path):
    """The same noise on other gradients would cancel."""

    def other(params, frozen, example, key):
        return 2 * head_loss(params, frozen, example, key)[0], {}

    left(tmp_path / "run", two())
    with pytest.raises(InputError, match="changed since it began: loss of stage 2"):
        opened(tmp_path / "run", two(HEAD._replace(loss=other)))


def test_edge_55_the_microbatch_of_the_folder_is_the_one_that_trains(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "microbatch.json").write_text('{"microbatch": 5}')
    with opened(tmp_path / "run", microbatch=0) as trainer:
        assert (trainer.assembly.microbatch, trainer.assembly.chunk_size) == (5, 5)


def test_edge_56_a_folder_of_another_clip_norm_is_refused(tmp_path):
    left(tmp_path / "run")
    with pytest.raises(InputError, match=r"dp\.l2_clip_norm was 1\.0, now 2\.0"):
        opened(tmp_path / "run", plan=promise(l2_clip_norm=2.0))


def test_edge_57_the_secret_is_forgotten_when_a_training_ends(tmp_path):
    with opened(tmp_path / "run", insecure_seed=None) as trainer:
        assert trainer.folder.secret.exists()
    assert not trainer.folder.secret.exists() and not trainer.folder.fingerprint.exists()


def test_edge_58_the_examples_of_a_later_stage_are_kept_apart(tmp_path):
    def over_devices(params, frozen, example, key):
        return jax.lax.pmean(head_loss(params, frozen, example, key)[0], "data"), {}

    method = two()._replace(stages=(Stage(HEAD._replace(loss=over_devices), begin_head, 0.5),))
    with pytest.raises(Exception) as caught:
        opened(tmp_path / "run", method)
    assert isinstance(caught.value, InputError)
    assert "'head' talks to other examples" in str(caught.value)


def test_edge_59_each_step_has_keys_of_its_own():
    feed = Bench(plan=plan_of(1.0)).feed(examples_of(np.ones(4)))
    keyed = [[words for words in feed.randomness(step) if words is not None] for step in range(5)]
    assert len(keyed[0]) >= 2  # the answers of a rule have keys where there is a rule
    for keys in zip(*keyed):
        assert len({np.asarray(words).tobytes() for words in keys}) == 5


def test_edge_60_padding_is_nobody_though_its_loss_has_a_gradient():
    def loss(params, frozen, example, key):
        return jnp.sum(params["v"]) + 0 * example["scale"], {}

    bench = Bench(method_of(loss))
    found = [np.linalg.norm(bench.noisy_sum(examples_of(np.ones(n)))) for n in (1, 3)]
    np.testing.assert_allclose(found, [C, 3 * C], rtol=1e-3)


def test_edge_61_an_example_carries_the_id_of_its_own_unit():
    feed = Bench(plan=plan_of(prob=0.3)).feed(examples_of(np.ones(20)))
    chunks = list(feed.chunk_rows(0, 8))
    for asked in chunks:
        real = asked.rows >= 0
        np.testing.assert_array_equal(asked.ids[real], feed.population.ids[asked.rows[real]])
    assert any((asked.rows > 10).any() for asked in chunks)
