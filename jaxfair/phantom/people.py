"""Who is imaged in a phantom of films or scans, and the faults that real tables have."""

from collections.abc import Mapping

import numpy as np
import pandas as pd

from jaxfair.schema import age_groups

__all__ = ["ODDITIES", "draw_studies", "in_gap"]

ODDITIES = {"no_report": 1, "no_sex": 2, "age_zero": 3, "age_impossible": 4, "two_races": 5}
"""Fault -> the person (1, 2, ...; and every 250th from there) who has it: a study without a
report, a sex that is not known, age 0 and age 155 of an adult, two races that contradict."""
EVERY = 250
FIRST = 6
"""So many first persons have one study each, so that the smallest phantom has every oddity."""

WOMEN = 0.45
AGE = (56, 19)
"""Mean and standard deviation in years, cut to 1 to 90."""
RACES = {"white": 0.52, "black": 0.14, "asian": 0.14, "hispanic": 0.1, "other": 0.06,
         "unknown": 0.04}  # fmt: skip


def draw_studies(n: int, visits: Mapping[int, float], *, rng: np.random.Generator) -> pd.DataFrame:
    """Draws `n` persons and their studies, a year apart: one row per study.

    Args:
      n: number of persons.
      visits: number of a person's studies -> its probability.
      rng: everything random comes from it.

    Returns:
      Columns patient (1 to n), study (1, 2, ... of the person), sex, age and race, which are
      true, listed_sex ("" where unknown) and listed_age, which the source's table says, and
      no_report and two_races (bool).
    """
    people = pd.DataFrame({"patient": np.arange(1, n + 1)})
    people["sex"] = rng.choice(["F", "M"], n, p=[WOMEN, 1 - WOMEN])
    people["age"] = np.clip(rng.normal(*AGE, n), 1, 90).astype(int)
    people["race"] = rng.choice(list(RACES), n, p=list(RACES.values()))
    odd = {fault: people["patient"] % EVERY == first for fault, first in ODDITIES.items()}
    people["no_report"], people["two_races"] = odd["no_report"], odd["two_races"]
    adult = np.maximum(people["age"], 30)
    people["age"] = people["age"].mask(odd["age_zero"] | odd["age_impossible"], adult)
    number = rng.choice(list(visits), n, p=list(visits.values()))
    number[:FIRST] = 1
    studies = people.loc[people.index.repeat(number)].reset_index(drop=True)
    studies["study"] = studies.groupby("patient").cumcount() + 1
    studies["age"] = np.minimum(studies["age"] + studies["study"] - 1, 90)
    odd = {fault: studies["patient"] % EVERY == first for fault, first in ODDITIES.items()}
    studies["listed_sex"] = studies["sex"].mask(odd["no_sex"], "")
    listed = studies["age"].mask(odd["age_zero"], 0)
    studies["listed_age"] = listed.mask(odd["age_impossible"], 155)
    return studies


def in_gap(table: pd.DataFrame, group: str) -> "pd.Series[bool]":
    """True for rows of the gap group: by true sex, true age or, where there is one, view."""
    groups = table[table.columns.intersection(["sex", "view"])]
    groups = groups.assign(age_group=age_groups(table["age"]))
    return (groups == group).any(axis=1)
