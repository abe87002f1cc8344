"""Which way each leaf of a model goes under fast clipping, and how far that is from a loop.

python examples/check_model.py     # about 10 seconds on two cores
"""

import flax.linen as nn
import jax
import numpy as np
import optax

import jaxfair


class Net(nn.Module):
    """A small convolutional network with a GroupNorm."""

    @nn.compact
    def __call__(self, image):
        """Returns 2 logits of one (16, 16, 1) image."""
        x = nn.relu(nn.GroupNorm(num_groups=2)(nn.Conv(4, (3, 3))(image[None])))
        return nn.Dense(2)(x.mean((1, 2)))[0]


model = Net()
image = np.random.default_rng(0).normal(size=(16, 16, 1)).astype("float32")  # made up
params = model.init(jax.random.key(0), image)


def loss_fn(params, example, key):
    """The loss of ONE example."""
    logits = model.apply(params, example["image"])
    return optax.softmax_cross_entropy_with_integer_labels(logits, example["label"])


found = jaxfair.selfcheck(loss_fn, params, {"image": image, "label": np.int32(1)})
print(found)
print(f"largest difference {found.difference:.1e}")
