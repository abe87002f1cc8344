"""How the Methods of the studies of gaps are trained: shared by all arms of a table."""

import math
from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict

from jaxfair.experiment import experiment
from jaxfair.methods.catalog import METHODS

__all__ = ["DETECTORS", "METHODS_OF", "config_of", "detectors", "rate_of"]

Section = Mapping[str, Any]

DETECTORS = ("fae", "gaussian", "pca", "deepsvdd", "reverse_distillation", "ssim_ae")
"""Names under which detectors of anomalies may stand in METHODS."""

DIMS = {"quick": (25, 50), "default": (25, 50, 75, 100), "full": (100, 150, 200, 300)}
"""Blocks of the autoencoder; those of the default and the full size have 1.47 and 10.3 million
parameters."""

METHODS_OF: dict[str, dict[str, Any]] = {
    "fae": {"feature_dtype": "bfloat16"},
    "classifier": {"backbone": "features"},
}
"""What of the section `method` differs from the defaults."""

TRAININGS: dict[str, dict[str, Section]] = {
    "fae": {
        "optim": {"name": "adam", "learning_rate": 1e-3},
        "dp": {"l2_clip_norm": 0.01, "microbatch": 16},
        "train": {"steps": 40, "expected_batch_size": 32},
    },
    "heads": {
        "optim": {"name": "nadam", "learning_rate": 1e-3},
        "dp": {"l2_clip_norm": 1.0, "microbatch": 256},
        "train": {"steps": 120, "expected_batch_size": 512},
    },
    "probe": {
        "optim": {"name": "sgd", "learning_rate": 4.0, "momentum": 0.9},
        "dp": {"l2_clip_norm": 1.0, "microbatch": 512},
        "train": {"steps": 60, "expected_batch_size": 1_000},
    },
}
"""By kind; none averages its parameters, which is a mitigation of its own."""

KIND = {"classifier": "heads", "linear_probe": "probe"}
STRETCHES = 5
"""A run is saved, and its steps are timed, so many times."""


def detectors() -> tuple[str, ...]:
    """Returns those of DETECTORS that there are."""
    return tuple(name for name in DETECTORS if name in METHODS)


def rate_of(method: str) -> float:
    """Returns the learning rate of a Method's shared training."""
    return float(TRAININGS[KIND.get(method, "fae")]["optim"]["learning_rate"])


def config_of(
    name: str,
    method: str,
    data: Section,
    *,
    epsilon: float,
    seed: int,
    size: str,
    mitigation: Section | None = None,
    changes: Section | None = None,
    tried: int = 1,
) -> ConfigDict:
    """Returns the config of one run.

    Args:
      name: of the run.
      method: key of METHODS.
      data: the section `data`.
      epsilon: inf is without privacy.
      seed: of the training.
      size: "quick", "default" or "full".
      mitigation: the section `mitigation`; None for none.
      changes: flat field -> value, as {"optim.learning_rate": 0.1}, the last word.
      tried: settings that were compared for this one, `dp.tuning_runs`.
    """
    shared = TRAININGS[KIND.get(method, "fae")]
    train = dict(shared["train"])
    if size == "full" and method in DETECTORS:
        train |= {"steps": 1_000, "expected_batch_size": 256}
    if size == "quick":
        train["steps"] = max(STRETCHES, train["steps"] // 3)
    train["checkpoint_every"] = math.ceil(train["steps"] / STRETCHES)
    own = dict(METHODS_OF.get(method, {}))
    if method == "fae":
        own["hidden_dims"] = DIMS[size]
    private = math.isfinite(epsilon)
    promise = {**shared["dp"], "enabled": private, "tuning_runs": tried}
    config = experiment(
        name,
        data=data,
        method={"name": method, **own},
        optim=shared["optim"],
        dp={**promise, **({"epsilon": epsilon} if private else {})},
        train=train,
        mitigation=mitigation,
    )
    config.seed = seed
    config.update_from_flattened_dict(dict(changes or {}))
    most = max(1, int(config.data.public_size) // 3)
    config.train.expected_batch_size = min(config.train.expected_batch_size, most)
    return config
