"""What a benchmark's config holds."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict

from jaxfair.cli.fields import Section, checked, section_of
from jaxfair.errors import InputError

__all__ = ["BenchmarkConfig", "WorkConfig", "sections"]


@dataclasses.dataclass(frozen=True)
class WorkConfig:
    """One network on one made-up batch; an entry of `config.works`.

    Attributes:
      method: name of the Method.
      options: fields of the Method's config.
      image: shape of an image, (h, w, c) or (d, h, w, c).
      prepared: begin with features that are computed once, where the Method has such.
      batch: examples per device.
    """

    method: str
    options: Mapping[str, Any]
    image: tuple[int, ...]
    prepared: bool
    batch: int


@dataclasses.dataclass(frozen=True)
class BenchmarkConfig:
    """What is measured, and how long.

    Attributes:
      works: name -> what is measured.
      ways: how gradients are summed: "non-private", "vmap", "fast"; ratios are to the first.
      precisions: "float32", "tf32" or "bfloat16".
      only: names of works; () for all.
      l2_clip_norm: the bound on one example's gradient.
      rounds: each way is timed so often, in turns.
      seconds: per work, after which no further round begins.
      check: measure errors against the loop over single examples.
      check_rows: on the first so many examples (and the last alone); 0 for all.
      explain: measure each leaf's norms and sum alone, beside what the cost rule predicts.
      largest_batch: estimate how many examples would fit into `memory_gib`.
      memory_gib: memory of one device.
    """

    works: Mapping[str, Any]
    ways: tuple[str, ...]
    precisions: tuple[str, ...]
    only: tuple[str, ...] = ()
    l2_clip_norm: float = 0.01
    rounds: int = 9
    seconds: float = 60.0
    check: bool = True
    check_rows: int = 0
    explain: bool = False
    largest_batch: bool = True
    memory_gib: float = 16.0

    def __post_init__(self) -> None:
        for name in ("l2_clip_norm", "rounds", "seconds", "memory_gib"):
            if not getattr(self, name) > 0:
                raise InputError(f"config.{name} is {getattr(self, name)}; it must be positive.")
        if not isinstance(self.works, Mapping):
            raise InputError(f"config.works is {self.works!r}; it must be a section of works.")
        for name, work in self.works.items():
            if not isinstance(work, Mapping):
                raise InputError(f"config.works.{name} is {work!r}; it must be a section.")
            checked(WorkConfig, work, f"works.{name}")


def sections(config: ConfigDict | None = None) -> list[Section]:
    """Returns the fields with their meaning and the config's values, for `--help`."""
    tree = None if config is None else config.to_dict()
    works = {"NAME": None} if tree is None else dict(tree.get("works", {}))
    inner = [section_of(WorkConfig, f"works.{name}", work) for name, work in works.items()]
    return [*section_of(BenchmarkConfig, "", tree), *(part for found in inner for part in found)]
