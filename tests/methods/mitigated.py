"""A network of a few weights with a norm and a head, under each mitigation, stage by stage."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from jaxfair.methods.base import Method
from jaxfair.methods.labels import label_loss, label_scores
from jaxfair.methods.mitigations import clips
from jaxfair.methods.mitigations.averaging import Averaging
from jaxfair.methods.mitigations.catalog import clip_rule, mitigated
from jaxfair.methods.mitigations.counts import NoisyCounts
from jaxfair.methods.mitigations.dro import GroupDRO
from jaxfair.methods.mitigations.finetune import FineTune
from jaxfair.methods.mitigations.head import BalancedHead, RefitHead
from jaxfair.methods.mitigations.jtt import TrainTwice
from jaxfair.methods.mitigations.norms import GroupNorms
from jaxfair.methods.mitigations.sizes import ModelSize
from jaxfair.methods.mitigations.upsampling import Upsampling
from jaxfair.methods.mitigations.weights import GroupWeights
from jaxfair.methods.mitigations.whom import Balance, Composition, CoreSet, DataSize

__all__ = [
    "ACTING",
    "ATTRIBUTES",
    "BATCH",
    "CASES",
    "CLIPS",
    "FITS",
    "PLAIN",
    "QUICK",
    "SEX",
    "SPEC",
    "N",
    "loss_of",
    "moved",
    "stages",
]

N = 9
QUICK = {"xla_backend_optimization_level": 0}
"""Compiled for a few calls."""

TASKS = ("a", "b")
ATTRIBUTES = {"sex": 2, "view": 2}
SPEC = {
    "x": jax.ShapeDtypeStruct((3,), np.float32),
    "label": jax.ShapeDtypeStruct((2,), np.float32),
    "label_mask": jax.ShapeDtypeStruct((2,), np.bool_),
    "group": jax.ShapeDtypeStruct((2,), np.int32),
}
SEX = {"by": ("sex",), "attributes": ATTRIBUTES}
CASES = {
    "group_weights": GroupWeights(**SEX, weights=(2.0, 0.5)),
    "group_norms": GroupNorms(**SEX, drop=0.25),
    "group_dro": GroupDRO(**SEX, rate=0.5),
    "jtt": TrainTwice(weight=4.0, share=0.5),
    "balanced_head": BalancedHead(**SEX, shares=(0.6, 0.1, 0.2, 0.1), share=0.5),
    "composition": Composition(**SEX, keep=(1.0, 0.5)),
    "balance": Balance(**SEX, shares=(0.7, 0.3)),
    "upsampling": Upsampling(**SEX, factors=(3.0, 1.0)),
    "fine_tune": FineTune(**SEX, chosen=(1,), share=0.5),
    "core_set": CoreSet(where=("view=PA",)),
    "data_size": DataSize(portion=0.5),
    "model_size": ModelSize("small"),
    "averaging": Averaging("late"),
    "refit_head": RefitHead(share=0.5),
    "noisy_counts": NoisyCounts(**SEX, label="a", labels=TASKS),
}
CLIPS = {
    "quantile_clip": clips.QuantileClip(quantile=0.7, rate=0.5),
    "bounded_clip": clips.BoundedClip(rate=0.5, lowest=0.8),
    "soft_clip": clips.SoftClip(rate=0.5),
    "global_clip": clips.GlobalClip(rate=0.2, first=2.0),
    "group_clip": clips.GroupClip(**SEX, memory=0.5),
    "normalised_clip": clips.NormalisedClip(gamma=0.1),
    "weights_after_clip": clips.WeightsAfterClip(**SEX, weights=(2.0, 0.5)),
}
"""Mitigations that change the private step and no Method."""


def init(key, spec):
    draw = lambda n, *shape: jax.random.normal(jax.random.fold_in(key, n), shape)
    norm = {"scale": jnp.ones(4), "bias": jnp.zeros(4)}
    head = {"kernel": draw(1, 4, 2), "bias": jnp.zeros(2)}
    return {"body": {"kernel": draw(0, 3, 4), "norm": norm}, "head": head}, {"shift": jnp.ones(3)}


def logits(params, frozen, x):
    """x (b, 3) -> (b, 2)."""
    hidden, norm = (x - frozen["shift"]) @ params["body"]["kernel"], params["body"]["norm"]
    hidden = jnp.tanh(hidden * norm["scale"] + norm["bias"])
    return hidden @ params["head"]["kernel"] + params["head"]["bias"]


def loss(params, frozen, example, key):
    noisy = example["x"] + 0.1 * jax.random.normal(key, (3,))
    views = jax.tree.map(lambda a: a[None], example)
    return label_loss(logits(params, frozen, noisy[None]), views, "multi-label"), {}


def score(params, frozen, batch):
    return label_scores(logits(params, frozen, batch["x"]), TASKS, "multi-label")


PLAIN = Method("small", TASKS, init, loss, score)
ACTING = [name for name in CASES if mitigated(name, CASES[name], PLAIN) is not PLAIN]
"""Those that change the Method; the others change who trains, or with what, and not the loss."""
FITS = [name for name in ACTING if name != "group_dro"]
"""Those whose loss is one of the example alone; the plain form of group DRO is of a batch."""


def _batch():
    rng = np.random.default_rng(3)
    label = rng.integers(0, 2, (N, 2)).astype(np.float32)
    label[4, 0] = np.nan
    group = np.array([0, 1, -1])[np.arange(N) % 3]
    return {
        "x": jnp.asarray(rng.normal(size=(N, 3)), jnp.float32),
        "label": jnp.asarray(label),
        "label_mask": jnp.ones((N, 2), bool).at[5].set(False),
        "group": jnp.stack([jnp.asarray(group, jnp.int32), jnp.zeros(N, jnp.int32)], axis=1),
    }


BATCH = _batch()
"""Groups 0, 1 and unknown in turn; example 4 lacks one label and example 5 both."""


def moved(params, seed):
    """Parameters after a made-up training: every leaf elsewhere, rows of tables apart."""
    leaves, structure = jax.tree.flatten(params)
    keys = jax.random.split(jax.random.key(seed), len(leaves))
    draws = [p + jax.random.normal(k, p.shape) for p, k in zip(leaves, keys)]
    return jax.tree.unflatten(structure, draws)


def told(name):
    """What a mitigation's clip rule tells the Method, in made-up numbers; {} for none."""
    rule = clip_rule(name, CASES[name])
    inputs = rule.method_inputs(rule.init()) if rule and rule.method_inputs else {}
    return {key: 0.5 + jnp.arange(len(value)) / 2 for key, value in inputs.items()}


@functools.cache
def stages(name):
    """Returns [(Method, params, frozen)]: every stage of PLAIN under a mitigation, in order."""
    method = mitigated(name, CASES[name], PLAIN)
    params, frozen = method.init(jax.random.key(0), SPEC)
    frozen |= told(name)
    found = [(method, moved(params, 1), frozen)]
    for stage in method.stages:
        before = found[-1]
        params, frozen = stage.begin(before[1], before[2], jax.random.key(2), SPEC)
        found.append((stage.method, moved(params, 3), frozen))
    return found


def loss_of(method, frozen):
    return lambda params, example, key: method.loss(params, frozen, example, key)[0]
