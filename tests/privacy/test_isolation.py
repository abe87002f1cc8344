"""Bounds from canaries, the isolation check and the detectors, each against its own fault."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from jaxfair.errors import InputError
from jaxfair.privacy import accounting, canaries, detectors, isolation
from jaxfair.privacy.accounting import Event

N = 10_000
SPEC = {
    "image": jax.ShapeDtypeStruct((4, 4, 1), jnp.float32),
    "label": jax.ShapeDtypeStruct((), jnp.int32),
}
PARAMS = {"w": jnp.ones(16)}


# --- bounds ---------------------------------------------------------------------------------


def made_normal(shift):
    """N(shift, 1) at its own quantiles: the scores behind the published figures."""
    return scipy.stats.norm.ppf((np.arange(N) + 0.5) / N) + shift


def frontier(ins, outs):
    """(guesses, correct) at the corners of the hull of the ROC curve, one per threshold."""
    thresholds = np.append(np.union1d(ins, outs), np.inf)
    missed = np.searchsorted(np.sort(ins), thresholds)
    cleared = np.searchsorted(np.sort(outs), thresholds)
    kept = []
    for point in zip(missed, cleared):
        while len(kept) > 1 and _turns_down(kept[-2], kept[-1], point):
            kept.pop()
        kept.append(point)
    corners = np.array(kept)
    return 2 * N - corners.sum(axis=1), N - corners[:, 0]


def _turns_down(a, b, c):
    return (b[1] - a[1]) * (c[0] - b[0]) <= (c[1] - b[1]) * (b[0] - a[0])


@pytest.mark.parametrize(
    ("estimator", "shift", "epsilon"),
    [
        (canaries.one_run_epsilon, 1, 1.13346),
        (canaries.one_run_epsilon, 2, 2.311945),
        (canaries.one_run_epsilon, 4, 4.395568),
        (canaries.one_run_gaussian_epsilon, 1, 2.164749),
        (canaries.one_run_gaussian_epsilon, 2, 4.7218075),
        (canaries.one_run_gaussian_epsilon, 4, 9.133752),
    ],
)
def test_one_run_bounds_give_the_published_figures(estimator, shift, epsilon):
    guesses, correct = frontier(made_normal(shift), made_normal(0))
    level = 0.05 / len(guesses)
    bound = lambda i: estimator(2 * N, int(guesses[i]), int(correct[i]), delta=1e-6, level=level)
    stride = max(1, len(guesses) // 40)
    coarse = max(range(1, len(guesses), stride), key=bound)
    near = range(max(1, coarse - stride), min(len(guesses), coarse + stride), max(1, stride // 20))
    assert max(map(bound, near)) == pytest.approx(epsilon, rel=1e-5)


@pytest.mark.parametrize(("count", "epsilon"), [(100, 3.5), (1000, 5.8), (10_000, 8.1)])
def test_the_largest_one_run_bound_is_that_of_the_protocol(count, epsilon):
    found = canaries.one_run_epsilon(count, count, count, delta=0.0, level=0.05)
    assert round(found, 1) == epsilon


@pytest.mark.parametrize(
    ("mu", "delta", "epsilon"),
    [(1, 1e-5, 4.377178), (2, 1e-5, 9.997256), (0.5, 1e-6, 2.254085)],
)
def test_the_gaussian_epsilon_is_exact(mu, delta, epsilon):
    assert canaries.gaussian_epsilon(mu, delta) == pytest.approx(epsilon, abs=1e-6)


def test_error_rates_without_errors_give_the_closed_form():
    rate = 1 - 0.025 ** (1 / 100)
    found = canaries.error_rate_epsilon(0, 100, 0, 100, delta=1e-5, level=0.05)
    assert found == pytest.approx(np.log((1 - 1e-5 - rate) / rate))


def sampled_scores(rng, sigma, count=500, q=0.25, steps=20):
    """Sums over the steps of one entry of a Poisson-sampled Gaussian: (ins, outs)."""
    noise = sigma * rng.standard_normal((2, count, steps))
    drawn = rng.random((count, steps)) < q
    return (noise[0] + drawn).sum(axis=1), noise[1].sum(axis=1)


def test_no_bound_exceeds_the_truth_more_often_than_its_level_allows():
    rng, event, delta = np.random.default_rng(0), Event(0.25, 2.5, 20), 1e-5
    truth, over = accounting.epsilon([event], delta), np.zeros(4)
    for _ in range(60):
        ins, outs = sampled_scores(rng, event.noise_multiplier)
        found = canaries.bounds_from_scores(ins, outs, delta=delta, level=0.05)
        sigma = canaries.noise_upper_bound(ins, outs, sampling_prob=0.25, steps=20, level=0.05)
        over += [*(bound.epsilon > truth for bound in found), sigma < event.noise_multiplier]
    assert np.all(over <= scipy.stats.binom.ppf(0.999, 60, 0.05))


def test_half_the_noise_shows_and_all_of_it_does_not():
    rng = np.random.default_rng(1)
    bound = lambda sigma: canaries.noise_upper_bound(
        *sampled_scores(rng, sigma), sampling_prob=0.25, steps=20, level=0.01
    )
    assert bound(2.5) > 2.5
    assert 1.25 < bound(1.25) < 2.5


def test_equal_scores_prove_nothing_and_separate_scores_the_most_they_can():
    ins, outs = np.ones(100), np.zeros(100)
    for bound in canaries.bounds_from_scores(ins, outs, delta=1e-5, level=0.05):
        assert bound.epsilon == bound.reachable > 1
    for bound in canaries.bounds_from_scores(outs, outs, delta=1e-5, level=0.05):
        assert bound.epsilon == 0


# --- isolation ------------------------------------------------------------------------------


def plain_loss(params, frozen, example, key):
    x = example["image"].ravel() * jax.random.bernoulli(key, 0.9, (16,))
    return jnp.mean((params["w"] * x - example["label"]) ** 2), {}


def plain_prepare(frozen, raw):
    return {"image": raw["image"] * 2 - 1, "label": raw["label"]}


@jax.custom_batching.custom_vmap
def batch_weight(x):
    return jnp.ones_like(x)


@batch_weight.def_vmap
def _batch_weights(axis_size, in_batched, x):
    return (x - x.min()) / (x.max() - x.min() + 1e-6), True


def min_max_loss(params, frozen, example, key):
    """The predecessor's rule: the weight of an example is its place between min and max."""
    own, aux = plain_loss(params, frozen, example, key)
    return jax.lax.stop_gradient(batch_weight(jax.lax.stop_gradient(own))) * own, aux


def collective_loss(params, frozen, example, key):
    return jax.lax.pmean(plain_loss(params, frozen, example, key)[0], "data"), {}


def remembering_loss():
    seen = []

    def host(x):
        seen.append(float(x))
        return np.float32(len(seen))

    def loss(params, frozen, example, key):
        own, aux = plain_loss(params, frozen, example, key)
        shape = jax.ShapeDtypeStruct((), jnp.float32)
        calls = jax.pure_callback(host, shape, jax.lax.stop_gradient(own), vmap_method="sequential")
        return own * calls, aux

    return loss


def whole_batch_loss(params, frozen, example, key):
    """A callback that is handed the batch at once, and centres it."""
    own, aux = plain_loss(params, frozen, example, key)
    centred = jax.pure_callback(
        lambda x: np.asarray(x - np.mean(x), np.float32),
        jax.ShapeDtypeStruct((), jnp.float32),
        jax.lax.stop_gradient(own),
        vmap_method="expand_dims",
    )
    return own + centred, aux


def coupled_prepare(frozen, raw):
    return {"image": raw["image"] * batch_weight(raw["image"].mean()), "label": raw["label"]}


def check(loss=plain_loss, prepare=None, **options):
    isolation.check("made", loss, prepare, PARAMS, {}, SPEC, **options)


def test_isolation_accepts_a_loss_that_keeps_to_its_example():
    check()
    check(prepare=plain_prepare)
    check(prepare=plain_prepare, probe=True)


@pytest.mark.parametrize(
    "loss",
    [min_max_loss, whole_batch_loss, remembering_loss()],
    ids=["min-max weights", "callback on the batch", "global state"],
)
def test_isolation_refuses_a_coupled_loss_in_one_sentence(loss):
    with pytest.raises(InputError, match=r"^The loss of Method 'made' couples .*\(example \d") as e:
        check(loss)
    assert "\n" not in str(e.value) and "dp.enabled=False" in str(e.value)


def test_isolation_refuses_a_collective_over_the_mesh():
    with pytest.raises(InputError, match="talks to other examples over a mesh axis"):
        check(collective_loss)


def test_isolation_refuses_a_coupled_prepare():
    with pytest.raises(InputError, match="The prepare of Method 'made' couples"):
        check(prepare=coupled_prepare)


def test_other_name_errors_are_left_alone():
    def loss(params, frozen, example, key):
        return missing_name, {}  # noqa: F821

    with pytest.raises(NameError, match="missing_name"):
        check(loss)


def rows_of(*values):
    batch = jnp.array(values)
    return {"x": jnp.stack([batch, batch[::-1] * 0.5])}


def test_a_derivative_alone_betrays_a_coupling():
    fun = lambda operands, example, key: batch_weight(example["x"])
    changes = isolation._changes_by_derivative(fun, None, rows_of(0.1, 0.2, 0.9))
    assert changes[0, 1] and changes[2, 1]  # smallest and largest move the one between


def test_coupled_rows_names_who_changes_whom():
    fun = lambda operands, example, key: batch_weight(example["x"])
    pairs = isolation.coupled_rows(fun, None, rows_of(0.1, 0.2, 0.9))
    assert (1, 0) in pairs and (1, 2) in pairs and (0, 0) not in pairs
    assert isolation.coupled_rows(lambda o, e, k: e["x"] ** 2, None, rows_of(0.1, 0.2, 0.9)) == []


def test_operations_with_a_batching_rule_of_their_own_are_foreign():
    example = {"x": jax.ShapeDtypeStruct((), jnp.float32)}
    inside_jit = jax.jit(lambda x: batch_weight(x) * 2)
    fun = lambda operands, e, key: inside_jit(e["x"])
    assert isolation.foreign_operations(fun, None, example) == {"custom_vmap_call"}
    own = lambda operands, e, key: jax.lax.fori_loop(0, 3, lambda i, x: jnp.sin(x), e["x"])
    assert isolation.foreign_operations(own, None, example) == set()


# --- detectors ------------------------------------------------------------------------------


def residuals(stddev, seed=0, steps=3):
    rng = np.random.default_rng(seed)
    return [
        {"a": stddev * rng.standard_normal((100, 300)), "b": stddev * rng.standard_normal(8)}
        for _ in range(steps)
    ]


def test_the_noise_law_accepts_its_deviation_and_rejects_three_per_cent_more_or_less():
    assert not detectors.noise_law(residuals(0.5), 0.5).alarm
    for share in (0.97, 1.03):
        assert detectors.noise_law(residuals(0.5 * share), 0.5).alarm


def test_the_noise_law_sees_a_silent_leaf_a_shift_a_repetition_and_nan():
    good = residuals(1.0)
    silent = [{**tree, "b": np.zeros(8)} for tree in good]
    shifted = [{name: leaf + 0.05 for name, leaf in tree.items()} for tree in good]
    spoilt = [*good, {**good[0], "b": np.full(8, np.nan)}]
    for broken in (silent, shifted, [good[0]] * 2, spoilt):
        assert detectors.noise_law(broken, 1.0).alarm


def poisson(rng, units=100, q=0.25, steps=200):
    return [np.flatnonzero(rng.random(units) < q) for _ in range(steps)]


def sampled(draws, q=0.25):
    return detectors.sampling_law(draws, num_units=100, sampling_prob=q)


def test_the_sampling_law_sees_batches_of_one_size_other_rates_and_double_rows():
    rng = np.random.default_rng(0)
    assert not sampled(poisson(rng)).alarm
    order = lambda: np.split(rng.permutation(100), 4)
    assert sampled([batch for _ in range(50) for batch in order()]).alarm
    assert sampled(poisson(rng), q=0.27).alarm
    assert sampled([np.append(draw, draw[:1]) for draw in poisson(rng)]).alarm
    fixed = poisson(rng, steps=1) * 200
    assert sampled(fixed).alarm
    pairs = [np.repeat(2 * np.flatnonzero(rng.random(50) < 0.25), 2) for _ in range(200)]
    assert sampled([pair + np.arange(len(pair)) % 2 for pair in pairs]).alarm


def test_laws_cry_wolf_no_more_often_than_their_level():
    rng = np.random.default_rng(2)
    alarms = sum(sampled(poisson(rng)).alarm for _ in range(200))
    assert alarms <= scipy.stats.binom.ppf(0.999, 200, detectors.LEVEL)
    alarms = sum(detectors.noise_law(residuals(1.0, seed), 1.0).alarm for seed in range(50))
    assert alarms <= scipy.stats.binom.ppf(0.999, 50, detectors.LEVEL)


def test_a_repeated_key_is_named():
    words = np.arange(12, dtype=np.uint32).reshape(3, 2, 2)
    assert detectors.repeated_keys({"noise": words}) == []
    found = detectors.repeated_keys({"noise": words, "example": words[1:2, 1]})
    assert found == ["The key of example (0,) is the key of noise (1, 1)"]


def test_differences_are_exact_and_named():
    one = {"a": np.float32(1), "b": np.array([np.nan, 1.0])}
    assert detectors.differences(one, {"a": np.float32(1), "b": np.array([np.nan, 1.0])}) == []
    for other in (np.nextafter(np.float32(1), np.float32(2)), np.float64(1), np.ones(1)):
        assert detectors.differences(one, {**one, "a": other}) == ["['a']"]
    assert detectors.differences(one, {"a": np.float32(1)}) == ["the structure"]
    near = {**one, "a": np.float32(1.00001)}
    assert detectors.differences(one, near) == ["['a']"]
    assert detectors.differences(one, near, tolerance=1e-4) == []


def made_scores(sigma, seed=0):
    ins, outs = sampled_scores(np.random.default_rng(seed), sigma)
    return detectors.CanaryScores(ins, outs, ins, outs)


def bound_verdict(scores, spoilt=(0, 8, 0, 8)):
    event = Event(0.25, 2.5675, 20)
    return detectors.canary_bound(scores, spoilt, event=event, delta=1e-5)


def test_the_canary_bound_sees_little_noise_a_nan_leak_and_scores_that_are_not_finite():
    clean = made_scores(2.5675)
    assert not bound_verdict(clean).alarm
    assert bound_verdict(made_scores(1.2)).alarm
    assert bound_verdict(clean, spoilt=(64, 64, 0, 64)).alarm
    assert not bound_verdict(clean, spoilt=(64, 64, 64, 64)).alarm
    assert bound_verdict(clean._replace(sums_in=np.full(9, np.nan))).alarm
