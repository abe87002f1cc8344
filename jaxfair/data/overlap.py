"""Whether somebody trains in one stage of a chain of runs and tests in another (protocol P13)."""

from typing import NamedTuple

import pandas as pd

from jaxfair.data import build
from jaxfair.data.arranging import arrange
from jaxfair.data.config import DataConfig
from jaxfair.data.dataset import prepare
from jaxfair.errors import InputError

__all__ = ["Places", "check_places", "places_of"]


class Places(NamedTuple):
    """Who is where under a config.

    Attributes:
      table: one row per image with patient_id, image_id, split and also_test.
      population: who the people are.
      unit: what patient_id names.
    """

    table: pd.DataFrame
    population: str
    unit: str

    def ids(self, column: str, *splits: str) -> set[str]:
        """Returns the ids of the images, or of the patients, in any of these splits."""
        inside = self.table["split"].isin(splits)
        if "test" in splits:
            inside |= self.table["also_test"]
        return set(self.table.loc[inside, column].astype(str))


def places_of(config: DataConfig) -> Places:
    """Returns who is where under a config; no image of a prepared set is read.

    Raises InputError where its data are not there.
    """
    folder = prepare(config, progress=False)
    about = build.read_marker(folder) or {}
    table = arrange(pd.read_parquet(folder / "manifest.parquet"), config)
    unit = about.get("unit") or ("patient" if about["patient_ids_known"] else "image")
    return Places(table, about["population"], unit)


def check_places(before: Places, now: Places, *, where: str) -> None:
    """Refuses a stage whose held-out people trained in an earlier one, or the reverse.

    Guarantees: of one population, nobody who trained before validates or tests now, and nobody
    who tested before trains now; neither by the id of the unit nor by that of the image. Other
    populations are taken to be other people here, since their ids name other things.

    Args:
      where: folder of the earlier stage, for the sentence.

    Raises InputError, also where ids of one population name different things.
    """
    if before.population != now.population:
        return
    if before.unit != now.unit:
        raise InputError(
            f"train.start_from is {where}, whose ids name each {before.unit}, and the ids here "
            f"name each {now.unit} of the same population {now.population!r}: whether somebody who "
            "trained there tests here cannot be said; use the same ids in both."
        )
    for column in ("patient_id", "image_id"):
        trained = before.ids(column, "train") & now.ids(column, "validation", "test")
        tested = before.ids(column, "test") & now.ids(column, "train")
        if trained or tested:
            what = "trained there is held out here" if trained else "tested there trains here"
            raise InputError(
                f"train.start_from is {where}, and somebody who {what}: a report on such people "
                "would be too good. Use the same data.split, split_salt and fold in both."
            )
