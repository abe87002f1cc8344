"""The frozen extractor: torch parity, stored statistics, the random fallback."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxfair.models import extractor, norms, pretrained


def images(count=2, size=64):
    x = np.random.default_rng(0).random((count, size, size, 3)).astype(np.float32)
    return 2 * x - 1


def test_features_equal_torch_to_1e_5():
    nets = pytest.importorskip("tests.models.torch_nets")
    net = nets.randomise(nets.Extractor())
    state = {name: value.numpy() for name, value in net.state_dict().items()}
    shapes = jax.eval_shape(extractor.Extractor().init, jax.random.key(0), images()[:1])
    variables = pretrained.fill_from_torch(shapes, state, where="test")
    ours = jax.jit(extractor.Extractor().apply)(variables, images())
    with nets.torch.no_grad():
        theirs = nets.from_torch(net(nets.to_torch(images())))
    assert ours.shape == (2, 16, 16, extractor.CHANNELS)
    assert np.abs(ours - theirs).max() <= 1e-5 * np.abs(theirs).max()


def test_features_of_an_image_do_not_depend_on_its_batch():
    params, stats = extractor.random_extractor(0)
    apply = jax.jit(lambda x: extractor.Extractor().apply({"params": params, "stats": stats}, x))
    x = images()
    other = np.concatenate([x[:1], 100 * x[1:]])
    np.testing.assert_array_equal(apply(x)[0], apply(other)[0])


def test_stored_statistics_do_not_move_unless_asked():
    norm = norms.FrozenNorm()
    variables = norm.init(jax.random.key(0), jnp.ones((1, 2, 2, 3)))
    np.testing.assert_array_equal(variables["stats"]["mean"], np.ones(3))
    variables = {**variables, "stats": {"mean": jnp.zeros(3), "var": jnp.ones(3)}}
    x = jnp.asarray(images())
    y = norm.apply(variables, x)
    np.testing.assert_allclose(y, x, atol=1e-4)
    _, moved = norm.apply(variables, x, mutable=["stats"])
    np.testing.assert_allclose(moved["stats"]["var"], np.var(x, (0, 1, 2)), rtol=1e-4)


def test_the_random_extractor_is_a_function_of_its_seed():
    first = extractor.random_extractor(0)
    extractor.random_extractor.cache_clear()
    jax.tree.map(np.testing.assert_array_equal, first, extractor.random_extractor(0))
    kernel = extractor.random_extractor(1)[0]["conv1"]["kernel"]
    assert not np.array_equal(kernel, first[0]["conv1"]["kernel"])


def test_a_random_extractor_built_inside_a_trace_holds_arrays():
    extractor.random_extractor.cache_clear()
    jax.eval_shape(lambda: extractor.random_extractor(0))
    kernel = extractor.random_extractor(0)[0]["conv1"]["kernel"]
    assert np.isfinite(np.asarray(kernel)).all()


def test_no_weights_are_drawn_where_only_their_shapes_are_asked_for(monkeypatch):
    """A trace that computes its constants at once would compile and run every initialiser."""
    uniform, held = jax.random.uniform, []

    def drawn(*given):
        held.append(not isinstance(found := uniform(*given), jax.core.Tracer))
        return found

    monkeypatch.setattr(jax.random, "uniform", drawn)
    extractor.random_extractor.__wrapped__(0)
    assert held and not any(held)


def test_random_features_are_centred_on_synthetic_textures():
    params, stats = extractor.random_extractor(0)
    textures = extractor.synthetic_textures(8, 128, seed=5)
    maps = jax.jit(extractor.Extractor().apply)({"params": params, "stats": stats}, textures)
    spread = np.std(maps, axis=(0, 1, 2))
    assert np.isfinite(maps).all()
    assert (spread > 0.05).all() and (spread < 20).all()


def test_textures_are_seeded_and_fill_their_range():
    textures = extractor.synthetic_textures(4, 32, seed=1)
    np.testing.assert_array_equal(textures, extractor.synthetic_textures(4, 32, seed=1))
    assert textures.shape == (4, 32, 32, 3) and textures.dtype == np.float32
    np.testing.assert_allclose(textures.min((1, 2, 3)), -1)
    np.testing.assert_allclose(textures.max((1, 2, 3)), 1)
