"""Sharp edges of the noise: its size, its keys, and what must never see a sum without it."""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy import stats

from jaxfair.errors import InputError
from jaxfair.privacy import noise, sampling
from jaxfair.privacy import secret as secrets_room
from jaxfair.privacy.plan import PrivacyConfig
from jaxfair.run import fingerprint
from jaxfair.run.folder import RunFolder
from tests.privacy.toy import SECRET, Bench, C, dense_loss, examples_of, flat64, method_of, plan_of

LARGE = 300_000


def large_params():
    return {"w": jnp.zeros((36, 3)), "v": jnp.zeros(3), "idle": jnp.zeros(LARGE)}


def test_edge_16_the_noise_on_the_sum_is_sigma_times_c():
    plan = plan_of(1.5, batch=8)
    bench = Bench(method_of(dense_loss, large_params), plan)
    drawn = bench.noisy_sum(examples_of([0.0, 0.0]))
    count = len(drawn)
    low, high = stats.chi2.ppf([1e-6, 1 - 1e-6], count)
    assert low <= np.sum((drawn / (1.5 * C)) ** 2) <= high
    assert abs(drawn.mean()) < 5 * 1.5 * C / count**0.5


def test_edge_17_no_two_leaves_steps_or_draws_share_a_key():
    words = [noise.noise_key_data(SECRET, step, 6).reshape(-1, 2) for step in range(40)]
    words += [np.frombuffer(SECRET.derive("example", s, length=8), np.uint32) for s in range(40)]
    keys = {tuple(pair) for block in words for pair in np.atleast_2d(block)}
    assert len(keys) == 40 * 6 * noise.DRAWS_PER_NORMAL + 40
    like = {name: np.zeros(20_000) for name in "abc"}
    drawn = [noise.gaussian_like(like, jnp.asarray(noise.noise_key_data(SECRET, s, 3)), 1.0)
             for s in range(3)]  # fmt: skip
    table = np.stack([np.asarray(leaf) for tree in drawn for leaf in jax.tree.leaves(tree)])
    assert len(np.unique(table)) > 0.99 * table.size
    off_diagonal = np.corrcoef(table) - np.eye(len(table))
    assert np.abs(off_diagonal).max() < 5 / 20_000**0.5


def test_edge_18_keys_come_from_the_operating_system_and_have_no_default():
    for function in (noise.gaussian_like, noise.noise_key_data, sampling.poisson_draw):
        parameters = inspect.signature(function).parameters.values()
        assert all(p.default is inspect.Parameter.empty for p in parameters)
    made = []
    for _ in range(2):
        np.random.seed(0)  # noqa: NPY002
        made.append(secrets_room.os_secret())
    assert made[0].material != made[1].material
    assert all(8 * len(s.material) == 256 and s.source == "os" for s in made)
    assert PrivacyConfig().insecure_seed is None


def test_edge_20_other_data_never_meets_the_same_noise(tmp_path):
    """The difference of two runs with one noise would be free of noise."""
    folder, parts = RunFolder(tmp_path / "run"), {"data": "digest 1", "config": "c"}
    plan = plan_of(1.0)
    first = plan.open_secret(folder.secret, seed=0, insecure_seed=None, may_create=True)
    fingerprint.check(folder.fingerprint, first, parts, may_create=True)
    fingerprint.check(folder.fingerprint, first, parts, may_create=False)
    with pytest.raises(InputError, match="changed since it began: data"):
        other = parts | {"data": "digest 2"}
        fingerprint.check(folder.fingerprint, first, other, may_create=False)
    elsewhere = plan.open_secret(tmp_path / "b", seed=0, insecure_seed=None, may_create=True)
    words = [noise.noise_key_data(s, 0, 2) for s in (first, elsewhere)]
    assert not np.isin(words[0], words[1]).any()


def test_edge_21_the_noise_does_not_depend_on_how_many_devices_there_are():
    examples = examples_of(np.zeros(8))
    sums = [
        Bench(plan=plan_of(1.0), devices=devices, microbatch=1).noisy_sum(examples)
        for devices in (1, 8)
    ]
    np.testing.assert_array_equal(*sums)
    count = len(sums[0])
    assert stats.chi2.sf(np.sum((sums[1] / C) ** 2), count) > 1e-6
    assert stats.chi2.cdf(np.sum((sums[1] / C) ** 2), count) > 1e-6


def test_edge_33_everything_kept_is_a_function_of_the_noisy_sum():
    """With the noise chosen so that the noisy sum is zero, the data leaves no trace."""
    cancelling = lambda tree, words, stddev: jax.tree.map(jnp.negative, tree)
    kept = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(noise, "gaussian_like", cancelling)
        bench = Bench(plan=plan_of(1.0), optimizer=optax.adam(0.1))
        for scales in ([1.0, 2.0, 3.0], [30.0]):
            state, seen = bench.train(bench.feed(examples_of(scales)), steps=2)
            kept.append((flat64(state), flat64(seen)))
    np.testing.assert_array_equal(kept[0][0], kept[1][0])
    np.testing.assert_array_equal(kept[0][1], kept[1][1])


def test_edge_38_a_noise_value_is_made_of_two_keys_and_lies_on_a_fine_grid():
    words = noise.noise_key_data(SECRET, 0, 1)
    assert words.dtype == np.uint32 and words[0].size * 32 >= 128
    drawn = noise.gaussian_like({"a": np.zeros(LARGE)}, jnp.asarray(words), 1.0)["a"]
    assert len(np.unique(np.asarray(drawn))) > 0.99 * LARGE
    changed = words.copy()
    changed[0, 1] += 1
    other = noise.gaussian_like({"a": np.zeros(1000)}, jnp.asarray(changed), 1.0)["a"]
    assert np.mean(np.asarray(other) == np.asarray(drawn)[:1000]) < 0.01
