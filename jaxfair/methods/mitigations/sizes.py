"""Smaller and larger networks by name: under noise, more parameters are more noise."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from jaxfair.errors import InputError, nearest
from jaxfair.methods.base import Method

__all__ = ["SIZES", "ModelSize", "resize", "sized_by"]

SIZES: dict[str, dict[str, dict[str, Any]]] = {
    "fae": {
        "small": {"hidden_dims": (25, 50, 75, 100)},
        "full": {"hidden_dims": (100, 150, 200, 300)},
        "large": {"hidden_dims": (200, 250, 300, 400)},
    },
    "classifier": {
        "small": {"backbone": "resnet9"},
        "full": {"backbone": "resnet18"},
        "large": {"backbone": "resnet50"},
    },
    "linear_probe": {
        "small": {"patterns": 16, "colours": 16},
        "full": {"patterns": 48, "colours": 64},
        "large": {"patterns": 128, "colours": 128},
    },
}
"""Method -> size -> its fields. Of the feature autoencoder: 1.47, 10.3 and 22.1 million."""
NAMES = ("small", "full", "large")


@dataclasses.dataclass(frozen=True)
class ModelSize:
    """The network is smaller or larger, by a public choice.

    Attributes:
      size: one of NAMES.

    Raises InputError for another name.
    """

    size: str = "small"

    def __post_init__(self) -> None:
        if self.size not in NAMES:
            raise InputError(
                f"mitigation.size is {self.size!r}; sizes are {', '.join(NAMES)}."
                f"{nearest(self.size, NAMES)}"
            )


def resize(config: ModelSize, method: Method) -> Method:
    """Returns `method` as it is; `sized_by` says what it is made of.

    Guarantee: the size is a public constant, and the clip bounds the gradient of the whole
    network, however large it is. Cost: no epsilon. The noise on the sum has the norm
    sigma C sqrt(parameters) and a unit's part the norm C, so a smaller network hears more, and can
    say less.
    """
    return method


def sized_by(
    config: ModelSize, sections: Mapping[str, Mapping[str, Any]]
) -> dict[str, dict[str, Any]]:
    """The fields of the section method that make the size.

    Raises InputError for a method whose sizes nobody named.
    """
    name = str(sections["method"].get("name"))
    if name not in SIZES:
        raise InputError(
            f"The mitigation 'model_size' knows sizes of {', '.join(SIZES)}, and the method is "
            f"{name!r}: set its own fields in config.method instead."
        )
    return {"method": SIZES[name][config.size]}
