"""The Methods by name."""

from typing import Any

from jaxfair.errors import InputError, nearest
from jaxfair.methods.base import Method
from jaxfair.methods.fae import FAEConfig, make_fae

__all__ = ["METHODS", "make_method"]

METHODS: dict[str, tuple[type, Any]] = {"fae": (FAEConfig, make_fae)}
"""name -> (config class, factory)."""


def make_method(name: str, config: Any) -> Method:
    """Returns the Method `name` built from its config; raises InputError for an unknown name."""
    if name not in METHODS:
        known = ", ".join(METHODS)
        raise InputError(f"There is no method {name!r}; known are {known}.{nearest(name, METHODS)}")
    return METHODS[name][1](config)
