"""Trains a Flax model of one's own with differential privacy for each patient.

python examples/own_model.py     # about 15 seconds on two cores
"""

import tempfile

import flax.linen as nn
import jax
import numpy as np
import optax

import jaxfair

rng = np.random.default_rng(0)
x = rng.normal(size=(2000, 8)).astype("float32")
y = (x[:, 0] > x[:, 1]).astype("float32")
patient = np.arange(2000) // 2  # two rows of each of 1,000 patients

model = nn.Sequential([nn.Dense(16), nn.tanh, nn.Dense(1)])
params = model.init(jax.random.key(0), x[0])


def loss_fn(params, example, key):
    """The loss of ONE example; `key` is for dropout and the like."""
    return optax.sigmoid_binary_cross_entropy(model.apply(params, example["x"])[0], example["y"])


with tempfile.TemporaryDirectory() as folder:
    result = jaxfair.fit_private(
        loss_fn, params, {"x": x, "y": y}, patient=patient, epsilon=3.0, public_size=1000,
        steps=60, expected_batch_size=100, optimizer=optax.adam(0.02), folder=folder,
    )  # fmt: skip
right = (model.apply(result.params, x)[:, 0] > 0) == y
print(f"epsilon {result.privacy['epsilon']:.2f}, accuracy {right.mean():.2f}")
