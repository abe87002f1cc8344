"""What may leave a run: the one list. Nothing is written to a channel but through `allowed`.

A private run may show public constants, what the ledger paid, and functions of the noisy mean
or the parameters. Losses, norms before the noise, shares of clipped examples, sizes of draws,
counts of anybody and the time that a step takes all tell something about patients. A run
without privacy passes the same list.
"""

import fnmatch
import math
from collections.abc import Mapping
from typing import Any

from jaxfair.errors import InputError
from jaxfair.schema import COUPLED, INDEPENDENT, PHANTOM, PRECISIONS, REAL, UNITS

__all__ = [
    "ADDED",
    "CHANNELS",
    "CLAIMS",
    "SCHEMA",
    "Line",
    "ReleaseError",
    "allowed",
    "fits_schema",
    "is_about_people",
    "line",
]

METRICS = {
    "epsilon": "what the ledger has paid, from public constants alone",
    "noisy_mean_norm": "a function of the noisy mean",
    "params_norm": "a function of the parameters",
    "step": "draws completed, a public count",
}
PROGRESS = {
    "budget": "the epsilon that was asked for",
    "epsilon": METRICS["epsilon"],
    "name": "what the config calls the run",
}
EVALUATION = {"auroc/*": "of validation and test patients, whom the guarantee does not cover"}
CHECKPOINT = {
    "ledger_head": "hash of the ledger's last line",
    "ledger_length": "lines of the ledger",
    "opt_state": "a function of the noisy means",
    "params": "a function of the noisy means",
    "parameters_digest": "a function of all that a checkpoint holds",
    "rule_state": "a function of answers to side queries after their noise",
    "step": METRICS["step"],
}

_NUMBER, _COUNT, _TEXT = (int, float), int, str
SCHEMA: dict[str, Any] = {
    "accountant": dict,
    "budget": _NUMBER,
    "clip_margin": _NUMBER,
    "config_digest": _TEXT,
    "covered": _TEXT,
    "data": (PHANTOM, REAL),
    "delta": _NUMBER,
    "earlier": dict,
    "epsilon": _NUMBER,
    "epsilon_rdp": _NUMBER,
    "events": list,
    "expected_batch_size": _COUNT,
    "gaussian_mu": _NUMBER,
    "grade": ("private", "research", "none"),
    "group_sampling": list,
    "inherited": _COUNT,
    "joint_noise_multiplier": _NUMBER,
    "l2_clip_norm": _NUMBER,
    "ledger_head": _TEXT,
    "noise_multiplier": _NUMBER,
    "noise_source": ("os", "insecure_seed", None),
    "metrics_digest": _TEXT,
    "not_covered": list,
    "padded_to": (int, type(None)),
    "parameters_digest": _TEXT,
    "population": _TEXT,
    "precision": PRECISIONS,
    "public_size": _COUNT,
    "queries": list,
    "relation": ("add_or_remove_one", "replace_one"),
    "released": list,
    "sampler": ("poisson",),
    "sampling_prob": _NUMBER,
    "seed": _COUNT,
    "selection": (INDEPENDENT, COUPLED),
    "stages": dict,
    "steps": _COUNT,
    "true_positive_rates": dict,
    "tuning": dict,
    "unit": UNITS,
}
"""Keys of privacy.json: a type, or the values that are allowed. Claims are null without privacy.
The digests are of what is released anyway: parameters with their optimiser, and metrics.jsonl."""

ADDED = (
    ("clip_margin", "precision"),
    ("gaussian_mu", "true_positive_rates"),
    ("earlier", "metrics_digest", "padded_to", "parameters_digest"),
    ("group_sampling", "joint_noise_multiplier", "queries"),
)
"""Keys that came together, the newest first: a run that is older lacks all of a line."""

CLAIMS = (
    "budget",
    "clip_margin",
    "delta",
    "epsilon",
    "epsilon_rdp",
    "gaussian_mu",
    "joint_noise_multiplier",
    "l2_clip_norm",
    "noise_multiplier",
    "precision",
)
"""Keys of privacy.json that are null without privacy."""

CHANNELS: dict[str, Mapping[str, Any]] = {
    "metrics.jsonl": METRICS,
    "progress": PROGRESS,
    "board": METRICS,
    "evaluation": EVALUATION,
    "checkpoint": CHECKPOINT,
    "privacy.json": SCHEMA,
}
"""Every channel with its names; `*` stands for any text. "evaluation" is the part of the board
that stands under `not_covered_by_guarantee/` in a private run."""

_PLACES = {
    "metrics.jsonl": "METRICS",
    "progress": "PROGRESS",
    "board": "METRICS",
    "evaluation": "EVALUATION",
    "checkpoint": "CHECKPOINT",
    "privacy.json": "SCHEMA",
}


class ReleaseError(InputError):
    """Something was about to leave a run that is not on the list."""


class Line(str):
    """Text that was made of allowed values, by `line`."""


def allowed(channel: str, values: Mapping[str, Any]) -> dict[str, Any]:
    """Returns `values` as they are, if all of them may leave by `channel`.

    Guarantees: every name is on the channel's list; every value is one number or null (and
    text in the progress line), so that nothing held per example passes; in privacy.json it may
    be lists and tables of such, and has the type that SCHEMA names; only a checkpoint holds arrays.

    Args:
      channel: "metrics.jsonl", "progress", "board", "evaluation", "checkpoint" or
        "privacy.json".
      values: name -> value, of one line, point or file.

    Raises ReleaseError with the channel, the name, what is allowed and where the list is.

    >>> allowed("metrics.jsonl", {"step": 3, "epsilon": 0.5})
    {'step': 3, 'epsilon': 0.5}
    >>> allowed("metrics.jsonl", {"batch_size": 61})  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    ...
    jaxfair.privacy.release.ReleaseError: 'batch_size' may not leave a run by metrics.jsonl...
    """
    names = CHANNELS[channel]
    for name, value in values.items():
        if not any(fnmatch.fnmatchcase(name, pattern) for pattern in names):
            raise ReleaseError(
                f"{name!r} may not leave a run by {channel}, where only {', '.join(names)} are "
                "allowed; if it is a public constant or a function of the noisy mean, add it to "
                f"{_PLACES[channel]} in jaxfair/privacy/release.py."
            )
        if not _fits(channel, name, value):
            raise ReleaseError(
                f"{name!r} may leave a run by {channel} as {_KINDS.get(channel, _SCALAR)} only, "
                f"and it is a {type(value).__name__}; reduce it to what {_PLACES[channel]} in "
                "jaxfair/privacy/release.py allows, from the noisy mean and not from examples."
            )
    return dict(values)


def line(template: str, **values: Any) -> Line:
    """Returns `template` filled with values that may stand in the progress line.

    >>> line("epsilon {epsilon:.2f} of {budget:g}", epsilon=0.5, budget=8.0)
    'epsilon 0.50 of 8'
    """
    return Line(template.format(**allowed("progress", values)))


_SCALAR = "one number or null"
_KINDS = {
    "checkpoint": "anything",
    "privacy.json": "what its schema names",
    "progress": "one number, a text or null",
}


def fits_schema(name: str, value: Any, *, plain: bool) -> bool:
    """Whether `value` has the type, or is one of the values, that SCHEMA names for `name`.

    Args:
      plain: whether claims may be null, as they are in a run without privacy.
    """
    rule = SCHEMA[name]
    if value is None and plain and name in CLAIMS:
        return True
    choices = isinstance(rule, tuple) and not isinstance(rule[0], type)
    return value in rule if choices else isinstance(value, rule) and value is not True


def is_about_people(facts: Mapping[str, Any]) -> bool:
    """Whether these are the words of a population.json, all of them.

    >>> is_about_people({"unit": "patient"})
    False
    """
    names = {"unit", "population", "data", "selection"}
    return facts.keys() == names and all(
        fits_schema(name, value, plain=False) for name, value in facts.items()
    )


def _fits(channel: str, name: str, value: Any) -> bool:
    if channel == "checkpoint":
        return True
    if channel == "privacy.json":
        return _is_json(value) and fits_schema(name, value, plain=True)
    return _is_number(value) or (channel == "progress" and isinstance(value, str))


def _is_number(value: Any) -> bool:
    return value is None or (isinstance(value, int | float) and not isinstance(value, bool))


def _is_json(value: Any) -> bool:
    """Numbers are finite: an infinite claim is null."""
    if isinstance(value, Mapping):
        return all(isinstance(name, str) and _is_json(inner) for name, inner in value.items())
    if isinstance(value, list):
        return all(_is_json(inner) for inner in value)
    return isinstance(value, str) or (_is_number(value) and (value is None or math.isfinite(value)))
