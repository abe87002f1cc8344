"""The Methods by name."""

from typing import Any

from jaxfair.errors import InputError, nearest
from jaxfair.methods import classifier, fae, probe
from jaxfair.methods.base import Method
from jaxfair.methods.classifier import ClassifierConfig, make_classifier
from jaxfair.methods.fae import FAEConfig, make_fae
from jaxfair.methods.probe import ProbeConfig, make_probe

__all__ = ["DESCRIPTIONS", "METHODS", "make_method"]

METHODS: dict[str, tuple[type, Any]] = {
    "fae": (FAEConfig, make_fae),
    "classifier": (ClassifierConfig, make_classifier),
    "linear_probe": (ProbeConfig, make_probe),
}
"""name -> (config class, factory)."""

DESCRIPTIONS: dict[str, Any] = {
    "fae": fae.describe,
    "classifier": classifier.describe,
    "linear_probe": probe.describe,
}
"""name -> function of the config that says what a report must: random or pretrained, checksum."""


def make_method(name: str, config: Any, **parts: Any) -> Method:
    """Returns the Method `name` built from its config; raises InputError for an unknown name.

    `parts` are functions that a config cannot hold, such as the classifier's `augment`.
    """
    if name not in METHODS:
        known = ", ".join(METHODS)
        raise InputError(f"There is no method {name!r}; known are {known}.{nearest(name, METHODS)}")
    return METHODS[name][1](config, **parts)
