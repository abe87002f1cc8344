"""Second moments as gradients: norm 1, the SVD's subspace, the edge of the noise, FCRO's losses."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxfair.methods import fcro, moments
from jaxfair.privacy.sums import clipping

D, N = 8, 40
TARGETS = {
    "one label": ("multi-label", 1),
    "three labels": ("multi-label", 3),
    "one of three": ("multi-class", 3),
}


def lengths_one(*shape, seed=0):
    x = np.random.default_rng(seed).normal(size=shape)
    return (x / np.linalg.norm(x, axis=-1, keepdims=True)).astype(np.float32)


def labelled(n, target, labels, seed=0):
    rng = np.random.default_rng(seed)
    if target == "multi-class":
        return {"label": np.eye(labels, dtype=np.float32)[rng.integers(labels, size=n)]}
    return {"label": rng.integers(2, size=(n, labels)).astype(np.float32)}


def gradients(x, classes, k):
    zero = jnp.zeros((k, D, D))
    grad = jax.jit(jax.vmap(jax.grad(moments.moment_loss), (None, 0, 0)))
    return np.asarray(grad(zero, x, classes), np.float64)


@pytest.mark.parametrize("case", TARGETS)
def test_the_gradient_of_one_example_has_norm_one(case):
    target, labels = TARGETS[case]
    classes = moments.belongs(labelled(N, target, labels), target)
    grads = gradients(lengths_one(N, D), classes, moments.class_count(labels, target))
    np.testing.assert_allclose(np.linalg.norm(grads.reshape(N, -1), axis=1), 1, rtol=1e-6)


def test_who_was_asked_nothing_adds_nothing():
    for example in (
        {"label": np.full((1, 2), np.nan, np.float32)},
        {"label": np.ones((1, 2), np.float32), "label_mask": np.zeros((1, 2), bool)},
    ):
        assert not gradients(lengths_one(1, D), moments.belongs(example, "multi-label"), 4).any()


def test_an_example_is_in_the_class_of_each_label_that_was_asked():
    example = {"label": np.array([1, 0, np.nan, 1]), "label_mask": np.array([1, 1, 1, 0])}
    assert moments.belongs(example, "multi-label").tolist() == [0, 1, 0, 0, 1, 0, 0, 0]
    assert moments.belongs({"label": np.array([0.0, 1, 0])}, "multi-class").tolist() == [0, 1, 0]
    assert moments.belongs(example, "multi-class").tolist() == [0, 0, 0, 0]


@pytest.mark.parametrize("bound", [0.5, 1.0, 2.0])
def test_one_example_more_moves_the_sum_of_moments_by_at_most_c(bound):
    batch = labelled(N, "multi-label", 3) | {"x": lengths_one(N, D)}
    loss = lambda m, e, key: moments.moment_loss(m, e["x"], moments.belongs(e, "multi-label"))
    total = jax.jit(
        lambda mask: clipping.clipped_sum(
            loss, jnp.zeros((6, D, D)), batch, jax.random.split(jax.random.key(0), N), mask,
            l2_clip_norm=bound, units=N,
        )
    )  # fmt: skip
    most = [np.asarray(total(jnp.arange(N) < n), np.float64) for n in (N - 1, N)]
    moved = np.linalg.norm(most[1] - most[0])
    assert 0.99 * min(1, bound) <= moved <= bound


def summed(x, classes):
    return -gradients(x, classes, classes.shape[1]).sum(axis=0).astype(np.float32)


def planted(n=300, rank=3, noise=0.1):
    """Embeddings of two classes, each with three directions of its own and a little of all."""
    rng = np.random.default_rng(1)
    label = (np.arange(n) % 2).astype(np.float32)
    axes = [np.linalg.qr(rng.normal(size=(D, rank)))[0] for _ in range(2)]
    x = np.stack([axes[int(y)] @ (rng.normal(size=rank) * [3, 2, 1]) for y in label])
    x += noise * rng.normal(size=x.shape)
    return (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32), label[:, None]


def worst_angle(basis, truth):
    """Sine of the largest principal angle between two subspaces of the same dimension."""
    cosines = np.linalg.svd(basis.T @ truth, compute_uv=False)
    return np.sqrt(max(0.0, 1 - cosines.min() ** 2))


@pytest.mark.parametrize("rule", ["three directions", "an energy of .99"])
def test_the_subspace_of_a_class_is_that_of_the_svd_of_its_embeddings(rule):
    x, label = planted()
    directions = 3 if rule == "three directions" else 0
    moment = summed(x, moments.belongs({"label": label}, "multi-label"))
    found = moments.subspaces(jnp.asarray(moment), directions=directions, energy=0.99)
    for y in (0, 1):
        left, singular, _ = np.linalg.svd(x[label[:, 0] == y].T, full_matrices=False)
        energy = np.cumsum(singular**2) / np.sum(singular**2)
        count = directions or max(1, int(np.sum(energy <= 0.99)))
        basis = np.asarray(found["basis"][y])
        assert (np.linalg.norm(basis, axis=0) > 0.5).tolist() == [i < count for i in range(D)]
        assert worst_angle(basis[:, :count], left[:, :count]) < 2e-3
        np.testing.assert_allclose(found["values"][y], singular**2, rtol=1e-3, atol=1e-3)


def test_nothing_added_up_gives_a_subspace_that_is_finite():
    found = moments.subspaces(jnp.zeros((2, D, D)), directions=0, energy=0.99)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(found))


def noisy(dims, scale, signal, seed):
    rng = np.random.default_rng(seed)
    axes = np.linalg.qr(rng.normal(size=(dims, len(signal))))[0]
    return (axes * signal) @ axes.T + scale * rng.normal(size=(dims, dims))


@pytest.mark.parametrize("dims", [24, 64, 128])
def test_noise_alone_stays_below_its_edge_and_comes_close(dims):
    moment = np.stack([noisy(dims, 1.5, [], seed) for seed in range(10)])
    edge = float(moments.noise_edge(jnp.asarray(moment)))
    tops = [np.linalg.eigvalsh((m + m.T) / 2)[-1] for m in moment]
    assert 0.85 * edge < np.mean(tops) < 1.03 * edge
    assert edge == pytest.approx(2 * 1.5 * np.sqrt(dims / 2), rel=0.03)
    signal = 80 * np.eye(dims)[None]  # what is symmetric is no noise
    assert float(moments.noise_edge(jnp.asarray(moment + signal))) == pytest.approx(edge, rel=1e-4)


def test_an_energy_is_read_off_a_noisy_matrix_without_counting_its_noise():
    moment = np.stack([noisy(64, 1.0, [90.0, 60.0, 40.0], seed) for seed in range(2)])
    found = moments.subspaces(jnp.asarray(moment, jnp.float32), directions=0, energy=0.9999)
    counts = (np.linalg.norm(found["basis"], axis=1) > 0.5).sum(axis=1)
    assert ((counts >= 2) & (counts <= 4)).all()
    assert moments.above_noise(found["values"], found["edge"]) == [3, 3]


@pytest.mark.parametrize(("scale", "clear"), [(0.1, "6 of the 6"), (4.0, "2 of the 6")])
def test_the_directions_that_may_be_noise_are_counted_in_words(scale, clear):
    """Noise of 4 hides what is below 45: 90 stands out, 10 and 8 do not."""
    signal = [90.0, 10.0, 8.0]
    moment = np.stack([noisy(64, scale, signal, seed) for seed in range(2)])
    found = moments.subspaces(jnp.asarray(moment, jnp.float32), directions=3, energy=0.9)
    words, edge = moments.noise_words(found), float(found["edge"])
    assert f"{clear} directions of all 2 classes stand above that" in words
    assert ("may be noise" in words) == (scale > 1) and f"up to {edge:.2g};" in words


def test_a_private_second_moment_is_told_beside_its_noise_and_a_plain_one_is_not():
    """The noise is read from the matrix, so that nothing need be handed on."""
    plain = np.stack([noisy(32, 0.0, [90.0, 10.0], seed) for seed in range(2)]).astype(np.float32)
    noise = np.random.default_rng(0).normal(size=plain.shape).astype(np.float32)
    told = lambda m: fcro.noise_told(
        {}, {"subspace": moments.subspaces(m, directions=1, energy=0.9)}
    )
    assert told(jnp.asarray(plain)) == ""
    assert "2 of the 2 directions of all 2 classes" in told(jnp.asarray(plain + noise))


def test_the_column_loss_of_balanced_batches_is_the_published_mean_of_class_means():
    z, label = lengths_one(N, D), (np.arange(N) % 2).astype(np.float32)[:, None]
    found = moments.subspaces(jnp.asarray(summed(*planted_moment())), directions=3, energy=0.5)
    basis = np.asarray(found["basis"])
    classes = moments.belongs({"label": label}, "multi-label")
    column = jax.vmap(lambda zi, c: moments.column_loss(found["basis"], zi, c, 1))
    ours = np.mean(column(z, classes))
    published = np.mean(
        [np.mean([np.sum((basis[y].T @ zi) ** 2) for zi in z[label[:, 0] == y]]) for y in (0, 1)]
    )
    assert ours == pytest.approx(published, rel=1e-5)


def planted_moment():
    x, label = planted()
    return x, moments.belongs({"label": label}, "multi-label")


def published_row_loss(z, x, label):
    losses = []
    for y in (0, 1):
        zc, xc = (v[label == y] - v[label == y].mean(axis=0) for v in (z, x))
        losses.append(np.sum((zc.T @ xc) ** 2) / z.shape[1] ** 2)
    return np.mean(losses)


@pytest.mark.parametrize("repeats", [1, 3])
def test_the_row_loss_is_the_published_one_whatever_the_batch(repeats):
    """The published sum grows with the batch; ours is its value at 64 rows a class."""
    z, x = lengths_one(128, D), lengths_one(128, D, seed=1)
    label = (np.arange(128) % 2).astype(np.float32)
    many = [np.tile(v, (repeats, 1)) for v in (z, x, label[:, None])]
    classes = moments.belongs({"label": many[2]}, "multi-label")
    ours = moments.row_loss(many[0], many[1], classes)
    assert float(ours) == pytest.approx(published_row_loss(z, x, label), rel=1e-4)


def test_the_row_loss_leaves_padding_out_and_teaches_the_attribute_encoder_nothing():
    z, x = lengths_one(20, D), lengths_one(20, D, seed=1)
    label = (np.arange(20) % 2).astype(np.float32)[:, None]
    classes = moments.belongs({"label": label}, "multi-label")
    masked = jnp.where(jnp.arange(20)[:, None] < 15, classes, 0)
    alone = moments.row_loss(z[:15], x[:15], classes[:15])
    assert float(moments.row_loss(z, x, masked)) == pytest.approx(float(alone), rel=1e-5)
    grads = jax.grad(moments.row_loss, argnums=(0, 1))(jnp.asarray(z), jnp.asarray(x), classes)
    assert np.abs(grads[0]).max() > 0 and not np.abs(grads[1]).any()


def test_embeddings_that_do_not_vary_together_have_no_row_loss():
    z, label = lengths_one(10, D), np.zeros((10, 1), np.float32)
    same = np.repeat(lengths_one(1, D), 10, axis=0)
    classes = moments.belongs({"label": label}, "multi-label")
    assert float(moments.row_loss(z, same, classes)) < 1e-9
