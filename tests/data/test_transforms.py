"""Augmentation of one example: each change does what it says, and flips know left from right."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage

from jaxfair.data.transforms import AugmentConfig, make_augment, side_swap
from jaxfair.errors import InputError

LABELS = ("effusion_right", "effusion_left", "cardiomegaly")


def example(*shape):
    image = jnp.asarray(np.random.default_rng(0).random(shape), jnp.float32)
    return {
        "image": image,
        "label": jnp.asarray([1.0, 0.0, jnp.nan]),
        "label_mask": jnp.asarray([True, True, False]),
        "other": jnp.ones(2),
    }


@pytest.mark.parametrize("shape", [(6, 8, 1), (3, 6, 8, 2)])
def test_a_flip_mirrors_the_image_and_exchanges_the_sides(shape):
    given = example(*shape)
    out = make_augment(AugmentConfig(flip=1.0), LABELS)(given, jax.random.key(0))
    np.testing.assert_array_equal(out["image"], np.asarray(given["image"])[..., ::-1, :])
    np.testing.assert_array_equal(out["label"], [0.0, 1.0, np.nan])
    np.testing.assert_array_equal(out["label_mask"], [True, True, False])
    np.testing.assert_array_equal(out["other"], given["other"])


def test_image_and_labels_are_flipped_together_about_half_of_the_time():
    given = example(4, 4, 1)
    augment = make_augment(AugmentConfig(flip=0.5), LABELS)
    keys = jax.random.split(jax.random.key(1), 200)
    out = jax.jit(jax.vmap(augment, in_axes=(None, 0)))(given, keys)
    image_flipped = ~(np.asarray(out["image"]) == np.asarray(given["image"])).all((1, 2, 3))
    np.testing.assert_array_equal(image_flipped, np.asarray(out["label"])[:, 0] == 0)
    assert 70 < image_flipped.sum() < 130


def test_side_names_are_swapped_as_words_only():
    names = ("Left lung", "right lung", "pneumonia-left", "pneumonia-right", "brightness")
    with pytest.raises(InputError, match="'Left lung' names a side, but 'right lung'") as error:
        side_swap(("Left lung", "brightness"))
    assert "augment.flip = 0" in str(error.value)
    with pytest.raises(InputError, match="'left lung' is not among"):
        side_swap(names)
    np.testing.assert_array_equal(side_swap(names[2:]), [1, 0, 2])


@pytest.mark.parametrize("shape", [(6, 6, 2), (3, 6, 6, 1)])
def test_quarter_turns_are_drawn_evenly_and_resample_nothing(shape):
    given = example(*shape)
    augment = make_augment(AugmentConfig(quarter_turns=True), LABELS)
    keys = jax.random.split(jax.random.key(2), 200)
    turned = np.asarray(jax.jit(jax.vmap(augment, in_axes=(None, 0)))(given, keys)["image"])
    turns = [np.rot90(given["image"], k, axes=(-3, -2)) for k in range(4)]
    counts = [sum(np.array_equal(image, turn) for image in turned) for turn in turns]
    assert sum(counts) == 200 and min(counts) > 25


def test_an_image_that_is_not_square_is_not_turned():
    augment = make_augment(AugmentConfig(quarter_turns=True), LABELS)
    with pytest.raises(InputError, match="square images, and these are 6 x 8"):
        augment(example(6, 8, 1), jax.random.key(0))


def test_a_shift_moves_the_image_by_at_most_its_share_and_brings_in_zeros():
    given = {"image": jnp.ones((20, 20, 1))}
    augment = jax.jit(make_augment(AugmentConfig(shift=0.1), ()))
    for seed in range(5):
        moved = np.asarray(augment(given, jax.random.key(seed))["image"])[..., 0]
        assert (moved[2:-2, 2:-2] == pytest.approx(1, abs=1e-5)) and moved.min() < 1
        assert moved.sum() >= 400 * 0.9**2 - 1e-3


def test_a_rotation_equals_scipy_and_stays_within_its_angle():
    image = np.zeros((21, 21), np.float32)
    image[10, 4:17] = 1
    augment = jax.jit(make_augment(AugmentConfig(rotation=30), ()))
    angles = []
    for seed in range(4):
        turned = augment({"image": jnp.asarray(image)[..., None]}, jax.random.key(seed))["image"]
        turned = np.asarray(turned)[..., 0]
        rows, columns = np.nonzero(turned > 0.3)
        angles.append(np.degrees(np.arctan(np.polyfit(columns, rows, 1)[0])))
        errors = [
            np.abs(ndimage.rotate(image, angle, reshape=False, order=1) - turned).max()
            for angle in np.linspace(-30, 30, 241)
        ]
        assert min(errors) < 0.06
    assert np.abs(angles).max() <= 31 and np.std(angles) > 1


def test_every_slice_of_a_volume_is_moved_alike():
    plane = np.random.default_rng(0).random((9, 10, 1)).astype(np.float32)
    volume = {"image": jnp.asarray(np.stack([plane] * 3))}
    config = AugmentConfig(rotation=20, shift=0.2)
    out = make_augment(config, ())(volume, jax.random.key(3))["image"]
    flat = make_augment(config, ())({"image": jnp.asarray(plane)}, jax.random.key(3))["image"]
    for i in range(3):
        np.testing.assert_allclose(out[i], flat, atol=1e-6)


def test_intensity_keeps_the_order_of_greys_and_their_range():
    given = example(8, 8, 1)
    out = make_augment(AugmentConfig(intensity=0.2), ())(given, jax.random.key(0))["image"]
    order = np.argsort(np.asarray(given["image"]).ravel())
    assert (np.diff(np.asarray(out).ravel()[order]) >= 0).all()
    assert out.min() >= 0 and out.max() <= 1
    assert not np.array_equal(out, given["image"])


def test_nothing_switched_on_is_no_augmentation():
    assert make_augment(AugmentConfig(), LABELS) is None


@pytest.mark.parametrize("field, value", [("flip", 1.5), ("rotation", -1), ("shift", 1.0)])
def test_a_strength_outside_its_range_is_refused(field, value):
    with pytest.raises(InputError, match=rf"augment\.{field} = {value} must lie between 0"):
        AugmentConfig(**{field: value})
