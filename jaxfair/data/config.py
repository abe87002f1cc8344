"""What a person chooses about data, checked before any file is read."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from jaxfair.data.manifest import SPLIT_RULES, VIEWS
from jaxfair.data.pixels import Stored
from jaxfair.data.sources import chexpert, cxr14, mimic_cxr, rsna, table, volumes
from jaxfair.data.sources.base import Source
from jaxfair.data.sources.table import TableConfig
from jaxfair.errors import InputError, nearest
from jaxfair.phantom.write import PhantomConfig

__all__ = ["SOURCES", "DataConfig"]

SOURCES: dict[str, Source] = {
    "rsna": rsna,
    "chexpert": chexpert,
    "cxr14": cxr14,
    "mimic_cxr": mimic_cxr,
    "table": table,
    "volumes": volumes,
}


@dataclasses.dataclass(frozen=True)
class DataConfig:
    """Which data, prepared how, split how. Everything is checked here, before any file is read.

    Attributes:
      source: a key of SOURCES.
      root: folder of the source; None is the variable JAXFAIR_DATA. With `phantom` it is the
        folder in which phantoms are kept (None: runs/phantoms).
      prepared: folder of the prepared set; None is jaxfair-prepared/ beside the root.
      table: of the sources that are any table: its file and what its columns mean; a mapping
        is accepted.
      image_size: side of the square images, 16 to 1024.
      channels: 1, or 3 for colour, where the source can give it.
      resize: how a film becomes a square: "crop" (its middle), "pad" or "stretch" (DP_CXR).
      equalize: global histogram equalisation (DP_CXR).
      volume: (d, h, w) of the volumes that are kept, each 1 to 1024; for source volumes only.
      spacing: (d, h, w) in mm to which volumes are resampled before; None leaves them.
      window: (low, high), the values of a volume that become black and white.
      labels: the tasks of an example's `label` (l,), in this order; () means those of the source.
      anomaly: "opacity" (other abnormal films are left out) or "any" (they are anomalies too).
      uncertain: what a label that the report leaves open counts as: "ignore" (not asked),
        "zeros" or "ones".
      views: images of other views take no part; () means all of AP, PA, lateral and unknown.
      split: "patient" (anomaly detection: the sick never train), "random" (disease plays no
        role), "folds", "source" (as published) or "thesis" (by group share, `selection:
        coupled`); None is "patient" where a task is "anomaly" and "random" elsewhere.
      split_salt: public constant of the hash.
      folds: number of folds, at least 2, of the split "folds".
      fold: which of them, from 0, is the test.
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
    table: TableConfig | None = None
    image_size: int = 128
    channels: int = 1
    resize: str = "crop"
    equalize: bool = False
    volume: tuple[int, ...] | None = None
    spacing: tuple[float, ...] | None = None
    window: tuple[float, ...] = (-150.0, 250.0)
    labels: tuple[str, ...] = ()
    anomaly: str = "opacity"
    uncertain: str = "ignore"
    views: tuple[str, ...] = ()
    split: str | None = None
    split_salt: str = "jaxfair-1"
    folds: int = 5
    fold: int = 0
    protected_attr: str = "sex"
    protected_attr_percent: float = 0.5
    share_normals: bool = False
    per_group: int = 50
    split_seed: int = 42
    public_size: int | None = None
    phantom: PhantomConfig | None = None

    @property
    def known_tasks(self) -> tuple[str, ...]:
        """Names of all labels of the source."""
        return self.table.labels if self.table else tuple(SOURCES[self.source].SPEC["tasks"])

    @property
    def tasks(self) -> tuple[str, ...]:
        """Names of the labels that an example carries."""
        return self.labels or self.known_tasks

    @property
    def attributes(self) -> tuple[str, ...]:
        """Names of the columns that group patients."""
        more = self.table.attributes if self.table else ()
        return (*SOURCES[self.source].SPEC["attributes"], *more)

    @property
    def stored(self) -> Stored:
        """What is kept of an image."""
        plane = (self.image_size, self.image_size)
        shape = (*(self.volume or plane), self.channels)
        return Stored(shape, self.resize, self.equalize, self.spacing, self.window)

    @property
    def identity(self) -> dict[str, Any]:
        """What a prepared set was made with; an option that has its default is not named."""
        named = ("channels", "resize", "equalize", "volume", "spacing", "window")
        defaults = {f.name: f.default for f in dataclasses.fields(self)}
        more = {n: getattr(self, n) for n in named if getattr(self, n) != defaults[n]}
        if self.table is not None:
            more["table"] = dataclasses.asdict(self.table)
        return {"source": self.source, "image_size": self.image_size} | more

    @property
    def spec(self) -> dict[str, Any]:
        """`jax.ShapeDtypeStruct`s of one raw example; known before any file is read.

        `image` (h, w, c) float32 in [0, 1]; `label` (l,) float32, 0 or 1, and `label_mask` (l,)
        bool, False where the label was not asked.
        """
        import jax

        labels = (len(self.tasks),)
        return {
            "image": jax.ShapeDtypeStruct(self.stored.shape, np.float32),
            "label": jax.ShapeDtypeStruct(labels, np.float32),
            "label_mask": jax.ShapeDtypeStruct(labels, np.bool_),
        }

    def __post_init__(self) -> None:
        for name in ("labels", "views", "volume", "spacing", "window"):
            if getattr(self, name) is not None:
                object.__setattr__(self, name, tuple(getattr(self, name)))
        for name, section in (("phantom", PhantomConfig), ("table", TableConfig)):
            if isinstance(getattr(self, name), Mapping):
                object.__setattr__(self, name, _section(section, name, dict(getattr(self, name))))
        _check_known(self, "source", tuple(SOURCES))
        if self.split is None:
            split = "patient" if "anomaly" in self.known_tasks else "random"
            object.__setattr__(self, "split", split)
        _check_choices(self)
        _check_numbers(self)
        _check_volume(self)
        _check_source(self)


def _check_choices(config: DataConfig) -> None:
    for name, known in (
        ("anomaly", tuple(rsna.FINDING_LABELS)),
        ("uncertain", ("ignore", "zeros", "ones")),
        ("resize", ("crop", "pad", "stretch")),
        ("split", SPLIT_RULES),
        ("protected_attr", ("sex", "age")),
    ):
        _check_known(config, name, known)
    for view in config.views:
        if view not in VIEWS:
            raise InputError(f"data.views has {view!r}; views are {', '.join(VIEWS)}.")


def _check_known(config: DataConfig, name: str, known: tuple[str, ...]) -> None:
    value = getattr(config, name)
    if value not in known:
        raise InputError(
            f"data.{name} is {value!r}; it must be one of {', '.join(map(repr, known))}."
            f"{nearest(str(value), known)}"
        )


def _check_numbers(config: DataConfig) -> None:
    for holds, name, rule in (
        (16 <= config.image_size <= 1024, "image_size", "16 to 1024"),
        (0 <= config.protected_attr_percent <= 1, "protected_attr_percent", "0 to 1"),
        (config.per_group >= 1, "per_group", "at least 1"),
        (config.folds >= 2, "folds", "at least 2"),
        (0 <= config.fold < config.folds, "fold", "0 to data.folds - 1"),
        (config.public_size is None or config.public_size >= 1, "public_size", "at least 1"),
        (not config.share_normals or config.split == "thesis", "share_normals",
         "False unless data.split is 'thesis'"),
        (not config.equalize or config.channels == 1, "equalize", "False for colour images"),
    ):  # fmt: skip
        if not holds:
            raise InputError(f"data.{name} is {getattr(config, name)!r}; it must be {rule}.")


def _check_volume(config: DataConfig) -> None:
    """Options of volumes, and those that volumes have not."""
    if (config.volume is not None) != (SOURCES[config.source].SPEC["ndim"] == 3):
        rule = "takes no" if config.volume else "needs"
        raise InputError(
            f"data.source {config.source!r} {rule} data.volume (d, h, w), the shape that is kept."
        )
    sizes, spacing, window = config.volume or (1, 1, 1), config.spacing or (1, 1, 1), config.window
    flat = (config.resize, config.equalize) != ("crop", False)
    for holds, name, rule in (
        (len(sizes) == 3 and all(1 <= n <= 1024 for n in sizes), "volume", "three numbers, 1-1024"),
        (len(spacing) == 3 and min(spacing) > 0, "spacing", "three sizes in mm above 0"),
        (len(window) == 2 and window[0] < window[1], "window", "two numbers, the lower one first"),
        (config.volume is not None or config.spacing is None, "spacing", "left out for images"),
        (config.volume is None or not flat, "resize",
         "'crop', and data.equalize False, for volumes"),
    ):  # fmt: skip
        if not holds:
            raise InputError(f"data.{name} is {getattr(config, name)!r}; it must be {rule}.")


def _check_source(config: DataConfig) -> None:
    """What the source itself allows."""
    spec = SOURCES[config.source].SPEC
    if config.channels not in spec["channels"]:
        known = " or ".join(map(str, spec["channels"]))
        raise InputError(
            f"data.channels is {config.channels}; images of {config.source} have {known}."
        )
    if bool(spec["tasks"]) == (config.table is not None):
        rule = "needs" if config.table is None else "takes no"
        raise InputError(f"data.source {config.source!r} {rule} section data.table.")
    if config.split in ("patient", "thesis") and "anomaly" not in config.known_tasks:
        raise InputError(
            f"data.split is {config.split!r}, a rule of anomaly detection, and {config.source} "
            "has no task 'anomaly'; use 'random', 'folds' or 'source'."
        )
    for name in config.labels:
        if name not in config.known_tasks:
            raise InputError(
                f"data.labels has {name!r}; {config.source} has {', '.join(config.known_tasks)}."
                f"{nearest(name, config.known_tasks)}"
            )


def _section(cls: type, name: str, fields: dict[str, Any]) -> Any:
    known = [field.name for field in dataclasses.fields(cls)]
    unknown = [field for field in fields if field not in known]
    if unknown:
        raise InputError(
            f"data.{name}.{unknown[0]} is no option; known are {', '.join(known)}."
            f"{nearest(unknown[0], known)}"
        )
    return cls(**fields)
