"""What a source is: a module that reads a published layout into rows, before any picture."""

import dataclasses
import os
import pathlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import pandas as pd

from jaxfair import tables
from jaxfair.data import sizes
from jaxfair.errors import InputError

__all__ = [
    "ASIDE",
    "MissingData",
    "Options",
    "Source",
    "SourceTable",
    "find",
    "read_csv",
    "rejected",
    "require",
    "sizes_in",
    "task_name",
    "without_file",
]

ASIDE = ["image_id", "file", "reason"]


class MissingData(InputError):
    """The files are not there; the sentence says what was looked for and where to get it."""


class SourceTable(NamedTuple):
    """What a source knows before any picture is decoded.

    Attributes:
      rows: image_id, patient_id (of the unit), path; then what the manifest keeps: labels,
        attributes, abnormal and the like. `sex_text`, `age_text` and `view_text`, where there
        are any, stand for what a file's header says; `index` is the place in a stack.
      rejected: image_id, file, reason, one row per thing that was set aside.
      unit: whose id patient_id is: "patient", "lesion" or, where only images can be told
        apart, "image".
      counts: what was found, for the data card.
      processes: how many may decode at once; None for one a core.
    """

    rows: pd.DataFrame
    rejected: pd.DataFrame
    unit: str
    counts: dict
    processes: int | None = None

    @property
    def patient_ids_known(self) -> bool:
        """False where a patient cannot be told from an image or a lesion."""
        return self.unit == "patient"


@dataclasses.dataclass(frozen=True)
class Options:
    """What only one source can be asked, as fields of the section `data`: here nothing.

    A source with questions has a dataclass of its own that derives from this one, checks its
    fields, and answers for them.
    """

    def facts(self, spec: Mapping[str, Any]) -> dict[str, Any]:
        """`Source.SPEC`, completed by what was asked.

        May add `values`, the public values of further attributes by name, and `weighted`, True
        where rows carry a column `weight`.
        """
        return dict(spec)

    def kept(self) -> dict[str, Any]:
        """The options that decide what is prepared; one that has its default is not named."""
        return {}

    def rule(self) -> dict[str, Any]:
        """The options that decide what a label is, for the data card and the digest."""
        return {}


class Source(Protocol):
    """The names that a source module has.

    Attributes:
      SPEC: name, title, population, tasks, attributes, licence, where, needs, optional; and
        ndim (2 or 3), channels (those it can give), patient_hint (how patients become known
        where they are not), config (the experiment that shows it) and, where an attribute is
        not one of every source, values (its public values by name); carve_validation, True
        where the published split has no validation set; modalities, where all files have known
        ones (DICOM's words).
      HOW_TO_GET: a sentence for whoever has not got the files.
      OPTIONS: the class of its own options, or `Options` itself.
    """

    SPEC: dict[str, Any]
    HOW_TO_GET: str

    @property
    def OPTIONS(self) -> type[Options]:
        """The class of its own options."""

    @property
    def read_table(self) -> Callable[[Any, Any], SourceTable]:
        """(root, options) -> the table; MissingData or InputError where it cannot be read."""

    @property
    def read_pixels(self) -> Callable[[Any], Any]:
        """A job of `pixels.Job` -> (uint8 array or None, header); for other processes."""

    @property
    def inventory(self) -> Callable[[Any, Any], Any]:
        """(root, options) -> tables (paths) and images (name, size), for the fingerprint."""

    @property
    def label(self) -> Callable[[pd.DataFrame, Any], pd.DataFrame]:
        """(manifest, options) -> the manifest with its columns label_<task>."""


def require(root: pathlib.Path, needs: Sequence[str], how_to_get: str) -> None:
    """Raises MissingData where the folder or one of its parts (names or patterns) is missing."""
    if not root.is_dir():
        raise MissingData(f"The data folder {root} does not exist. {how_to_get}")
    missing = [name for name in needs if find(root, name) is None]
    if missing:
        raise MissingData(f"{root} lacks {' and '.join(missing)}. {how_to_get}")


def find(root: pathlib.Path, *patterns: str) -> pathlib.Path | None:
    """The first path under `root`, by name, that matches the first pattern that has any."""
    for pattern in patterns:
        found = sorted(root.glob(pattern))
        if found:
            return found[0]
    return None


def read_csv(
    path: pathlib.Path,
    columns: Sequence[str],
    where: str = "",
    *,
    optional: Sequence[str] = (),
    remarks: list[str] | None = None,
) -> pd.DataFrame:
    """Reads columns of a published table as `tables.read_table` does, stripped texts.

    Args:
      path: the file.
      columns: those that must be there.
      where: the address to get the file from, for the sentence.
      optional: those that are read if they are there.
      remarks: gets a sentence about what was taken for granted (Latin-1, one of several sheets).

    Raises:
      InputError: it is no table, lacks a column or has no rows.
    """
    sizes.check_gzip(path)
    sizes.check_zip(path)
    table = tables.read_table(path, required=columns, optional=optional, remarks=remarks)
    if table.empty:
        again = f"; get it again from {where}." if where else "."
        raise InputError(f"{path} has no rows{again}")
    return table[[name for name in (*columns, *optional) if name in table]]


def rejected(aside: Iterable[tuple[str, str, str]]) -> pd.DataFrame:
    """The list of what was set aside, as `SourceTable` holds it."""
    return pd.DataFrame(list(aside), columns=ASIDE)


def without_file(
    rows: pd.DataFrame, exists: "pd.Series[bool]", what: str = "row without a file"
) -> tuple[pd.DataFrame, list[tuple[str, str, str]]]:
    """Rows whose file is there, and a line for each of the others."""
    lost = rows.loc[~exists, ["image_id", "path"]]
    return rows[exists], [(i, pathlib.PurePath(p).name, what) for i, p in lost.to_numpy()]


def sizes_in(folder: pathlib.Path, root: pathlib.Path | None = None) -> list[tuple[str, int]]:
    """Names, relative to `root` or else to `folder`, and sizes of all files below `folder`."""
    sizes: list[tuple[str, int]] = []
    for place, _, names in os.walk(folder):
        for name in names:
            path = os.path.join(place, name)
            sizes.append((os.path.relpath(path, root or folder), os.stat(path).st_size))
    return sorted(sizes)


def task_name(name: str) -> str:
    """A published label as the name of a task.

    >>> task_name("Pleural Effusion")
    'pleural_effusion'
    """
    return name.strip().lower().replace(" ", "_")
