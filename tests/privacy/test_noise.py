"""The law of the noise, its keys, and that nothing else decides it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from jaxfair.privacy import noise, sampling
from jaxfair.privacy.secret import Secret, insecure_secret

SECRET = insecure_secret(21)
SIGMA = 1.7
LARGE = pytest.param(10**7, marks=pytest.mark.slow)


def drawn(shapes, step=0, stddev=SIGMA, secret=SECRET):
    """The noise of one step, one numpy array per shape."""
    words = jnp.asarray(noise.noise_key_data(secret, step, len(shapes)))
    tree = noise.gaussian_like([np.zeros(shape) for shape in shapes], words, stddev)
    return [np.asarray(leaf) for leaf in tree]


@pytest.mark.parametrize("count", [10**6, LARGE])
def test_the_noise_is_gaussian_of_the_given_deviation(count):
    (values,) = drawn([(count,)])
    values = values.astype(np.float64)
    z = values / SIGMA
    assert abs(z.mean()) < 5 / count**0.5
    assert abs(z.var() - 1) < 5 * (2 / count) ** 0.5
    assert abs(np.mean(z**3)) < 5 * (15 / count) ** 0.5
    assert abs(np.mean(z**4) - 3) < 5 * (96 / count) ** 0.5
    accepted = stats.kstest(values, "norm", (0, SIGMA)).pvalue
    assert accepted > 1e-4
    for wrong in (0.97, 1.03):
        assert stats.kstest(values, "norm", (0, wrong * SIGMA)).pvalue < 1e-9


@pytest.mark.parametrize("count", [10**6, LARGE])
def test_the_tails_are_as_heavy_as_they_should_be(count):
    (values,) = drawn([(count,)], step=1)
    for at in (2.0, 3.0, 4.0):
        observed = int(np.sum(np.abs(values) > at * SIGMA))
        assert stats.binomtest(observed, count, 2 * stats.norm.sf(at)).pvalue > 1e-5


def test_leaves_steps_and_draws_are_uncorrelated():
    leaves = [leaf for step in range(4) for leaf in drawn([(30_000,)] * 3, step)]
    correlations = np.corrcoef(np.stack(leaves)) - np.eye(len(leaves))
    assert np.abs(correlations).max() < 5 / 30_000**0.5
    (values,) = drawn([(100_000,)])
    for lag in (1, 2, 3, 64, 1024):
        assert abs(np.corrcoef(values[lag:], values[:-lag])[0, 1]) < 5 / 100_000**0.5


def test_the_two_draws_of_a_value_are_uncorrelated():
    words = noise.noise_key_data(SECRET, 0, 1)[0]
    keys = [jax.random.wrap_key_data(jnp.asarray(w), impl="threefry2x32") for w in words]
    parts = [np.asarray(jax.random.normal(key, (100_000,))) for key in keys]
    assert abs(np.corrcoef(*parts)[0, 1]) < 5 / 100_000**0.5


def test_key_material_is_distinct_over_leaves_steps_draws_and_purposes():
    words = {
        tuple(w) for s in range(200) for w in noise.noise_key_data(SECRET, s, 9).reshape(-1, 2)
    }
    assert len(words) == 200 * 9 * noise.DRAWS_PER_NORMAL
    streams = {
        SECRET.derive(purpose, step, length=16)
        for purpose in ("noise", "sampling", "image", "example")
        for step in range(200)
    }
    assert len(streams) == 800


def test_key_words_are_spread_evenly():
    words = np.concatenate([noise.noise_key_data(SECRET, s, 20).ravel() for s in range(100)])
    bits = np.unpackbits(words.view(np.uint8))
    assert stats.binomtest(int(bits.sum()), bits.size, 0.5).pvalue > 1e-5
    assert stats.kstest(words / 2.0**32, "uniform").pvalue > 1e-5


def test_every_bit_of_the_secret_counts():
    base = drawn([(50,)])[0]
    for place in (0, 13, 31):
        material = bytearray(SECRET.material)
        material[place] ^= 1
        other = drawn([(50,)], secret=Secret(bytes(material), "insecure_seed"))[0]
        assert not (other == base).any()


def test_a_step_replays_its_noise_and_no_other_has_it():
    np.testing.assert_array_equal(drawn([(500,)], 3)[0], drawn([(500,)], 3)[0])
    assert not (drawn([(500,)], 4)[0] == drawn([(500,)], 3)[0]).any()


def test_the_noise_scales_with_its_deviation():
    once, twice = (drawn([(500,)], stddev=s)[0] for s in (1.0, 2.0))
    np.testing.assert_allclose(twice, 2 * once, rtol=1e-6)


def test_no_hidden_source_decides_noise_or_draws():
    seen = []
    for seed in (0, 1):
        np.random.seed(seed)  # noqa: NPY002
        draw = sampling.poisson_draw(SECRET, 0, num_units=500, sampling_prob=0.3)
        seen.append((drawn([(100,)])[0], draw))
    for first, second in zip(*seen, strict=True):
        np.testing.assert_array_equal(first, second)


def test_the_noise_is_float32_shaped_like_the_tree():
    tree = {"w": np.zeros((3, 4), np.float16), "b": np.zeros(())}
    made = noise.gaussian_like(tree, jnp.asarray(noise.noise_key_data(SECRET, 0, 2)), 1.0)
    assert {name: leaf.shape for name, leaf in made.items()} == {"w": (3, 4), "b": ()}
    assert {leaf.dtype for leaf in made.values()} == {jnp.dtype(jnp.float32)}


@pytest.mark.parametrize("leaves", [1, 3])
def test_too_few_or_too_many_keys_are_refused(leaves):
    words = jnp.asarray(noise.noise_key_data(SECRET, 0, leaves))
    with pytest.raises(ValueError, match="need their own keys"):
        noise.gaussian_like([np.zeros(2), np.zeros(2)], words, 1.0)
