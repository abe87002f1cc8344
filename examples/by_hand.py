"""The pieces joined by hand with optax: pay, draw, clip, add noise, divide, update, state.

Yours are then: pay before you draw, draw by the plan alone, divide by the expected batch size.

python examples/by_hand.py     # about 10 seconds on two cores
"""

import pathlib
import tempfile

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxfair.privacy.noise import gaussian_like, noise_key_data
from jaxfair.privacy.plan import PrivacyConfig, make_plan
from jaxfair.privacy.secret import create_secret
from jaxfair.privacy.sums.fast import clipped_sum

x = np.random.default_rng(0).normal(size=(500, 3)).astype("float32")  # a row is a patient
y = x @ np.array([1.0, -2.0, 0.5], "float32")
loss_fn = lambda w, example, key: (example["x"] @ w - example["y"]) ** 2
plan = make_plan(PrivacyConfig(epsilon=4.0), steps=40, expected_batch_size=50, public_size=500)
folder, optimizer, w = pathlib.Path(tempfile.mkdtemp()), optax.adam(0.1), jnp.zeros(3)
secret, ledger = create_secret(folder / "secret"), plan.open_ledger(folder / "ledger.jsonl")
about = {"stage": "train", "population": "made up", "draws": secret.tag("draws", "")}
state, sums = optimizer.init(w), jax.jit(clipped_sum, static_argnums=0)
keys = jax.random.split(jax.random.key(0), len(x))  # this loss draws nothing from them
plan.charge(ledger, **about, first_step=0, steps=plan.steps)  # all of them, before any draw
for step in range(plan.steps):
    drawn = plan.draw(secret, step, np.full(len(x), -1))
    mask, rows = np.arange(len(x)) < len(drawn), np.resize(drawn, len(x))  # one shape for all
    batch = {"x": x[rows], "y": y[rows]}  # what the mask leaves out is padding
    total = sums(loss_fn, w, batch, keys, mask, l2_clip_norm=plan.l2_clip_norm)
    noise = gaussian_like(total, noise_key_data(secret, step, 1), plan.noise_stddev())
    updates, state = optimizer.update((total + noise) / plan.expected_batch_size, state)
    w = optax.apply_updates(w, updates)
print(f"epsilon {plan.statement(ledger, plan.steps)['epsilon']:.2f}, w {np.round(w, 2)}")
