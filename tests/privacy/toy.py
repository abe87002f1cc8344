"""Methods of a few weights, plans with a chosen noise, and draws pushed through the real step.

Sampler, feed, loader, step and noise are the package's own; only the loss is a toy. The
recording optimiser keeps each noisy mean as it is, so that nothing is lost to an update.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxfair.engine.assembly import join
from jaxfair.engine.mesh import make_mesh
from jaxfair.engine.population import make_population
from jaxfair.methods.base import Method
from jaxfair.privacy.descent import Earlier, Link
from jaxfair.privacy.plan import PrivacyPlan
from jaxfair.privacy.secret import insecure_secret
from jaxfair.privacy.sums import rounding

C = 0.5
SECRET = insecure_secret(11)
SPEC = {
    "x": jax.ShapeDtypeStruct((36,), np.float32),
    "scale": jax.ShapeDtypeStruct((), np.float32),
}
WILD = [0.0, 1e-30, 1e-10, 1.0, 1e10, 1e30, 3e38, np.nan, np.inf, -np.inf]


def dense_loss(params, frozen, example, key):
    """Two leaves; the gradient is as wild as the example's scale."""
    hidden = jnp.tanh(example["x"] @ params["w"])
    return (example["scale"] * jnp.sum(hidden * params["v"])).astype(jnp.float32), {}


def conv_loss(params, frozen, example, key):
    """A convolution and a dense layer on an image of (6, 6, 1)."""
    numbers = ("NHWC", "HWIO", "NHWC")
    x = example["x"].astype(params["w"].dtype).reshape(1, 6, 6, 1)
    maps = jax.lax.conv_general_dilated(x, params["w"], (1, 1), "SAME", dimension_numbers=numbers)
    hidden = jnp.tanh(maps.astype(jnp.float32)).mean((0, 1, 2))
    return example["scale"] * jnp.sum(hidden * params["v"]), {}


def low_precision_loss(params, frozen, example, key):
    """`dense_loss` with activations in bfloat16."""
    x, w = example["x"].astype(jnp.bfloat16), params["w"].astype(jnp.bfloat16)
    hidden = jnp.tanh(x @ w).astype(jnp.float32)
    return example["scale"] * jnp.sum(hidden * params["v"]), {}


def dropout_loss(params, frozen, example, key):
    """`dense_loss` with half of the hidden units dropped."""
    kept = jax.random.bernoulli(key, 0.5, (3,))
    hidden = jnp.tanh(example["x"] @ params["w"]) * kept
    return example["scale"] * jnp.sum(hidden * params["v"]), {}


def dense_params():
    rng = np.random.default_rng(0)
    return {
        "w": jnp.asarray(rng.normal(size=(36, 3)) / 6, jnp.float32),
        "v": jnp.asarray(rng.normal(size=3), jnp.float32),
    }


def conv_params():
    rng = np.random.default_rng(0)
    return {
        "w": jnp.asarray(rng.normal(size=(3, 3, 1, 3)), jnp.float32),
        "v": jnp.asarray(rng.normal(size=3), jnp.float32),
    }


def method_of(loss=dense_loss, params=dense_params, **fields):
    return Method("toy", ("task",), lambda key, spec: (params(), {}), loss, lambda *a: {}, **fields)


def examples_of(scales, seed=0):
    """One example per scale: x (36,) normal, scale the given one."""
    x = np.random.default_rng(seed).normal(size=(len(scales), 36)).astype(np.float32)
    return {"x": x, "scale": np.asarray(scales, np.float32)}


def plan_of(sigma=0.0, *, clip=C, prob=1.0, batch=4, clipping="vmap", **fields):
    """A private plan, not padded, for speed; sigma 0 adds exactly zero, which tests need."""
    fields = {"steps": 4, "delta": 1e-5, "budget": 8.0, "epsilon": 8.0, "epsilon_rdp": 8.0} | fields
    fields = {"public_size": 100, "padded_draws": False} | fields
    return PrivacyPlan(
        private=True, sampling_prob=prob, expected_batch_size=batch,
        l2_clip_norm=clip, noise_multiplier=sigma, clipping=clipping, **fields,
    )  # fmt: skip


def recorder():
    """An optimiser whose state is the last noisy mean, and which never moves the parameters."""
    zeros = lambda tree: jax.tree.map(jnp.zeros_like, tree)
    return optax.GradientTransformation(
        zeros, lambda grads, state, params=None: (zeros(grads), grads)
    )


@dataclasses.dataclass
class Bench:
    """A Method, a plan and a mesh, with the compiled step."""

    method: Method = dataclasses.field(default_factory=method_of)
    plan: PrivacyPlan = dataclasses.field(default_factory=plan_of)
    devices: int = 1
    microbatch: int = 4
    chunk: int = 8
    optimizer: optax.GradientTransformation = dataclasses.field(default_factory=recorder)

    def __post_init__(self):
        self.mesh = make_mesh(self.devices)
        self.assembly = join(
            self.plan,
            self.method,
            self.optimizer,
            spec=SPEC,
            variables=self.method.init(None, None),
            microbatch=self.microbatch,
            mesh=self.mesh,
        )
        self.params, self.frozen = self.assembly.params, self.assembly.frozen
        self.step = self.assembly.step

    def start(self):
        return self.assembly.begin()

    def feed(self, examples, *, rows=None, names=None, prob=None, secret=SECRET):
        """The feed of a population with these examples, one per unit unless `rows` say else."""
        count = len(next(iter(examples.values())))
        rows = [np.array([i]) for i in range(count)] if rows is None else rows
        names = [f"unit {i}" for i in range(len(rows))] if names is None else names
        fields = {name: (lambda at, a=a: a[at]) for name, a in examples.items()}
        made = self.assembly.feed(secret, make_population(names, rows), fields)
        made = made._replace(chunk_size=self.chunk)
        return made if prob is None else with_prob(made, prob)

    def train(self, source, *, first=0, steps=1, state=None):
        """Runs steps of a feed; returns (state, one dict of released values per step)."""
        state, seen = state or self.start(), []
        for chunk, randomness, is_last in source.chunks(first, steps):
            state, released = self.assembly.update(state, chunk, randomness, is_last=is_last)
            int(state.step)
            if is_last:
                seen.append({name: np.asarray(v) for name, v in released.items()})
        return state, seen

    def clipped_sum(self, examples, **feeding):
        """The flat float64 clipped sum of one draw, in float32 whatever the parameters are."""
        state = self.start()
        for chunk, randomness, _ in self.feed(examples, **feeding).chunks(0, 1):
            state, _ = self.assembly.update(state, chunk, randomness, is_last=False)
            int(state.step)  # as a run does: hundreds of collectives at once abort on few cores
        return flat64(state.clipped_sum)

    def noisy_sum(self, examples, **feeding):
        """The flat float64 noisy sum of one step; with sigma 0 it is the clipped sum."""
        state, _ = self.train(self.feed(examples, **feeding))
        return flat64(state.opt_state) * self.plan.expected_batch_size


def earlier_of(entries, **words):
    """What a run takes over that begins with a private one of these ledger lines."""
    lines = len(tuple(entries))
    told = {"units": ("image",), "grade": "private", "noise_source": "os", "data": "real"}
    told |= {"selection": "independent", "delta": 1e-5, "folder": "before"} | words
    return Earlier(entries=tuple(entries), chain=(Link("0" * 64, lines, 1),), **told)


def with_prob(feed, prob):
    """The feed with another sampling probability, 0 included, which no plan can have."""
    return feed._replace(plan=dataclasses.replace(feed.plan, sampling_prob=prob))


def without(examples, place):
    return {name: np.delete(values, place, axis=0) for name, values in examples.items()}


def flat64(tree):
    leaves = [np.asarray(leaf, np.float64).ravel() for leaf in jax.tree.leaves(tree)]
    return np.concatenate([np.empty(0), *leaves])


def looped(bench, examples, clip=C):
    """The slow truth: gradients one example at a time, clipped and added in float64."""
    grad = jax.jit(jax.grad(lambda p, e: bench.method.loss(p, {}, e, None)[0]))
    clip = rounding.bound(clip, bench.plan.max_draw)
    total = np.zeros(len(flat64(bench.params)))
    for i in range(len(examples["scale"])):
        g = flat64(grad(bench.params, {name: a[i] for name, a in examples.items()}))
        norm = np.linalg.norm(g)
        total += g * min(1.0, clip * (1 - 2.0**-12) / norm) if norm > 0 else 0
    return total
