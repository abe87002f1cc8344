"""What a person chooses about data, checked before any file is read."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from jaxfair.data.sources import rsna
from jaxfair.data.sources.phantom import PhantomConfig
from jaxfair.errors import InputError, nearest

__all__ = ["DataConfig"]

SOURCES = {"rsna": rsna.SPEC}


@dataclasses.dataclass(frozen=True)
class DataConfig:
    """Which data, prepared how, split how. Everything is checked here, before any file is read.

    Attributes:
      source: "rsna".
      root: folder of the source; None is the variable JAXFAIR_DATA. With `phantom` it is the
        folder in which phantoms are kept (None: runs/phantoms).
      prepared: folder of the prepared set; None is jaxfair-prepared/ beside the root.
      image_size: side of the square images, 16 to 1024.
      labels: the tasks of an example's `label` (l,), in this order; () means those of the source.
      anomaly: "opacity" (other abnormal films are left out) or "any" (they are anomalies too).
      split: "patient" (default, by hash) or "thesis" (by group share, `selection: coupled`).
      split_salt: public constant of the hash.
      protected_attr: "sex" or "age", of the thesis's split.
      protected_attr_percent: share in [0, 1] of men or of the old in training, thesis's split.
      share_normals: the thesis's defect: validation and test share their normals.
      per_group: images per group, label and split that validate or test, thesis's split.
      split_seed: of the thesis's split.
      public_size: the declared size of the training set, in units (protocol P3); the data
        room only carries it.
      phantom: draw this stand-in instead of reading real data; a mapping is accepted.
    """

    source: str = "rsna"
    root: str | None = None
    prepared: str | None = None
    image_size: int = 128
    labels: tuple[str, ...] = ()
    anomaly: str = "opacity"
    split: str = "patient"
    split_salt: str = "jaxfair-1"
    protected_attr: str = "sex"
    protected_attr_percent: float = 0.5
    share_normals: bool = False
    per_group: int = 50
    split_seed: int = 42
    public_size: int | None = None
    phantom: PhantomConfig | None = None

    @property
    def tasks(self) -> tuple[str, ...]:
        """Names of the labels that an example carries."""
        return tuple(self.labels or SOURCES[self.source]["tasks"])

    @property
    def spec(self) -> dict[str, Any]:
        """`jax.ShapeDtypeStruct`s of one raw example; known before any file is read.

        `image` (h, w, c) float32 in [0, 1]; `label` (l,) float32, 0 or 1, and `label_mask` (l,)
        bool, False where the label was not asked.
        """
        import jax

        labels = (len(self.tasks),)
        return {
            "image": jax.ShapeDtypeStruct((self.image_size, self.image_size, 1), np.float32),
            "label": jax.ShapeDtypeStruct(labels, np.float32),
            "label_mask": jax.ShapeDtypeStruct(labels, np.bool_),
        }

    def __post_init__(self) -> None:
        object.__setattr__(self, "labels", tuple(self.labels))
        if isinstance(self.phantom, Mapping):
            object.__setattr__(self, "phantom", _phantom_config(dict(self.phantom)))
        for name, known in (
            ("source", tuple(SOURCES)),
            ("anomaly", tuple(rsna.FINDING_LABELS)),
            ("split", ("patient", "thesis")),
            ("protected_attr", ("sex", "age")),
        ):
            value = getattr(self, name)
            if value not in known:
                raise InputError(
                    f"data.{name} is {value!r}; it must be one of {', '.join(map(repr, known))}."
                    f"{nearest(str(value), known)}"
                )
        for holds, name, rule in (
            (16 <= self.image_size <= 1024, "image_size", "16 to 1024"),
            (0 <= self.protected_attr_percent <= 1, "protected_attr_percent", "0 to 1"),
            (self.per_group >= 1, "per_group", "at least 1"),
            (self.public_size is None or self.public_size >= 1, "public_size", "at least 1"),
            (not self.share_normals or self.split == "thesis", "share_normals",
             "False unless data.split is 'thesis'"),
        ):  # fmt: skip
            if not holds:
                raise InputError(f"data.{name} is {getattr(self, name)!r}; it must be {rule}.")


def _phantom_config(fields: dict[str, Any]) -> PhantomConfig:
    known = [field.name for field in dataclasses.fields(PhantomConfig)]
    unknown = [name for name in fields if name not in known]
    if unknown:
        raise InputError(
            f"data.phantom.{unknown[0]} is no option; known are {', '.join(known)}."
            f"{nearest(unknown[0], known)}"
        )
    return PhantomConfig(**fields)
