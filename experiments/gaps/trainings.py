"""How the Methods of the studies of gaps are trained: shared by all arms of a table."""

import math
from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict

from experiments.gaps.sets import SEED
from jaxfair.experiment import experiment
from jaxfair.methods.catalog import METHODS

__all__ = [
    "DETECTORS",
    "METHODS_OF",
    "SETTLED",
    "SUMS",
    "budget_of",
    "config_of",
    "detectors",
    "same_for_all_seeds",
    "tried_of",
]

Section = Mapping[str, Any]

DETECTORS = ("fae", "gaussian", "pca", "deepsvdd", "reverse_distillation", "ssim_autoencoder")
"""Names under which detectors of anomalies may stand in METHODS."""

SUMS = ("gaussian", "pca")
"""Detectors that add up a second moment of all patients (q = 1) and train no network. The noise of
all their steps together is that of one, so that few steps are as good as many."""

NUMBERS = {math.inf: 32, 8.0: 16, 4.0: 16, 2.0: 12, 1.0: 8, 0.5: 8}
"""Epsilon -> numbers of an image in SUMS: the more there are, the less budget each has. Those at 8
and 1 were found on drawn films of seed 0, the others by analogy. PCA takes half for normal."""

SETTLED = (
    "Settings of the trainings (networks, steps, batches, learning rates, clip norms, and how many "
    "numbers of an image Gaussian and PCA add up at each epsilon) were constants before this study "
    "began, some of them found by the test AUROC on PHANTOM films of seed 0; those are other drawn "
    f"people than the films of seed {SEED} that train and test here, and no setting was chosen on "
    "anybody who is tested here."
)
"""What a page says of constants; that arms choose among settings on validation images is beside."""

RATES = (1.0, 1 / 3, 3.0)

BLOCKS = {"quick": (25, 50), "default": (25, 50, 75, 100), "full": (100, 150, 200, 300)}
"""Blocks of the autoencoder; those of the default and the full size have 1.47 and 10.3 million
parameters."""

METHODS_OF: dict[str, dict[str, Any]] = {
    "fae": {"feature_dtype": "bfloat16"},
    "deepsvdd": {"hidden_dims": (8, 16, 32, 64), "dims": 32},
    "reverse_distillation": {"feature_dtype": "bfloat16", "width": 16},
    "ssim_autoencoder": {"hidden_dims": (8, 16, 32, 64)},
    "classifier": {"backbone": "features"},
}
"""What of the section `method` differs from the defaults; of the detectors beside the autoencoder
as in configs/rsna_detectors.py, whose large forms the full size takes."""

LARGE: dict[str, dict[str, Any]] = {
    "deepsvdd": {},
    "reverse_distillation": {"feature_dtype": "bfloat16"},
    "ssim_autoencoder": {},
}

TRAININGS: dict[str, dict[str, Section]] = {
    "fae": {
        "optim": {"name": "adam", "learning_rate": 1e-3},
        "dp": {"l2_clip_norm": 0.01, "microbatch": 16},
        "train": {"steps": 40, "expected_batch_size": 32},
    },
    "sums": {  # the rate is that of METHODS[...].parts, which adds up
        "optim": {"name": "sgd", "learning_rate": 1.0},
        "dp": {"l2_clip_norm": 1.0, "microbatch": 128},
        "train": {"steps": 15},
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

KIND = {"classifier": "heads", "linear_probe": "probe"} | dict.fromkeys(SUMS, "sums")
STRETCHES = 5
"""A run is saved, and its steps are timed, so many times."""


def detectors() -> tuple[str, ...]:
    """Returns those of DETECTORS that there are."""
    return tuple(name for name in DETECTORS if name in METHODS)


def budget_of(method: str, size: str) -> int:
    """Returns how many settings each arm of a Method tries: the same for all arms of a table.

    Detectors share tables with the autoencoder, whose runs are the longest: in the default size
    they are trained with their first setting, so that there is time for five seeds.
    """
    return {"quick": 1, "default": 1 if method in DETECTORS else 2, "full": 3}[size]


def same_for_all_seeds(method: str, epsilon: float) -> bool:
    """Returns whether a training has nothing random: sums of all patients, without noise."""
    return method in SUMS and epsilon == math.inf


def tried_of(method: str) -> tuple[Section, ...]:
    """Returns the flat fields that arms of a Method try which have no number of their own.

    Rates of the shared training; of SUMS, which take no rate, the numbers of an image.
    """
    if method in SUMS:
        found = [_numbers(method, count) for count in (16, 8, 32)]
        return tuple({f"method.{name}": v for name, v in own.items()} for own in found)
    rate = TRAININGS[KIND.get(method, "fae")]["optim"]["learning_rate"]
    return tuple({"optim.learning_rate": rate * factor} for factor in RATES)


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
    promise = {**shared["dp"], "enabled": math.isfinite(epsilon), "tuning_runs": tried}
    config = experiment(
        name,
        data=data,
        method={"name": method, **_network(method, size, epsilon)},
        optim=shared["optim"],
        dp={**promise, **({"epsilon": epsilon} if math.isfinite(epsilon) else {})},
        train=_train(method, size),
        mitigation=mitigation,
    )
    config.seed = seed
    config.update_from_flattened_dict(dict(changes or {}))
    people = int(config.data.public_size)
    most = people if method in SUMS else max(1, people // 3)
    config.train.expected_batch_size = min(config.train.expected_batch_size, most)
    return config


def _network(method: str, size: str, epsilon: float) -> dict[str, Any]:
    """What differs from the defaults of the section `method`."""
    if method == "fae":
        return {**METHODS_OF["fae"], "hidden_dims": BLOCKS[size]}
    if method in SUMS:
        return _numbers(method, NUMBERS[epsilon])
    return dict((LARGE if size == "full" else {}).get(method, METHODS_OF.get(method, {})))


def _numbers(method: str, count: int) -> dict[str, Any]:
    return {"dims": count} | ({"directions": count // 2} if method == "pca" else {})


def _train(method: str, size: str) -> dict[str, Any]:
    """The section `train`, saved STRETCHES times; sums once a pass: saves took half their time."""
    if method in SUMS:
        everybody = {"expected_batch_size": 10**9}  # cut to who there is
        return {**TRAININGS["sums"]["train"], **everybody, "checkpoint_every": 5}
    train = dict(TRAININGS[KIND.get(method, "fae")]["train"])
    if size == "full" and method in DETECTORS:
        train |= {"steps": 1_000, "expected_batch_size": 256}
    if size == "quick":
        train["steps"] = max(STRETCHES, train["steps"] // 3)
    return train | {"checkpoint_every": math.ceil(train["steps"] / STRETCHES)}
