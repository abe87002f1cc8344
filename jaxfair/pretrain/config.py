"""What a config of a pretraining holds."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict

from jaxfair.cli.fields import Section, checked, section_of
from jaxfair.config import TrainConfig
from jaxfair.engine.optim import OptimConfig
from jaxfair.errors import InputError
from jaxfair.pretrain.contrast import ContrastConfig

__all__ = ["PretrainConfig", "read_config", "sections"]

_SECTIONS: dict[str, type] = {
    "network": ContrastConfig, "optim": OptimConfig, "train": TrainConfig
}  # fmt: skip


@dataclasses.dataclass(frozen=True, kw_only=True)
class PretrainConfig:
    """A pretraining on drawn images.

    Attributes:
      name: of the pretraining.
      seed: of the first weights and of who is drawn.
      images: how many different images there are.
      network: what is trained, and how views are compared.
      optim: the optimiser.
      train: how long, and in what batches; `start_from` is refused, and `leakage` and
        `tensorboard` have no meaning here.
    """

    name: str
    seed: int
    images: int
    network: ContrastConfig
    optim: OptimConfig
    train: TrainConfig


def read_config(config: ConfigDict) -> PretrainConfig:
    """Returns a config, checked. Raises InputError that names the field and the rule."""
    tree = dict(config.to_dict())
    for name, cls in _SECTIONS.items():
        if not isinstance(tree.get(name), Mapping):
            raise InputError(f"config.{name} is to be a section of fields, a ConfigDict.")
        tree[name] = checked(cls, tree[name], name)
    found: PretrainConfig = checked(PretrainConfig, tree, "")
    if found.train.start_from is not None:
        raise InputError("train.start_from is of trainings on patients; leave it out here.")
    if found.train.expected_batch_size < 2:
        raise InputError("train.expected_batch_size is 1; views are compared with other images'.")
    if not found.images >= 2 * found.train.expected_batch_size:
        raise InputError(
            f"images is {found.images}; draw at least two batches of different ones, "
            f"{2 * found.train.expected_batch_size}."
        )
    return found


def sections(config: ConfigDict | None = None) -> list[Section]:
    """Returns the fields with their meaning and the config's values, for `--help`."""
    tree: dict[str, Any] = {} if config is None else config.to_dict()
    given = lambda name: tree.get(name) if tree else None
    own = section_of(PretrainConfig, "config", tree or None)[:1]
    return [*own, *(s for n, cls in _SECTIONS.items() for s in section_of(cls, n, given(n)))]
