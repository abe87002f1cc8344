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

from jaxfair import privacy as dp

x = np.random.default_rng(0).normal(size=(500, 3)).astype("float32")  # a row is a patient
y = x @ np.array([1.0, -2.0, 0.5], "float32")
loss_fn = lambda w, example, key: (example["x"] @ w - example["y"]) ** 2
promise = dp.PrivacyConfig(epsilon=4.0, l2_clip_norm=1.0)
plan = dp.make_plan(promise, steps=40, expected_batch_size=50, public_size=500)
folder, optimizer, w = pathlib.Path(tempfile.mkdtemp()), optax.adam(0.1), jnp.zeros(3)
secret, ledger = dp.create_secret(folder / "secret"), plan.open_ledger(folder / "ledger.jsonl")
about = {"stage": "train", "population": "made up", "draws": secret}
state, sums = optimizer.init(w), jax.jit(dp.clipped_sum, static_argnums=0)
keys = jax.random.split(jax.random.key(0), len(x))  # this loss draws nothing from them
plan.charge(ledger, **about, first_step=0, steps=plan.steps)  # all of them, before any draw
for step in range(plan.steps):
    drawn = plan.draw(secret, step, np.full(len(x), -1))
    mask, rows = np.arange(len(x)) < len(drawn), np.resize(drawn, len(x))  # one shape for all
    batch = {"x": x[rows], "y": y[rows]}  # what the mask leaves out is padding
    total = sums(loss_fn, w, batch, keys, mask, l2_clip_norm=plan.l2_clip_norm)
    noise = dp.gaussian_like(total, dp.noise_key_data(secret, step, 1), plan.noise_stddev())
    updates, state = optimizer.update((total + noise) / plan.expected_batch_size, state)
    w = optax.apply_updates(w, updates)
print(f"epsilon {plan.statement(ledger, plan.steps)['epsilon']:.2f}, w {np.round(w, 2)}")
