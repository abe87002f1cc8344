"""Fixed features: unit length, their symmetries, and that nothing but a seed shapes them."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxfair.models import filters
from jaxfair.models.filters import Design, Group

GROUPS = (Group(2, 5, 4, 2), Group(4, 5, 4), Group(2, 1, 4))
TURNING = Design(36, GROUPS, symmetric=True)
UPRIGHT = Design(36, GROUPS, symmetric=False)


def images(count, *shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).random((count, *shape)), jnp.float32)


@functools.cache
def compiled(design, channels):
    bank = filters.filter_bank(design, channels, 0)
    features = functools.partial(filters.filter_features, design, bank)
    return jax.jit(jax.vmap(features))


@pytest.mark.parametrize("design", [TURNING, UPRIGHT])
@pytest.mark.parametrize("shape", [(36, 36, 3), (50, 30, 1)])
def test_features_have_length_one_and_the_stated_number(design, shape):
    features = np.asarray(compiled(design, shape[-1])(images(3, *shape)))
    assert features.shape == (3, filters.feature_count(design))
    np.testing.assert_allclose(np.linalg.norm(features, axis=1), 1, rtol=1e-5)
    assert np.abs(features[0] - features[1]).max() > 0.01


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_an_empty_image_has_finite_features(value):
    features = compiled(TURNING, 3)(jnp.full((1, 36, 36, 3), value))
    assert np.isfinite(features).all()


def test_features_are_the_same_for_all_flips_and_turns_where_the_design_says_so():
    image = images(1, 36, 36, 3)
    ways = [jnp.rot90(i, k, axes=(1, 2)) for i in (image, image[:, :, ::-1]) for k in range(4)]
    turning = np.concatenate([compiled(TURNING, 3)(way) for way in ways])
    upright = np.concatenate([compiled(UPRIGHT, 3)(way) for way in ways])
    np.testing.assert_allclose(turning, np.broadcast_to(turning[:1], turning.shape), atol=1e-4)
    assert all(np.abs(upright[i] - upright[0]).max() > 0.01 for i in range(1, 8))


def test_a_pattern_that_points_outwards_differs_from_one_that_runs_around():
    axis = np.linspace(-1, 1, 36)
    angle, radius = np.arctan2(axis[:, None], axis), np.hypot(axis[:, None], axis)
    both = np.stack([0.5 + 0.4 * np.sin(12 * angle), 0.5 + 0.4 * np.sin(12 * radius)])
    spokes, circles = compiled(TURNING, 1)(jnp.asarray(both[..., None], jnp.float32))
    assert float(spokes @ circles) < 0.8


def test_the_upper_regions_see_the_whole_image_over_all_turns():
    for side in (5, 8, 9):
        masks = filters._rings(side, upper=True)
        seen = sum(np.rot90(masks.sum(axis=0) > 0, k) for k in range(4))
        assert seen.all()
        np.testing.assert_allclose(masks.sum(axis=(1, 2)), 1, rtol=1e-6)


def test_cells_cover_the_image_without_overlap():
    for side in (5, 8):
        masks = filters._cells(side)
        np.testing.assert_array_equal((masks > 0).sum(axis=0), 1)


def test_filters_are_a_function_of_the_public_seed_alone():
    first = filters.filter_bank(TURNING, 1, 0)
    again = filters.filter_bank.__wrapped__(TURNING, 1, 0)
    jax.tree.map(np.testing.assert_array_equal, first, again)
    other = filters.filter_bank(TURNING, 1, 1)
    name = GROUPS[0].name
    assert not np.array_equal(first[name]["kernel"], other[name]["kernel"])


def test_filters_and_scales_are_standardised_on_the_drawn_images():
    drawn = filters.drawn_images(filters.DRAWN, 36, 3, seed=0)
    bank = filters.filter_bank(TURNING, 3, 0)
    raw = jax.jit(jax.vmap(functools.partial(filters._raw, TURNING, bank)))(drawn)
    standard = (raw - bank["features"]["mean"]) / bank["features"]["scale"]
    np.testing.assert_allclose(np.mean(standard, axis=0), 0, atol=1e-3)
    np.testing.assert_allclose(np.std(standard, axis=0), 1, atol=1e-3)


def test_whitened_filters_respond_to_common_and_rare_directions_alike():
    rng = np.random.default_rng(0)
    spreads = np.geomspace(1, 0.05, 8)
    patches = rng.standard_normal((filters.PATCHES, 8)) * spreads
    responses = patches @ filters._whitened(patches, 64, rng)
    shares = np.square((responses.T @ patches) / len(patches) / spreads).sum(axis=0)
    assert shares.max() / shares.min() < 3


def test_drawn_images_are_within_range_and_differ_in_colour_and_form():
    drawn = filters.drawn_images(8, 36, 3, seed=0)
    assert drawn.shape == (8, 36, 36, 3) and drawn.dtype == np.float32
    assert drawn.min() >= 0 and drawn.max() <= 1
    assert drawn.mean(axis=(1, 2)).std(axis=0).min() > 0.02
    np.testing.assert_array_equal(drawn, filters.drawn_images(8, 36, 3, seed=0))
