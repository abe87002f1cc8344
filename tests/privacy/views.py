"""A classifier whose views of one image disagree, and its clipped sum in a loop.

The loss is that of `methods.classifier`; its network is one linear layer, which compiles at once.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from jaxfair.methods import classifier
from jaxfair.methods.classifier import ClassifierConfig

__all__ = ["BATCH", "KEYS", "MASK", "PARAMS", "inverted", "looped", "loss_of"]

N = 4
_RNG = np.random.default_rng(0)
BATCH = {
    "image": jnp.asarray(_RNG.random((N, 8, 8, 1)), jnp.float32),
    "label": jnp.asarray(_RNG.random((N, 2)) < 0.5, jnp.float32),
}
KEYS = jax.random.split(jax.random.key(1), N)
MASK = jnp.asarray([True, True, False, True])
PARAMS = {"head": jnp.asarray(_RNG.normal(size=(64, 2)) / 8, jnp.float32)}


def inverted(example, key):
    """One view of three is of the opposite labels, so that gradients of views point apart."""
    image_key, label_key = jax.random.split(key)
    image = example["image"] * jax.random.uniform(image_key, minval=0.2)
    other = jax.random.bernoulli(label_key, 1 / 3)
    return {"image": image, "label": jnp.where(other, 1 - example["label"], example["label"])}


def logits(params, frozen, batch):
    return batch["image"].reshape(len(batch["image"]), -1) @ params["head"]


def loss_of(views, augment=inverted):
    """Returns the loss `(params, example, key)` of one example with so many views."""
    config = ClassifierConfig(("a", "b"), multiplicity=views)
    loss = functools.partial(classifier._loss, config, logits, augment)
    return lambda params, example, key: loss(params, {}, example, key)[0]


def looped(views, clip):
    """Returns the sum over units of the mean over views of gradients, each mean clipped once.

    The slow truth in float64: one unit and one view after the other, by a loss of one image that
    knows of no views.
    """
    grad = jax.jit(jax.grad(loss_of(1, augment=None)))
    total, bound = np.zeros(PARAMS["head"].shape), 0
    for i in np.flatnonzero(MASK):
        example = jax.tree.map(lambda a, i=i: a[i], BATCH)
        keys = jax.random.split(KEYS[i], views)
        drawn = [grad(PARAMS, inverted(example, key), key)["head"] for key in keys]
        mean = np.mean(np.asarray(drawn, np.float64), axis=0)
        bound += np.linalg.norm(mean) > clip
        total += min(1.0, clip / np.linalg.norm(mean)) * mean
    assert bound  # somebody is clipped
    return total
