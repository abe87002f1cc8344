"""What a person chooses about data, checked before any file is read.

The section `data` of a config is flat, so that `--config.data.fold=2` stays short. Its fields
belong to several classes, each with one thought: where the data are and what an example carries
(`DataConfig`), what is kept of an image (`Stored`), how patients are divided (`SplitConfig`), who
is dropped to make a disparity larger (`CurationConfig`), who of the training split stays
(`ComposeConfig`), and what only the source can be asked (its
`OPTIONS`). `make_data_config` deals them out.
"""

import dataclasses
from typing import Any

from jaxfair.data.checks import as_tuples, check_rules, field_names
from jaxfair.data.composing import ComposeConfig, check_compose
from jaxfair.data.curation import CurationConfig
from jaxfair.data.examples import VALUES, example_spec
from jaxfair.data.sources.base import Options
from jaxfair.data.sources.catalog import SOURCES
from jaxfair.data.splits import SplitConfig
from jaxfair.data.stored import Stored
from jaxfair.errors import InputError, nearest
from jaxfair.schema import COUPLED, INDEPENDENT, UNKNOWN, VIEWS

__all__ = ["DataConfig", "data_classes", "make_data_config"]

PARTS = ("stored", "splits", "curation", "composition", "options")


@dataclasses.dataclass(frozen=True)
class DataConfig:
    """Which data, prepared how, divided how; `make_data_config` makes one of flat fields.

    Attributes:
      source: a key of SOURCES.
      root: folder of the source; None is the variable JAXFAIR_DATA.
      prepared: folder of the prepared set; None is jaxfair-prepared/ beside the root.
      labels: the tasks of an example's `label` (l,), in this order; () means those of the source.
      views: images of other views take no part; () means all of AP, PA, lateral and unknown.
      groups: the attributes of an example's `group` (k,), in this order; () means none.
      public_size: the declared size of the training set, in units (protocol P3); the data
        room only carries it.
      stored: what is kept of an image.
      splits: how patients are divided.
      curation: which images are dropped.
      composition: who of the training split stays.
      options: what only this source can be asked; None is its defaults.

    Raises InputError where the parts do not go together.
    """

    source: str = "rsna"
    root: str | None = None
    prepared: str | None = None
    labels: tuple[str, ...] = ()
    views: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()
    public_size: int | None = None
    stored: Stored = dataclasses.field(default_factory=Stored)
    splits: SplitConfig = dataclasses.field(default_factory=SplitConfig)
    curation: CurationConfig = dataclasses.field(default_factory=CurationConfig)
    composition: ComposeConfig = dataclasses.field(default_factory=ComposeConfig)
    options: Options | None = None

    @property
    def facts(self) -> dict[str, Any]:
        """The source's SPEC, completed by its options."""
        assert self.options is not None
        return self.options.facts(SOURCES[self.source].SPEC)

    @property
    def tasks(self) -> tuple[str, ...]:
        """Names of the labels that an example carries."""
        return self.labels or tuple(self.facts["tasks"])

    @property
    def attributes(self) -> tuple[str, ...]:
        """Names of the columns that group patients."""
        return tuple(self.facts["attributes"])

    @property
    def group_values(self) -> dict[str, tuple[str, ...]]:
        """Attribute of `groups` -> its public values; a group's code is its place there."""
        return {name: self.listed[name] for name in self.groups}

    @property
    def listed(self) -> dict[str, tuple[str, ...]]:
        """Attribute -> its public values, of all whose values are declared."""
        return VALUES | self.facts.get("values", {})

    @property
    def weighted(self) -> bool:
        """Whether an example carries a weight."""
        return bool(self.facts.get("weighted"))

    @property
    def identity(self) -> dict[str, Any]:
        """What a prepared set was made with; an option that has its default is not named."""
        assert self.options is not None
        return {"source": self.source} | self.stored.identity | self.options.kept()

    @property
    def rule(self) -> dict[str, Any]:
        """What decides labels and splits; an option that has its default may be missing."""
        assert self.options is not None
        chosen = {n: list(getattr(self, n)) for n in ("labels", "views") if getattr(self, n)}
        rules = self.splits.rule | self.curation.rule | self.composition.rule
        return rules | self.options.rule() | chosen

    @property
    def selection(self) -> str:
        """INDEPENDENT, or COUPLED where a rule counts patients (protocol P4)."""
        parts = (self.splits, self.curation, self.composition)
        return COUPLED if COUPLED in [part.selection for part in parts] else INDEPENDENT

    @property
    def spec(self) -> dict[str, Any]:
        """The arrays of one raw example, as `examples.example_spec`; no file is read for it."""
        return example_spec(
            self.stored.shape,
            labels=len(self.tasks),
            groups=len(self.groups),
            weighted=self.weighted,
        )

    def __post_init__(self) -> None:
        as_tuples(self, "labels", "views", "groups")
        _check_source(self.source)
        if self.options is None:
            object.__setattr__(self, "options", SOURCES[self.source].OPTIONS())
        tasks, carve = self.facts["tasks"], self.facts.get("carve_validation", False)
        object.__setattr__(self, "splits", self.splits.settled(tasks, carve=carve))
        check_rules(self, (
            (self.public_size is None or self.public_size >= 1, "public_size", "at least 1"),
        ))  # fmt: skip
        _check_names(self)
        _check_curation(self)
        check_compose(self.composition, self.listed, self.attributes)
        _check_stored(self)


def make_data_config(**fields: Any) -> DataConfig:
    """Returns the config of flat fields, each dealt to the class that has it.

    Raises:
      InputError: a field is unknown or belongs to another source, or a class refuses its value.

    >>> config = make_data_config(source="rsna", image_size=64, split="random", anomaly="any")
    >>> config.stored.image_size, config.splits.split, config.tasks
    (64, 'random', ('anomaly',))
    """
    source = fields.get("source", DataConfig.source)
    first, *classes = data_classes(source)
    known = {name for cls in (first, *classes) for name in field_names(cls)} - {*PARTS}
    for name in fields:
        if name not in known:
            _refuse(name, source, known)
    own = {name: fields[name] for name in fields if name in field_names(first)}
    dealt = {
        part: cls(**{name: fields[name] for name in fields if name in field_names(cls)})
        for part, cls in zip(PARTS, classes)
    }
    return DataConfig(**own, **dealt)


def data_classes(source: str) -> tuple[type, ...]:
    """The classes whose fields make the section `data` of a source.

    Raises InputError for a source that is not there.
    """
    _check_source(source)
    own = SOURCES[source].OPTIONS
    return DataConfig, Stored, SplitConfig, CurationConfig, ComposeConfig, own


def _check_source(source: str) -> None:
    if source not in SOURCES:
        raise InputError(
            f"data.source is {source!r}; it must be one of {', '.join(map(repr, SOURCES))}."
            f"{nearest(str(source), SOURCES)}"
        )


def _refuse(name: str, source: str, known: set[str]) -> None:
    owners = [other for other in SOURCES if name in field_names(SOURCES[other].OPTIONS)]
    if owners:
        raise InputError(
            f"data.{name} is an option of data.source {' or '.join(map(repr, owners))}, and the "
            f"source is {source!r}: leave it out."
        )
    raise InputError(f"data.{name} is not a field.{nearest(name, sorted(known))}")


def _check_names(config: DataConfig) -> None:
    """Labels, views and groups must be some that there are."""
    tasks = tuple(config.facts["tasks"])
    for field, names, known in (
        ("views", config.views, (*VIEWS, UNKNOWN)),
        ("labels", config.labels, tasks),
        ("groups", config.groups, config.attributes),
    ):
        for name in names:
            if name not in known:
                raise InputError(
                    f"data.{field} has {name!r}; {config.source} has {', '.join(known)}."
                    f"{nearest(name, known)}"
                )
            if names.count(name) > 1:
                raise InputError(f"data.{field} has {name!r} twice.")
    listed = config.listed
    for name in config.groups:
        if name not in listed:
            raise InputError(
                f"data.groups has {name!r}, whose values are not declared; list all of them as "
                f"data.table.values, so that codes never depend on the data."
            )


def _check_curation(config: DataConfig) -> None:
    """A curation moves a label and groups that there are, and no split that composes by itself."""
    how = config.curation
    if not how.curate:
        return
    if config.splits.selection == COUPLED:
        raise InputError(
            f"data.curate is {how.curate!r}, and data.split {config.splits.split!r} chooses who "
            "trains already: use another split, or leave data.curate empty."
        )
    listed = config.listed
    found = [("curate_label", how.curate_label, config.facts["tasks"])]
    found += [("curate_toward", name, config.attributes) for name in how.curate_toward]
    for name, values in how.curate_toward.items():
        found += [("curate_toward", v, listed[name]) for v in values if name in listed]
    for field, name, known in found:
        if name not in known:
            raise InputError(
                f"data.{field} has {name!r}; there are {', '.join(known)}.{nearest(name, known)}"
            )


def _check_stored(config: DataConfig) -> None:
    """What the source can give."""
    spec, stored = SOURCES[config.source].SPEC, config.stored
    if (stored.volume is not None) != (spec["ndim"] == 3):
        rule = "takes no" if stored.volume else "needs"
        raise InputError(
            f"data.source {config.source!r} {rule} data.volume (d, h, w), the shape that is kept."
        )
    if stored.channels not in spec["channels"]:
        known = " or ".join(map(str, spec["channels"]))
        raise InputError(
            f"data.channels is {stored.channels}; images of {config.source} have {known}."
        )
