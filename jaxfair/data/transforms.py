"""Augmentation of ONE example by a key: flip, quarter turns, rotation, shift, intensity.

A flip mirrors left and right, so it also exchanges the labels that name a side: a finding
in the right lung of a mirrored film lies in its left lung.
"""

import dataclasses
import re
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.ndimage import map_coordinates

from jaxfair.errors import InputError

__all__ = ["AugmentConfig", "make_augment", "side_swap"]

Example = dict[str, Any]
_SIDES = {"left": "right", "right": "left"}


@dataclasses.dataclass(frozen=True)
class AugmentConfig:
    """How strongly an example is changed; zero switches a change off.

    Attributes:
      flip: probability of mirroring the last spatial axis, in [0, 1].
      quarter_turns: turn by 0, 90, 180 or 270 degrees, drawn uniformly; nothing is resampled.
        For square images without a top, as of skin.
      rotation: largest angle in degrees, drawn uniformly from both directions.
      shift: largest shift of rows and columns as a share of the image, in [0, 1).
      intensity: grey values become x * (1 + a) + b, a and b uniform within this, in [0, 1).

    Raises InputError for a value outside these.
    """

    flip: float = 0.0
    quarter_turns: bool = False
    rotation: float = 0.0
    shift: float = 0.0
    intensity: float = 0.0

    def __post_init__(self) -> None:
        limits = {"flip": 1.0, "rotation": 180.0, "shift": 0.999, "intensity": 0.999}
        for name, limit in limits.items():
            value = getattr(self, name)
            if not 0 <= value <= limit:
                raise InputError(f"augment.{name} = {value} must lie between 0 and {limit:g}.")


def make_augment(
    config: AugmentConfig, labels: Sequence[str]
) -> Callable[[Example, jax.Array], Example] | None:
    """Returns `(example, key) -> example`, or None where nothing is switched on.

    The example has `image` (h, w, c) or (d, h, w, c) in [0, 1], and may have `label` and
    `label_mask` (l,); everything else passes through. Rotation and shift resample rows and
    columns bilinearly, with zeros from outside; intensity clips to [0, 1].

    Args:
      config: the strengths.
      labels: names of the l labels; "left" and "right" in them are exchanged by a flip.

    Raises InputError where a flip would need the other side of a label and there is none, and
    the augmentation does so for quarter turns of an image that is not square.
    """
    if config == AugmentConfig():
        return None
    order = side_swap(labels) if config.flip else np.arange(len(labels))

    def augment(example: Example, key: jax.Array) -> Example:
        flip_key, turn_key, move_key, grey_key = jax.random.split(key, 4)
        if config.flip:
            example = _flip(example, jax.random.bernoulli(flip_key, config.flip), order)
        image = example["image"]
        if config.quarter_turns:
            image = _quarter_turn(image, key=turn_key)
        if config.rotation or config.shift:
            image = _move(image, config, key=move_key)
        if config.intensity:
            image = _grey(image, config.intensity, key=grey_key)
        return {**example, "image": image}

    return augment


def side_swap(labels: Sequence[str]) -> np.ndarray:
    """Returns the order (l,) in which labels stand after left and right are exchanged.

    >>> side_swap(["effusion_right", "effusion_left", "cardiomegaly"])
    array([1, 0, 2])

    Raises InputError for a label of one side whose other side is not among the labels.
    """
    place = {name: i for i, name in enumerate(labels)}
    order = []
    for name in labels:
        other = re.sub(
            r"(?<![A-Za-z])(left|right)(?![A-Za-z])", lambda m: _SIDES[m[0].lower()], name,
            flags=re.IGNORECASE,
        )  # fmt: skip
        if other not in place:
            raise InputError(
                f"The label {name!r} names a side, but {other!r} is not among the labels; add it, "
                "or set augment.flip = 0."
            )
        order.append(place[other])
    return np.asarray(order, int)


def _flip(example: Example, yes: jax.Array, order: np.ndarray) -> Example:
    mirrored = {"image": jnp.flip(example["image"], axis=-2)}
    for name in ("label", "label_mask"):
        if name in example:
            mirrored[name] = example[name][order]
    chosen = {name: jnp.where(yes, value, example[name]) for name, value in mirrored.items()}
    return {**example, **chosen}


def _quarter_turn(image: jax.Array, *, key: jax.Array) -> jax.Array:
    h, w = image.shape[-3:-1]
    if h != w:
        raise InputError(
            f"augment.quarter_turns turns square images, and these are {h} x {w}: set it to False, "
            "or prepare square images."
        )
    half, quarter = jax.random.bernoulli(key, shape=(2,))
    image = jnp.where(half, jnp.flip(image, axis=(-3, -2)), image)
    return jnp.where(quarter, jnp.rot90(image, axes=(-3, -2)), image)


def _move(image: jax.Array, config: AugmentConfig, *, key: jax.Array) -> jax.Array:
    """Returns the image turned about its centre and shifted, alike in every slice and channel."""
    turn_key, shift_key = jax.random.split(key)
    h, w = image.shape[-3:-1]
    angle = jnp.deg2rad(jax.random.uniform(turn_key, (), minval=-1, maxval=1) * config.rotation)
    shift = jax.random.uniform(shift_key, (2,), minval=-1, maxval=1) * config.shift
    y = jnp.arange(h)[:, None] - (h - 1) / 2 - shift[0] * h
    x = jnp.arange(w)[None, :] - (w - 1) / 2 - shift[1] * w
    rows = jnp.cos(angle) * y + jnp.sin(angle) * x + (h - 1) / 2
    columns = jnp.cos(angle) * x - jnp.sin(angle) * y + (w - 1) / 2
    planes = jnp.moveaxis(image, -1, 0).reshape(-1, h, w)
    sample = lambda plane: map_coordinates(plane, (rows, columns), order=1)
    moved = jax.vmap(sample)(planes).reshape(image.shape[-1], *image.shape[:-1])
    return jnp.moveaxis(moved, 0, -1)


def _grey(image: jax.Array, strength: float, *, key: jax.Array) -> jax.Array:
    gain, offset = jax.random.uniform(key, (2,), minval=-strength, maxval=strength)
    return jnp.clip(image * (1 + gain) + offset, 0, 1)
