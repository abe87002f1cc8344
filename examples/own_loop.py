"""A private training in a loop of one's own: it pays by itself, and may stop early.

python examples/own_loop.py     # about 10 seconds on two cores
"""

import tempfile

import numpy as np
import optax

import jaxfair

rng = np.random.default_rng(0)
x = rng.normal(size=(1000, 4)).astype("float32")
arrays = {"x": x, "y": x @ np.array([1.0, -2.0, 0.5, 0.0], "float32")}


def loss_fn(w, example, key):
    """The squared error of ONE example."""
    return (example["x"] @ w - example["y"]) ** 2


with tempfile.TemporaryDirectory() as folder:
    trainer = jaxfair.open_fit(
        loss_fn, np.zeros(4, "float32"), arrays, patient=np.arange(1000), epsilon=4.0,
        public_size=1000, steps=80, expected_batch_size=100, optimizer=optax.adam(0.1),
        folder=folder, save_every=10, progress=False,
    )  # fmt: skip
    with trainer:  # left without an error, it writes privacy.json
        for released in trainer.steps():
            print(f"step {released.step}: epsilon {released.epsilon:.2f}")
            if released.epsilon > 3.0:  # what is shown is paid for, so it may decide
                break
    print(f"{trainer.statement()['steps']} steps made, w {np.round(released.params, 2)}")
