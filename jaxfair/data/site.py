"""Data of a second site in the terms of a trained run: its labels, its groups, who may test."""

import dataclasses
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

from jaxfair.data.dataset import Dataset
from jaxfair.data.overlap import Places
from jaxfair.errors import InputError, nearest
from jaxfair.schema import UNKNOWN

__all__ = ["Terms", "in_terms_of", "matched", "without_people"]


class Terms(NamedTuple):
    """What a run calls things.

    Attributes:
      tasks: its labels, in their order.
      values: attribute of an example's `group` -> its public values, in their order.
      attributes: all columns by which its people are grouped.
    """

    tasks: tuple[str, ...]
    values: Mapping[str, tuple[str, ...]]
    attributes: tuple[str, ...]


def matched(
    own: Sequence[str], theirs: Sequence[str], named: Mapping[str, str] | None = None
) -> dict[str, str]:
    """Returns own name -> theirs, for the names that both sides have.

    Case, blanks, hyphens and underscores do not tell names apart.

    Args:
      own: names of the run.
      theirs: names of the second site.
      named: own -> theirs, where they are called differently; these go first.

    Raises InputError where `named` has a name that is not there, or two of theirs are alike.

    >>> matched(["pleural_effusion", "edema"], ["Edema", "Pleural Effusion", "fracture"])
    {'pleural_effusion': 'Pleural Effusion', 'edema': 'Edema'}
    """
    given = dict(named or {})
    for names, known, whose in ((given, own, "the run"), (given.values(), theirs, "the site")):
        for name in names:
            if name not in known:
                raise InputError(
                    f"--labels names {name!r}, which is no label of {whose}; there are "
                    f"{', '.join(known)}.{nearest(name, known)}"
                )
    found = {}
    for name in own:
        like = [other for other in theirs if _plain(other) == _plain(name)]
        if name not in given and len(like) > 1:
            raise InputError(
                f"{name!r} of the run may be {' or '.join(map(repr, like))} of the second site: "
                f"say which, as --labels {name}={like[0]}."
            )
        if name in given or like:
            found[name] = given.get(name) or like[0]
    return found


def in_terms_of(
    dataset: Dataset, labels: Mapping[str, str], terms: Terms, attributes: Sequence[str]
) -> tuple[Dataset, list[str]]:
    """Returns a second site's data as the run would have them, and sentences about what differs.

    Labels carry the run's names; one that the site lacks was not asked in any image. Attributes
    and their values have the run's spelling; a value that the run's list does not name keeps its
    own name in tables, and the code -1, unknown, in examples.

    Args:
      labels: the run's label -> the site's, of `matched`.
      attributes: the site's columns of groups.
    """
    table = dataset.manifest
    kept = table[[name for name in table if not str(name).startswith("label_")]].copy()
    for task in terms.tasks:
        there = task in labels
        kept[f"label_{task}"] = table[f"label_{labels[task]}"] if there else np.nan
    kept, said = _with_groups(kept, terms, attributes)
    lacking = [task for task in terms.tasks if task not in labels]
    if lacking:
        said.insert(0, f"The second site lacks the labels {', '.join(lacking)}: left out.")
    site = dataclasses.replace(
        dataset,
        manifest=kept,
        tasks=terms.tasks,
        groups=dict(terms.values),
        weighted=False,
        strict=False,
    )
    return site, said


def _with_groups(
    table: pd.DataFrame, terms: Terms, attributes: Sequence[str]
) -> tuple[pd.DataFrame, list[str]]:
    """Columns of groups by the run's names, and a sentence for each that it knows otherwise."""
    names, said = matched(terms.attributes, attributes), []
    table = table.rename(columns={theirs: own for own, theirs in names.items()})
    for name, values in terms.values.items():
        if name not in names:
            table[name] = UNKNOWN
            said.append(f"The second site does not know {name}: it is {UNKNOWN} for everybody.")
            continue
        spelt = {_plain(value): value for value in values}
        table[name] = [spelt.get(_plain(value), value) for value in table[name]]
        others = sorted(set(table[name]) - {*values, UNKNOWN})
        if others:
            said.append(
                f"{name} has values that the run has never met, and takes for {UNKNOWN}: "
                f"{', '.join(others)}."
            )
    return table, said


def without_people(dataset: Dataset, seen: Iterable[Places], *, tests: bool) -> tuple[Dataset, int]:
    """Returns the data with those alone as test whom the run has not met, and how many it had.

    Guarantees: nobody who trained or validated in one of `seen` is in the test, neither by the
    id of the unit nor by that of the image (protocol P13). Nobody trains or validates here.

    Args:
      seen: who was where in the run and the runs before it, where they are of one population.
      tests: take the test set of the data's own split alone; else everybody who has one.

    Raises InputError where ids of one population name different things.
    """
    table = dataset.manifest
    inside = (table["split"] == "test") | table["also_test"] if tests else table["split"] != ""
    met = pd.Series(False, table.index)
    for before in seen:
        if before.unit != dataset.unit:
            raise InputError(
                f"The ids of the run name each {before.unit}, and those of the second site each "
                f"{dataset.unit} of the same population {dataset.population!r}: whether somebody "
                "who trained tests here cannot be said; use the same ids in both."
            )
        for column in ("patient_id", "image_id"):
            met |= table[column].astype(str).isin(before.ids(column, "train", "validation"))
    gone = table.loc[inside & met, "patient_id"].nunique()
    table = table.assign(split=np.where(inside & ~met, "test", ""), also_test=False)
    return dataclasses.replace(dataset, manifest=table), int(gone)


def _plain(name: str) -> str:
    return re.sub(r"[\s_-]+", " ", str(name)).strip().casefold()
