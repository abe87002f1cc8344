"""What the columns of a table mean: the section data.table, checked before the table is read."""

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

from jaxfair.data.checks import as_tuples, build_section
from jaxfair.data.sources.base import Options
from jaxfair.errors import InputError, nearest
from jaxfair.schema import COLUMNS, INTERNAL_COLUMNS, SCORE_COLUMNS, UNITS

__all__ = ["LICENCE", "LOOK_ALIKES", "TITLE", "TableConfig", "TableOptions"]

LOOK_ALIKES = ("refuse", "merge", "apart")
TITLE, LICENCE = "a table of images", "that of the files"
_UNITS = tuple(unit for unit in UNITS if unit != "image")  # an image needs no column
_TAKEN = (*COLUMNS, *INTERNAL_COLUMNS, *SCORE_COLUMNS, "path", "index",
         "sex_text", "age_text", "view_text")  # fmt: skip
"""Columns of a manifest or of predictions that a group may not be called by."""


_LATER = ("weight", "anomaly", "values", "look_alikes")
"""Fields that stand in the name of a prepared set only where they are used."""


@dataclasses.dataclass(frozen=True)
class TableConfig:
    """What the columns of a table mean; each field but these is the name of one column.

    Attributes:
      file: the CSV, plain or .gz, relative to the root.
      labels: the columns of labels, 0, 1 or empty (not asked); each is a task of its name.
      anomaly: the columns of which any 1 makes an image abnormal and all 0 normal, whatever else
        it is; then "anomaly" is a task too, the first.
      image: path of the image (of the volume), relative to the root.
      stack: instead of `image`, an npy or npz file of all images, relative to the root: its
        image i belongs to row i of the CSV.
      id: names the image; None is its path or, in a stack, its row.
      patient: whose image it is; None where nobody knows, and each image stands alone.
      unit: what `patient` names, "patient" or "lesion" (protocol P2).
      sex, age, view: None where the header of a DICOM file has them, or nothing does. Age is in
        years.
      split: train, validation or test, for data.split="source".
      attributes: further columns of groups, kept as they are; an empty cell is "unknown".
      values: what the cells of a column of groups mean. Of an attribute, all values that it may
        have, public and fixed, as `data.groups` needs them; or written word -> value. Of sex,
        age and view, written word -> value: {"1": "M", "2": "F"}; or pairs of these, which a word
        with a point needs, as no key of a config has one: [("m.", "M"), ("w.", "F")].
      look_alikes: what happens to patients whose ids look alike ("1" and "1.0" and "001", "p1"
        and "P 1"): "refuse" stops, "merge" makes them one patient, "apart" keeps them several and
        gives all but the plainest form a mark ("001 #7a3e6b16"), so that no table merges them.
      weight: of an image in training, a public number of 0 or more per row.
      name: what reports and ledgers call these people.
      title: what reports call the data.
      licence: for the data card.
    """

    file: str
    labels: tuple[str, ...] = ()
    anomaly: tuple[str, ...] = ()
    image: str | None = None
    stack: str | None = None
    id: str | None = None
    patient: str | None = None
    unit: str = "patient"
    sex: str | None = None
    age: str | None = None
    view: str | None = None
    split: str | None = None
    attributes: tuple[str, ...] = ()
    values: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    look_alikes: str = "refuse"
    weight: str | None = None
    name: str = "table"
    title: str = TITLE
    licence: str = LICENCE

    def __post_init__(self) -> None:
        as_tuples(self, "labels", "anomaly", "attributes")
        object.__setattr__(self, "values", {k: _meant(v) for k, v in dict(self.values).items()})
        if not self.tasks:
            raise InputError(
                "data.table.labels is empty; name at least one column of labels (or of anomalies, "
                "as data.table.anomaly)."
            )
        if self.anomaly and "anomaly" in self.labels:
            raise InputError(
                "data.table.labels has 'anomaly', which data.table.anomaly makes of other "
                "columns: leave one of them out."
            )
        if self.look_alikes not in LOOK_ALIKES:
            raise InputError(
                f"data.table.look_alikes is {self.look_alikes!r}; it must be one of "
                f"{', '.join(LOOK_ALIKES)}.{nearest(self.look_alikes, LOOK_ALIKES)}"
            )
        if (self.image is None) == (self.stack is None):
            raise InputError(
                "data.table needs either image (a column of paths) or stack (one npy or npz file)."
            )
        if self.stack and not (self.id or self.patient):
            raise InputError(
                "data.table.stack has neither data.table.id nor data.table.patient, so that an "
                "image is known by its place alone, and one image less would give all others "
                "another name and another split: name a column of ids as data.table.id."
            )
        if self.unit not in _UNITS:
            raise InputError(
                f"data.table.unit is {self.unit!r}; it must be one of {', '.join(_UNITS)}."
            )
        for name in self.attributes:
            if name in _TAKEN or name.startswith("label_"):
                raise InputError(
                    f"data.table.attributes has {name!r}, a name that a column of ours has; rename "
                    "it in the CSV (sex, age, view and split are options of data.table)."
                )
        for name, values in self.values.items():
            _check_values(name, values, self)
        named = [getattr(self, name) for name in ("image", "id", "patient", "sex", "age", "view")]
        kept = [*self.labels, *self.attributes, *(name for name in named if name)]
        kept += [name for name in self.anomaly if name not in self.labels]
        twice = [name for name in kept if kept.count(name) > 1]
        if twice and set(twice) != {self.image}:  # an image's path may be its id
            raise InputError(f"data.table names the column {twice[0]!r} twice.")

    @property
    def tasks(self) -> tuple[str, ...]:
        """The names of the labels, "anomaly" first."""
        return ("anomaly",) * bool(self.anomaly) + self.labels

    @property
    def words(self) -> dict[str, dict[str, str]]:
        """Column of groups -> written word -> value."""
        return {name: dict(v) for name, v in self.values.items() if isinstance(v, Mapping)}

    @property
    def columns(self) -> list[str]:
        """All columns that are read."""
        named = (self.image, self.id, self.patient, self.sex, self.age, self.view, self.split,
                 self.weight)  # fmt: skip
        kept = [*filter(None, named), *self.labels, *self.anomaly, *self.attributes]
        return list(dict.fromkeys(kept))


@dataclasses.dataclass(frozen=True)
class TableOptions(Options):
    """What any table must be asked.

    Attributes:
      table: its file and what its columns mean; a mapping is accepted.
    """

    table: TableConfig | None = None

    @property
    def about(self) -> TableConfig:
        """The section data.table, which is there."""
        assert self.table is not None
        return self.table

    def facts(self, spec: Mapping[str, Any]) -> dict[str, Any]:
        """The facts that only the owner of a table knows, put into `spec`."""
        about = self.about
        return dict(spec) | {
            "title": about.title,
            "licence": about.licence,
            "population": about.name,
            "tasks": about.tasks,
            "attributes": (*spec["attributes"], *about.attributes),
            "values": {
                name: tuple(dict.fromkeys(dict(values).values()))
                if isinstance(values, Mapping)
                else values
                for name, values in about.values.items()
                if name in about.attributes
            },
            "weighted": about.weight is not None,
        }

    def kept(self) -> dict[str, Any]:
        """The whole section, but for what is read at each opening (lists of `values`)."""
        fields = dataclasses.asdict(self.about) | {"values": self.about.words}
        for name in _LATER:
            if fields[name] == getattr(TableConfig, name, {}):
                del fields[name]
        return {"table": fields}

    def __post_init__(self) -> None:
        if self.table is None:
            raise InputError("This data.source needs the section data.table: name its columns.")
        if isinstance(self.table, Mapping):
            table = build_section(TableConfig, "table", self.table)
            object.__setattr__(self, "table", table)


def _meant(values: Any) -> Any:
    """A list of values as a tuple; a mapping of words, or pairs of them, as a dict of texts."""
    if isinstance(values, str) or not isinstance(values, Iterable):
        return values
    if hasattr(values, "items"):
        return {str(word): value for word, value in values.items()}
    found = tuple(values)
    paired = all(isinstance(pair, list | tuple) and len(pair) == 2 for pair in found)
    return {str(word): value for word, value in found} if found and paired else found


def _check_values(name: str, values: Any, about: TableConfig) -> None:
    """What data.table.values says of one column of groups."""
    mapped = isinstance(values, Mapping)
    if name not in about.attributes and not (mapped and name in ("sex", "age", "view")):
        raise InputError(
            f"data.table.values has {name!r}, which is none of data.table.attributes (of sex, age "
            "and view it takes written word -> value)."
        )
    found = values.values() if mapped else values
    if isinstance(found, str) or not all(isinstance(value, str) for value in found) or not found:
        raise InputError(
            f"data.table.values.{name} is {values!r}; it must be a list of texts, or written word "
            "-> text."
        )
