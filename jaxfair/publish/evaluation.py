"""What a release reads of a run, checked before anything is paid.

Labels and the declared size come from the run's config and claim, never from the rows: one patient
less, even the only one with a label, changes no question and no price (protocol P3, P18).
"""

from typing import Any, NamedTuple

import pandas as pd

from jaxfair.config import method_from_settings, settings_from_config
from jaxfair.errors import InputError
from jaxfair.fairness.predictions import checked
from jaxfair.files import read_json
from jaxfair.publish.asking import Asked, group_codes
from jaxfair.run.folder import RunFolder
from jaxfair.site import config_of_run

__all__ = ["Evaluation", "declared_tasks", "evaluation_of"]


class Evaluation(NamedTuple):
    """An evaluated run.

    Attributes:
      rows: validation and test rows of its predictions, checked.
      tasks: the labels that its config declares, in that order.
      public_size: declared, from which delta follows.
      privacy: its privacy.json.
    """

    rows: pd.DataFrame
    tasks: tuple[str, ...]
    public_size: int
    privacy: dict[str, Any]


def evaluation_of(folder: RunFolder, asked: Asked) -> Evaluation:
    """Returns what a release is made of.

    Raises InputError for the scores of a second site, a run that was not trained or evaluated, rows
    that contradict themselves, do not say whose they are, or have labels that the config does not
    declare, a run without a declared size where none is given, and attributes that no row has.
    """
    _check_files(folder)
    privacy, tasks = read_json(folder.privacy), declared_tasks(folder)
    rows = checked(_read(folder), where=folder.predictions.name)
    rows = rows[rows["split"].isin(["validation", "test"])].reset_index(drop=True)
    others = sorted(set(rows["task"]) - set(tasks))
    if others:
        raise InputError(
            f"{folder.predictions} has the label {others[0]!r}, which the run's config does not "
            f"declare (it has {', '.join(tasks)}): evaluate the run again."
        )
    for attribute in asked.attributes:
        group_codes(asked, rows, attribute)
    return Evaluation(rows, tasks, _size(folder, asked, privacy), privacy)


def declared_tasks(folder: RunFolder) -> tuple[str, ...]:
    """Returns the labels that a run scores, by its config alone.

    Raises InputError where the folder has no config, or one that is not valid.
    """
    method = method_from_settings(settings_from_config(config_of_run(folder)))
    last = method.stages[-1].method if method.stages else method
    return last.tasks


def _check_files(folder: RunFolder) -> None:
    if folder.site.is_file():
        raise InputError(
            f"{folder.path} holds the scores of a second site, and the claim beside them is about "
            "the people of the run: release the run's own evaluation."
        )
    for path in (folder.privacy, folder.predictions):
        if not path.is_file():
            raise InputError(
                f"{folder.path} has no {path.name}: train and evaluate the run before its tables "
                "are released."
            )


def _read(folder: RunFolder) -> pd.DataFrame:
    """The predictions; a column that says whose a row is may not be made up."""
    rows = pd.read_parquet(folder.predictions)
    for name in ("patient_id", "split", "task"):
        if name not in rows:
            raise InputError(
                f"{folder.predictions} has no column {name!r}, so that nobody knows whom a row is "
                "about: evaluate the run again."
            )
    return rows


def _size(folder: RunFolder, asked: Asked, privacy: dict[str, Any]) -> int:
    size = privacy["public_size"] if asked.public_size is None else asked.public_size
    if size is None:
        raise InputError(
            f"{folder.privacy} declares no public_size, from which delta follows: give the number "
            "of evaluated patients, rounded by you, as --release.public_size=N."
        )
    return int(size)
